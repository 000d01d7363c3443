"""Redis stops answering under load, or dies and comes back: what was promised for each `on_error`, and no more.

``STORE_LOSS_S=10`` makes the outages longer than CI has time for, and tries every mode in both ways.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.overspend.fleet import Process, accepts, free_port
from tests.conftest import RunningGateway, StartGateway, config_for
from tests.fakes import Connection, FakeUpstream, Received, chat, plain

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")

LONG = "STORE_LOSS_S" in os.environ
STALLS, DIES = (["stalls", "dies"],) * 2 if LONG else (["stalls"], ["dies"])
STALL_S = float(os.environ.get("STORE_LOSS_S", "5"))
"""A server that says nothing counts as lost after 2 s of silence, noticed within 4 s."""
DEATH_S = float(os.environ.get("STORE_LOSS_S", "1.5"))
PATH = "/v1/chat/completions"
ASK = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 11}
CALLERS = 16
COSTS = 20
"""Each request holds and uses 9 tokens in and 11 out."""


class Redis(Process):
    """A server that keeps what it has acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        options = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--dir", str(folder)]
        super().__init__(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", *options], folder / "redis.log"
        )


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Redis]:
    server = Redis(tmp_path)
    await asyncio.to_thread(server.start)
    await accepts(server.port)
    yield server
    assert server.child is not None
    server.send(signal.SIGCONT)
    await server.kill()


@pytest.fixture
def slow_upstream(upstream: FakeUpstream) -> FakeUpstream:
    """Answers take a while, so that holds are open at every moment."""
    answer = plain(chat(prompt_tokens=9, completion_tokens=11))

    async def script(connection: Connection, received: Received) -> None:
        await asyncio.sleep(0.1)
        await answer(connection, received)

    upstream.default = script
    return upstream


class Load:
    """Callers that go round two replicas until told to stop."""

    def __init__(self, gateways: list[RunningGateway]) -> None:
        self._gateways = gateways
        self._stop = False
        self._tasks: list[asyncio.Task[None]] = []
        self.seen: list[tuple[int, str]] = []
        self.refusals: list[Any] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._call(number)) for number in range(CALLERS)]

    async def stop(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    def phase(self) -> Counter[tuple[int, str]]:
        """What has been seen since this was asked last: statuses, and modes of degraded decisions."""
        seen, self.seen = self.seen, []
        return Counter(seen)

    async def under_way(self, answers: int = 40) -> None:
        """Wait until everything runs, and well."""
        while len(self.seen) < answers:
            await asyncio.sleep(0.02)
        assert set(self.phase()) == {(200, "")}

    async def _call(self, number: int) -> None:
        while not self._stop:
            number += 1
            response, body = await self._gateways[number % len(self._gateways)].post(PATH, ASK)
            self.seen.append((response.status, response.headers.get("x-tollgate-degraded", "")))
            if response.status != 200:
                self.refusals.append((response.status, response.headers, body))
                await asyncio.sleep(0.05)


async def start_two(
    start_gateway: StartGateway, upstream: FakeUpstream, redis: Redis, *, mode: str, limit: int, **server: Any
) -> list[RunningGateway]:
    store = {"url": redis.url, "on_error": mode, "replicas": 2}
    if mode != "divide":
        del store["replicas"]
    config = config_for(
        upstreams=[{"name": "up", "url": upstream.url}],
        budgets=[{"name": "main", "limits": [{"tokens": limit, "per": "day"}]}],
        store=store,
        server={"host": "127.0.0.1", **server},
    )
    # Redis's own clock decides where windows begin.
    return [await start_gateway(config, clock=time.time) for _ in range(2)]


async def accounts(gateways: list[RunningGateway], upstream: FakeUpstream) -> int:
    """What is used, once nothing is held and ledger and upstream agree with it."""
    row: dict[str, Any] = {}
    for _ in range(200):
        row = await gateways[0].budget()
        store = gateways[0].runtime.engine.store
        charged = sum([entry.input_tokens + entry.output_tokens async for entry in store.entries()])
        if not row["held"] and row["used"] == charged == COSTS * upstream.served and not await store.holds():
            return int(row["used"])
        await asyncio.sleep(0.05)
    raise AssertionError(f"{row}, ledger {charged}, served {COSTS * upstream.served}, {await store.holds()}")


def degraded(gateways: list[RunningGateway], mode: str) -> float:
    """What the metric says of decisions made without the store."""
    start = f'tollgate_degraded_decisions_total{{mode="{mode}"}}'
    lines = [line for gateway in gateways for line in gateway.runtime.metrics.render().decode().splitlines()]
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))


async def lose(redis: Redis, how: str) -> None:
    if how == "stalls":
        redis.send(signal.SIGSTOP)
        await asyncio.sleep(STALL_S)
    else:
        await redis.kill()
        await asyncio.sleep(DEATH_S)


async def bring_back(redis: Redis, how: str) -> None:
    if how == "stalls":
        redis.send(signal.SIGCONT)
    else:
        await asyncio.to_thread(redis.start)
        await accepts(redis.port)


async def until_spent(load: Load) -> Counter[tuple[int, str]]:
    """Go on until for a while all have been told that the day is spent, none of it degraded."""
    seen: Counter[tuple[int, str]] = Counter()
    for _ in range(120):
        load.refusals.clear()
        await asyncio.sleep(0.25)
        now = load.phase()
        seen += now
        if set(now) == {(429, "")} and {body["error"]["code"] for _, _, body in load.refusals} == {
            "insufficient_quota"
        }:
            return seen
    raise AssertionError(f"the budget is never spent: {seen}")


@pytest.mark.parametrize("how", STALLS)
async def test_refuse_forwards_nothing_and_recovers_by_itself(
    start_gateway: StartGateway, slow_upstream: FakeUpstream, redis: Redis, how: str
) -> None:
    limit = 400 * COSTS + COSTS - 1
    gateways = await start_two(start_gateway, slow_upstream, redis, mode="refuse", limit=limit)
    load = Load(gateways)
    load.start()
    await load.under_way()
    await lose(redis, how)
    lost = load.phase()
    assert lost[(503, "")] > 0
    assert set(lost) <= {(200, ""), (503, "")}
    response, _ = await gateways[0].get("/health")
    assert response.status == 503
    status, headers, body = load.refusals[-1]
    assert (status, body["error"]["code"]) == (503, "budget_store_unavailable")
    assert int(headers["retry-after"]) > 0
    forwarded = len(slow_upstream.requests)
    await asyncio.sleep(0.3)
    assert len(slow_upstream.requests) == forwarded
    await bring_back(redis, how)
    after = await until_spent(load)
    assert after[(200, "")] > 0
    await load.stop()
    assert await accounts(gateways, slow_upstream) == 400 * COSTS


@pytest.mark.parametrize("how", DIES)
async def test_divide_admits_each_replicas_share_and_overspends_nothing(
    start_gateway: StartGateway, slow_upstream: FakeUpstream, redis: Redis, how: str
) -> None:
    limit = 400 * COSTS + COSTS - 1
    gateways = await start_two(start_gateway, slow_upstream, redis, mode="divide", limit=limit)
    load = Load(gateways)
    load.start()
    await load.under_way()
    await lose(redis, how)
    lost = load.phase()
    assert lost[(200, "divide")] > 0
    assert degraded(gateways, "divide") >= lost[(200, "divide")]
    await bring_back(redis, how)
    await until_spent(load)
    await load.stop()
    used = await accounts(gateways, slow_upstream)
    # A replica shares what it knew to be left: what the other admitted since it last heard, it cannot know.
    assert limit - 2 * COSTS < used <= limit + CALLERS * COSTS // 2


@pytest.mark.parametrize("how", DIES)
async def test_allow_admits_everything_and_counts_it_afterwards(
    start_gateway: StartGateway, slow_upstream: FakeUpstream, redis: Redis, how: str
) -> None:
    limit = 200 * COSTS
    gateways = await start_two(start_gateway, slow_upstream, redis, mode="allow", limit=limit)
    load = Load(gateways)
    load.start()
    await load.under_way()
    await lose(redis, how)
    lost = load.phase()
    assert set(lost) <= {(200, ""), (200, "allow")}
    assert degraded(gateways, "allow") >= lost[(200, "allow")] > 0
    await bring_back(redis, how)
    await until_spent(load)
    await load.stop()
    assert await accounts(gateways, slow_upstream) > limit


async def test_divide_shares_among_the_workers_of_each_replica(
    start_gateway: StartGateway, upstream: FakeUpstream, redis: Redis
) -> None:
    """Each worker process decides alone while the store is lost."""
    upstream.default = plain(chat(prompt_tokens=9, completion_tokens=11))
    gateways = await start_two(start_gateway, upstream, redis, mode="divide", limit=80 * COSTS, workers=4)
    await redis.kill()
    statuses = Counter([(await gateways[0].post(PATH, ASK))[0].status for _ in range(20)])
    assert statuses == {200: 10, 429: 10}
