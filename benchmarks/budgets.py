"""What a reserve and its settle cost: CPU milliseconds of this process, by store, budgets matched and keys.

    python -m benchmarks.budgets [--requests N] [--concurrency N]

As many requests as `--concurrency` says are under way at once, the way a busy gateway asks. Redis is one of our own
on a loopback port; only the client's CPU time is counted, and the server's is printed beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import resource
import secrets
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks.overspend.fleet import Process, accepts, free_port
from policies.engine import BudgetEngine
from policies.ledger import LedgerEntry
from policies.model import Budget, Estimate, Limit, Match, Reservation, Subject
from policies.policy import Policy
from policies.stores import open_store
from policies.usage import Usage

UNITS = ("tokens", "requests", "input_tokens", "output_tokens")
ESTIMATE = Estimate(100, 50)
USAGE = Usage(100, 40, source="reported")


def policy(budgets: int, keys: int) -> Policy:
    """`budgets` that all match, one limit each, a counter for each key; and one for every single key."""
    matching = [
        Budget(f"b{number}", (Limit(UNITS[number % 4], 10**12, "day"),), each="key") for number in range(budgets)
    ]
    others = [
        Budget(f"only-{number}", (Limit("tokens", 10**12, "day"),), match=Match(key=(f"k{number}",)))
        for number in range(keys if keys > 1 else 0)
    ]
    return Policy(budgets=(*matching, *others))


def entry_of(reservation: Reservation, now: float) -> LedgerEntry:
    """The line that a gateway would write."""
    subject = reservation.subject
    return LedgerEntry(
        request_id=reservation.id,
        at=now,
        key_id=subject.key_id,
        model=subject.model,
        upstream=subject.upstream,
        outcome="ok",
        input_tokens=USAGE.input_tokens,
        output_tokens=USAGE.output_tokens,
        source="reported",
    )


async def cost_ms(url: str, *, budgets: int, keys: int, requests: int, concurrency: int) -> float:
    """CPU milliseconds of one reserve and settle, all threads of this process together."""
    engine = BudgetEngine(policy(budgets, keys), open_store(url), owner=secrets.token_hex(4))
    subjects = itertools.cycle([Subject(f"k{number}", {}, "gpt-4o", "openai") for number in range(keys)])
    started = time.time()
    left = iter(range(requests))

    async def ask() -> None:
        for _ in left:
            decision = await engine.reserve(next(subjects), ESTIMATE, now=started)
            assert decision.reservation is not None
            reservation = decision.reservation
            await engine.settle(reservation, USAGE, now=started, entry=entry_of(reservation, started))

    # Every key is met once before it counts: what is kept for it is made then.
    warm, left = left, iter(range(max(keys, requests // 10)))
    await asyncio.gather(*(ask() for _ in range(concurrency)))
    left = warm
    before_s = time.process_time()
    await asyncio.gather(*(ask() for _ in range(concurrency)))
    spent_s = time.process_time() - before_s
    await engine.close(now=started)
    return spent_s / requests * 1000


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _table(requests: int, concurrency: int, repeats: int) -> None:
    shapes = [(1, 1), (8, 1), (1, 10_000)]
    print(f"CPU ms of reserve + settle, {concurrency} at once, median of {repeats} x {requests}")
    print(f"{'store':>8} {'1 budget':>10} {'8 budgets':>10} {'8 : 1':>7} {'10,000 keys':>12} {'keys : 1':>9}")
    with tempfile.TemporaryDirectory(prefix="budgets-") as name:
        folder = Path(name)
        port = free_port()
        redis = Process(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", name],
            folder / "redis.log",
        )
        stores = ["memory", "sqlite"]
        if shutil.which("redis-server"):
            redis.start()
            await accepts(port)
            stores.append("redis")
        for store in stores:
            figures = []
            server_s = 0.0
            for budgets, keys in shapes:
                runs = []
                for _ in range(repeats):
                    fresh = secrets.token_hex(4)
                    url = {
                        "memory": "memory:",
                        "sqlite": f"sqlite:///{folder / fresh}.db",
                        "redis": f"redis://127.0.0.1:{port}/0?prefix={fresh}",
                    }[store]
                    before_s = _cpu_of(redis.child.pid) if redis.child is not None else 0.0
                    runs.append(
                        await cost_ms(url, budgets=budgets, keys=keys, requests=requests, concurrency=concurrency)
                    )
                    if redis.child is not None and (budgets, keys) == (1, 1):
                        server_s += _cpu_of(redis.child.pid) - before_s
                figures.append(statistics.median(runs))
            one, eight, many = figures
            print(f"{store:>8} {one:10.3f} {eight:10.3f} {eight / one:7.2f} {many:12.3f} {many / one:9.2f}", flush=True)
            if store == "redis":
                print(f"{'':>8} server: {server_s / (repeats * requests * 1.1) * 1000:.3f} ms for 1 budget")
        if redis.child is not None:
            await redis.kill()
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.budgets", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    uvloop.run(_table(options.requests, options.concurrency, options.repeats))


if __name__ == "__main__":
    main()
