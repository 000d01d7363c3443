"""Mixed load for a long time: does memory stay flat, and is nothing left behind?

    python -m benchmarks.soak [--minutes 30] [--workers N]

Short and long prompts, streams read to their end and streams left half-way, refused callers, new connections: at a
moderate pace, everything at once. Fails on an answer that was not to be expected, on memory that grows after the
warm-up (judged from ten minutes on), and on a hold or a connection that is left when the load has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from benchmarks.proxy.load import Cell, body_maker
from benchmarks.proxy.targets import KEY, Target, free_port, gateway
from benchmarks.proxy.upstream import serve

SAMPLE_S = 5.0
WARM_UP_TEXT = 240
"""Requests of 400 kB that fill the count cache before memory is judged."""
JUDGED_FROM_MINUTES = 10.0
MOST_GROWTH = 0.03
"""Of the memory, between the first and the last third of the time."""


@dataclass
class Soak:
    """What a run met."""

    statuses: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    memory_mb: list[float] = field(default_factory=list)
    idle_sockets: int = 0
    sockets_left: int = 0
    held_left: int = 0

    @property
    def growth(self) -> float:
        """Of the memory from the first to the last third of the samples, as a share."""
        third = len(self.memory_mb) // 3
        first, last = (statistics.mean(part) for part in (self.memory_mb[:third], self.memory_mb[-third:]))
        return last / first - 1


class Caller:
    """Sends one kind of request again and again, and notes what came."""

    def __init__(self, soak: Soak, url: str, session: aiohttp.ClientSession, until: float) -> None:
        self._soak = soak
        self._url = url + "/v1/chat/completions"
        self._session = session
        self._until = until

    async def ask(
        self, name: str, cell: Cell, *, pause_s: float, expected: int = 200, key: str = KEY, leaves: bool = False
    ) -> None:
        """Ask until the time is over; with `leaves` the answer is left after its first bytes."""
        make, number = body_maker(cell), 0
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        if name == "new connections":
            headers["Connection"] = "close"
        while time.monotonic() < self._until:
            number += 1
            try:
                async with self._session.post(self._url, data=make(number), headers=headers) as response:
                    if leaves:
                        await response.content.readany()
                        response.close()
                    else:
                        await response.read()
                    found = response.status
            except (aiohttp.ClientError, TimeoutError) as error:
                self._soak.errors[f"{name}: {type(error).__name__}"] += 1
                continue
            self._soak.statuses[f"{name}: {found}"] += 1
            if found != expected:
                self._soak.errors[f"{name}: {found} instead of {expected}"] += 1
            await asyncio.sleep(pause_s)

    def everything(self) -> list[Awaitable[None]]:
        """All kinds at once."""
        short, long, huge = Cell(1_000, 1), Cell(32_000, 1), Cell(400_000, 1, fresh="all")
        streamed = Cell(1_000, 1, chunks=50, every_ms=10)
        return [
            *(self.ask("1 kB", short, pause_s=0.05) for _ in range(4)),
            self.ask("32 kB", long, pause_s=0.1),
            self.ask("400 kB", huge, pause_s=1.0),
            *(self.ask("streams", streamed, pause_s=0.1) for _ in range(4)),
            *(self.ask("streams left", streamed, pause_s=0.1, leaves=True) for _ in range(2)),
            self.ask("new connections", short, pause_s=0.1),
            self.ask("unknown key", short, pause_s=0.2, key="sk-nobody", expected=401),
        ]


async def soak(target: Target, *, minutes: float, told: Callable[[str], None], warm_up: int = WARM_UP_TEXT) -> Soak:
    """Load a started target for so long and look what is left; `warm_up` is how many long texts come first."""
    found, url = Soak(), f"http://127.0.0.1:{target.port}"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await _warm_up(session, url, warm_up)
        await asyncio.sleep(1)
        found.idle_sockets = await asyncio.to_thread(target.sockets)
        began = time.monotonic()
        caller = Caller(found, url, session, began + minutes * 60)
        work = asyncio.gather(*caller.everything())
        while not work.done():
            await asyncio.wait([work], timeout=SAMPLE_S)
            found.memory_mb.append(sum(await asyncio.to_thread(target.memory_mb)))
            if len(found.memory_mb) % 12 == 0:
                sockets = await asyncio.to_thread(target.sockets)
                told(f"{(time.monotonic() - began) / 60:.0f} min: {found.memory_mb[-1]:.0f} MB, {sockets} sockets")
        await work
        found.held_left = await _held(session, url)
    found.sockets_left = await _sockets_left(target, at_most=found.idle_sockets)
    return found


async def _warm_up(session: aiohttp.ClientSession, url: str, times: int) -> None:
    make = body_maker(Cell(400_000, 1, fresh="all"))
    for number in range(times):
        body = make(10**9 + number)
        async with session.post(
            url + "/v1/chat/completions", data=body, headers={"Authorization": f"Bearer {KEY}"}
        ) as response:
            await response.read()


async def _held(session: aiohttp.ClientSession, url: str) -> int:
    """What is held once nothing runs any more; streams that were left take a moment to be noticed."""
    held = -1
    for _ in range(100):
        async with session.get(url + "/budgets", headers={"Authorization": f"Bearer {KEY}"}) as response:
            held = sum(row["held"] for row in (await response.json())["data"])
        if not held:
            break
        await asyncio.sleep(0.1)
    return held


async def _sockets_left(target: Target, *, at_most: int) -> int:
    """Open sockets beyond those before the load. Idle upstream connections are closed after a minute."""
    for _ in range(80):
        sockets = await asyncio.to_thread(target.sockets)
        if sockets <= at_most:
            return 0
        await asyncio.sleep(1)
    return sockets - at_most


def main() -> None:
    """Run, print, and exit with 1 when a promise is broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    port = free_port()
    upstream = multiprocessing.get_context("spawn").Process(target=serve, args=(port,), daemon=True)
    upstream.start()
    with tempfile.TemporaryDirectory(prefix="tollgate-soak-") as name:
        target = gateway(Path(name), port, workers=chosen.workers)
        target.start(Path(name))
        target.wait_until_loaded(workers=chosen.workers)
        try:
            found = asyncio.run(soak(target, minutes=chosen.minutes, told=lambda line: print(line, flush=True)))
        finally:
            target.stop()
            upstream.terminate()
    judged = chosen.minutes >= JUDGED_FROM_MINUTES
    print(f"{sum(found.statuses.values()):,} answers in {chosen.minutes:g} minutes, {os.cpu_count()} cores:")
    for what, times in sorted(found.statuses.items()):
        print(f"  {what}: {times:,}")
    memory = found.memory_mb
    print(f"memory {memory[0]:.0f} MB at first, {memory[-1]:.0f} MB at last, {max(memory):.0f} MB at most; ", end="")
    print(f"last third {found.growth:+.1%} of the first{'' if judged else ' (too short to be judged)'}")
    print(f"errors {sum(found.errors.values())} {dict(found.errors) or ''}")
    print(f"held afterwards {found.held_left}, sockets left {found.sockets_left}")
    grown = judged and found.growth > MOST_GROWTH
    sys.exit(bool(found.errors or found.held_left or found.sockets_left or grown))


if __name__ == "__main__":
    main()
