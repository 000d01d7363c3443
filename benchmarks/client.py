"""CPU milliseconds a request: `gateway.http` beside aiohttp's client, against a mock upstream in another process.

    ./mock_upstream 9001 &
    python -m benchmarks.client --upstream http://127.0.0.1:9001

The mock answers a POST with JSON, or with `max_tokens` SSE chunks when the body has "stream":true. The two
clients take turns, `--repeats` times a cell; medians are printed. Only this process's CPU time is counted.

Pin both processes (`taskset -c 0 ./mock_upstream ...`, `taskset -c 1 python -m ...`), and say how: whether they share
a core moves the c=1 figure five-fold (waking an idle core costs more than the request), and unpinned runs flip
between the two from one moment to the next.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import uvloop
import yarl

from gateway.http import HttpClient, Origin

Ask = Callable[[bytes], Awaitable[int]]

HEADERS = {
    "Content-Type": "application/json",
    "Authorization": "Bearer sk-bench",
    "User-Agent": "OpenAI/Python 2.0.0",
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "X-Request-Id": "req-0123456789abcdef",
}
SSE_CHUNKS = 50


@dataclass(frozen=True)
class Cell:
    name: str
    body: bytes
    concurrency: int
    requests: int
    unit: str = "request"
    units_per_request: int = 1


CELLS = (
    Cell("1 kB, c=1", b'{"model":"gpt-4o","content":"%b"}' % (b"a" * 1000), 1, 4000),
    Cell("1 kB, c=16", b'{"model":"gpt-4o","content":"%b"}' % (b"a" * 1000), 16, 8000),
    Cell("1 kB, c=64", b'{"model":"gpt-4o","content":"%b"}' % (b"a" * 1000), 64, 8000),
    Cell("32 kB, c=16", b'{"model":"gpt-4o","content":"%b"}' % (b"a" * 32_000), 16, 4000),
    Cell("400 kB, c=4", b'{"model":"gpt-4o","content":"%b"}' % (b"a" * 400_000), 4, 400),
    Cell(
        f"SSE, {SSE_CHUNKS} chunks, 10 ms apart, c=100",
        b'{"stream":true,"max_tokens":%d,"seed":10}' % SSE_CHUNKS,
        100,
        300,
        unit="chunk",
        units_per_request=SSE_CHUNKS,
    ),
)


def lean(client: HttpClient, origin: Origin) -> Ask:
    headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def ask(body: bytes) -> int:
        answer = await client.request(
            origin,
            method="POST",
            target=b"/v1/chat/completions",
            headers=headers,
            body=body,
            connect_timeout_s=10,
            header_timeout_s=300,
            idle_timeout_s=300,
            total_timeout_s=600,
        )
        if answer.status != 200:
            raise RuntimeError(f"the upstream answered {answer.status}")
        whole = answer.complete_body
        if whole is not None:
            return len(whole)
        size = 0
        while chunk := await answer.read():
            size += len(chunk)
        return size

    return ask


def through_aiohttp(session: aiohttp.ClientSession, origin: Origin) -> Ask:
    url = yarl.URL(f"{origin.scheme}://{origin.authority}/v1/chat/completions")

    async def ask(body: bytes) -> int:
        async with session.post(url, data=body, headers=HEADERS, allow_redirects=False) as answer:
            if answer.status != 200:
                raise RuntimeError(f"the upstream answered {answer.status}")
            size = 0
            while chunk := await answer.content.readany():
                size += len(chunk)
            return size

    return ask


async def run(ask: Ask, cell: Cell) -> tuple[float, float]:
    """CPU milliseconds a unit, and units a second."""
    left = iter(range(cell.requests))

    async def worker() -> None:
        for _ in left:
            if not await ask(cell.body):
                raise RuntimeError("the upstream's answer was empty")

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(cell.concurrency)))
    units = cell.requests * cell.units_per_request
    return (time.process_time() - cpu) / units * 1000, units / (time.perf_counter() - wall)


async def compare(origin: Origin, repeats: int) -> None:
    client = HttpClient(limit_per_host=200, keepalive_s=30, trust_env=False)
    session = aiohttp.ClientSession(
        auto_decompress=False,
        connector=aiohttp.TCPConnector(limit=200),
        timeout=aiohttp.ClientTimeout(total=600, sock_connect=10, sock_read=300),
    )
    clients = {"gateway.http": lean(client, origin), "aiohttp": through_aiohttp(session, origin)}
    columns = ("cell", *(f"{name}, CPU ms" for name in clients), "ratio", *(f"{name}, 1/s" for name in clients))
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    try:
        for cell in CELLS:
            figures: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
            for ask in clients.values():
                await run(ask, Cell(cell.name, cell.body, cell.concurrency, cell.concurrency * 2))
            for _ in range(repeats):
                for name, ask in clients.items():
                    figures[name].append(await run(ask, cell))
            cpu = {name: statistics.median(figure[0] for figure in taken) for name, taken in figures.items()}
            rate = {name: statistics.median(figure[1] for figure in taken) for name, taken in figures.items()}
            print(
                f"| {cell.name} (a {cell.unit}) | {' | '.join(f'{cpu[name]:.4f}' for name in clients)} "
                f"| {cpu['aiohttp'] / cpu['gateway.http']:.1f} "
                f"| {' | '.join(f'{rate[name]:,.0f}' for name in clients)} |",
                flush=True,
            )
    finally:
        await session.close()
        await client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", default="http://127.0.0.1:9001", help="base URL of the mock upstream")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    options = parser.parse_args()
    work = compare(Origin.from_url(options.upstream), options.repeats)
    if options.loop == "uvloop":
        uvloop.run(work)
    else:
        asyncio.run(work)


if __name__ == "__main__":
    main()
