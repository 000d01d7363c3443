"""One overspend run from start to verdict."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from benchmarks.overspend.cases import Limits, Scale, budgets, deal
from benchmarks.overspend.fleet import ROOT, Gateway, Process, accepts, free_port, gateway_config
from benchmarks.overspend.load import Crowd
from benchmarks.overspend.redis_trail import RedisTrail
from benchmarks.overspend.sqlite_trail import SqliteTrail
from benchmarks.overspend.trail import Auditor, Event
from benchmarks.overspend.verdict import Verdict, judge
from policies.stores import open_store


class Trail(Protocol):
    """Where a store's history is written down; `url` is the store's."""

    url: str

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def events(self) -> Any: ...


Say = Callable[[str], None]


def trail_for(kind: str, folder: Path) -> Trail:
    """The trail of a store: ``sqlite`` or ``redis``."""
    return SqliteTrail(folder) if kind == "sqlite" else RedisTrail(folder)


async def overspend(kind: str, scale: Scale, *, folder: Path | None = None, say: Say = lambda _: None) -> Verdict:
    """Run once against a store and judge. A `folder` given is kept, with the processes' logs."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="overspend-") as path:
            return await overspend(kind, scale, folder=Path(path), say=say)
    trail = trail_for(kind, folder)
    await trail.start()
    upstream_port = free_port()
    upstream = Process(
        [sys.executable, "-m", "benchmarks.overspend.upstream", str(upstream_port)], folder / "upstream.log"
    )
    models_dir = os.environ.get("MODELS_DIR", str(ROOT / "models"))
    gateways = [
        Gateway(
            number,
            folder,
            gateway_config(
                scale,
                store_url=trail.url,
                upstream_url=f"http://127.0.0.1:{upstream_port}",
                drain=number % 2 == 1,
                models_dir=models_dir,
            ),
        )
        for number in range(scale.gateways)
    ]
    processes: list[Process] = [upstream, *gateways]
    timeout = aiohttp.ClientTimeout(total=None)
    try:
        for process in processes:
            process.start()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as client:
            await accepts(upstream_port)
            await asyncio.gather(*(gateway.ready(client) for gateway in gateways))
            say(f"{scale.gateways} x {scale.workers} processes on {trail.url}")
            say(f"{scale.callers} callers for {scale.seconds:g} s")
            crowd = Crowd(client, gateways, deal(scale))
            killing = asyncio.create_task(_kill_now_and_then(gateways, client, scale, say))
            await crowd.run(scale)
            killing.cancel()
            kills = await killing
            say("load is over; waiting for the sweep")
            swept_s = await _holds_gone(trail.url, within_s=2 * scale.hold_timeout_s + 10)
            async with client.get(f"http://127.0.0.1:{upstream_port}/journal") as answer:
                journal = await answer.json()
        for gateway in gateways:
            gateway.send(signal.SIGTERM)
        statuses = [await gateway.gone() for gateway in gateways]
        verdict = await _judged(trail, crowd, scale, journal)
    finally:
        for process in processes:
            if process.child is not None and process.child.poll() is None:
                process.child.kill()
                process.child.wait()
        await trail.stop()
    verdict.violations += [f"a gateway ended with status {status}" for status in statuses if status]
    verdict.figures = {
        "store": kind,
        "streams at once": crowd.most_streaming,
        "kill -9": kills,
        "holds gone after (s)": round(swept_s, 1),
        **verdict.figures,
    }
    return verdict


async def _judged(trail: Trail, crowd: Crowd, scale: Scale, journal: Sequence[dict[str, Any]]) -> Verdict:
    store = open_store(trail.url)
    try:
        entries = [entry async for entry in store.entries()]
        counters = await store.counters()
        holds = await store.holds()
    finally:
        await store.close()
    events: list[Event] = await asyncio.to_thread(lambda: list(trail.events()))
    audit = Auditor(Limits.of(budgets(scale))).follow(events)
    return judge(
        crowd.outcomes, audit=audit, entries=entries, counters=counters, holds_left=len(holds), journal=journal
    )


async def _kill_now_and_then(gateways: Sequence[Gateway], client: aiohttp.ClientSession, scale: Scale, say: Say) -> int:
    """``kill -9`` a gateway every few seconds and start it again; returns how many died when cancelled."""
    luck, kills = random.Random(scale.seed), 0
    rising: set[asyncio.Task[None]] = set()
    try:
        while True:
            await asyncio.sleep(scale.kill_every_s)
            up = [gateway for gateway in gateways if gateway.up]
            if len(up) < max(len(gateways) - 1, 1):
                continue
            kills += 1
            task = asyncio.create_task(luck.choice(up).kill_one(client, luck))
            rising.add(task)
            task.add_done_callback(rising.discard)
    except asyncio.CancelledError:
        await asyncio.gather(*rising)
        say(f"killed {kills} times")
        return kills


async def _holds_gone(url: str, *, within_s: float) -> float:
    """Wait for the sweep; returns how long it took."""
    started_s = time.monotonic()
    store = open_store(url)
    try:
        while time.monotonic() < started_s + within_s:
            if not await store.holds():
                break
            await asyncio.sleep(0.1)
    finally:
        await store.close()
    return time.monotonic() - started_s


def scaled(scale: Scale, **changes: Any) -> Scale:
    """A scale with the changes that are not None."""
    return replace(scale, **{name: value for name, value in changes.items() if value is not None})
