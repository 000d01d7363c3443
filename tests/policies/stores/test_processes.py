"""Several processes on one store, some of them killed: nobody overspends, and nothing settled is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from policies.engine import BudgetEngine
from policies.stores import open_store
from tests.policies.stores import hammer

SECONDS = float(os.environ.get("TOLLGATE_HAMMER_SECONDS", "1.5"))
ROOT = Path(__file__).parent.parent.parent.parent


async def started(url: str, owner: str, seed: int, seconds: float = SECONDS) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.policies.stores.hammer", url, owner, str(seed), str(seconds),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def test_processes_on_one_store_never_overspend_though_some_are_killed(kept_url: str) -> None:
    steady = [await started(kept_url, f"steady{number}", number) for number in range(2)]
    store = open_store(kept_url, server_time=False)
    killed = 0
    for number in range(2):
        owner = f"victim{number}"
        victim = await started(kept_url, owner, 10 + number, 60.0)
        while not any(hold.owner == owner for hold in await store.holds()):
            await asyncio.sleep(0.02)
        victim.send_signal(signal.SIGKILL)
        await victim.communicate()
        killed += victim.returncode == -signal.SIGKILL
    reports = [json.loads((await process.communicate())[0]) for process in steady]

    assert killed == 2
    assert [report["violations"] for report in reports] == [0, 0]
    assert all(report["admitted"] > 50 and report["refused"] > 0 for report in reports), reports

    sweeper = BudgetEngine(hammer.POLICY, store, owner="sweeper", hold_timeout_s=60.0)
    abandoned = await sweeper.sweep(now=hammer.NOW + 60)
    assert await store.holds() == []
    lines = [line async for line in store.entries()]
    assert sum(line.outcome == "abandoned" for line in lines) == len(abandoned)
    by_key = {subject.key_id: 0 for subject in hammer.SUBJECTS}
    for line in lines:
        by_key[line.key_id] += line.input_tokens + line.output_tokens
    for subject in hammer.SUBJECTS:
        key_tokens, concurrent, all_tokens, requests = await sweeper.status(subject, now=hammer.NOW)
        assert key_tokens.used == by_key[subject.key_id]
        assert (key_tokens.held, concurrent.held, all_tokens.held) == (0, 0, 0)
        assert all_tokens.used == sum(by_key.values())
        assert requests.used == len(lines)
    await store.close()
