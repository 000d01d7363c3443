"""A process that hammers a shared store: run as ``python -m tests.policies.stores.hammer URL OWNER SEED SECONDS``.

Reserves, settles and releases until its time is over, or until it is killed.
Prints its sums as JSON, with the admissions that left a budget above its limit.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

from policies.engine import BudgetEngine
from policies.ledger import LedgerEntry
from policies.model import Budget, Estimate, Limit, Subject
from policies.policy import Policy
from policies.stores import open_store
from policies.usage import Usage

NOW = 1_773_144_030.0
"""Every process counts in one window, so that the sums can be compared."""

POLICY = Policy(
    budgets=(
        Budget("key", (Limit("tokens", 6_000, "day"), Limit("concurrent", 8, "total")), each="key"),
        Budget("all", (Limit("tokens", 20_000, "day"), Limit("requests", 100_000, "day"))),
    )
)
SUBJECTS = [Subject(f"k{number}", {}, "m", "u") for number in range(4)]
CALLERS = 12


async def hammer(url: str, owner: str, seed: int, seconds: float) -> dict[str, int]:
    store = open_store(url, server_time=False)
    budgets = BudgetEngine(POLICY, store, owner=owner, hold_timeout_s=60.0)
    sums = {"admitted": 0, "refused": 0, "violations": 0}
    ends_at = time.perf_counter() + seconds

    async def call(chance: random.Random) -> None:
        while time.perf_counter() < ends_at:
            subject = chance.choice(SUBJECTS)
            estimate = Estimate(chance.randint(1, 120), chance.randint(0, 200))
            decision = await budgets.reserve(subject, estimate, now=NOW)
            if decision.reservation is None:
                sums["refused"] += 1
                await asyncio.sleep(0.001)
                continue
            sums["admitted"] += 1
            sums["violations"] += any(status.used + status.held > status.limit for status in decision.statuses)
            if chance.random() < 0.5:
                await asyncio.sleep(chance.random() * 0.004)
            # Never more than was held, or debt would make "used + held <= limit" say nothing about admission.
            output = chance.randint(0, min(3, estimate.output_cap or 0))
            usage = Usage(min(3, estimate.input_tokens), output)
            entry = LedgerEntry(
                decision.reservation.id, NOW, subject.key_id, "m", "u", "ok",
                input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, source="reported",
            )  # fmt: skip
            if chance.random() < 0.2:
                await budgets.release(decision.reservation, now=NOW)
            else:
                await budgets.settle(decision.reservation, usage, now=NOW, entry=entry)

    await asyncio.gather(*(call(random.Random(seed * 1000 + number)) for number in range(CALLERS)))
    await budgets.close(now=NOW)
    return sums


if __name__ == "__main__":
    print(json.dumps(asyncio.run(hammer(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))))
