"""Reloads under load at a size for CI: real workers, real files. ``python -m benchmarks.reloads`` is the large one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.reloads.drill import Scale, drill
from benchmarks.reloads.file import WAYS


@pytest.fixture(autouse=True)
def _never_block_the_event_loop() -> None:
    """The loop here only drives another process: starting it and writing its file may block."""


@pytest.mark.timeout(300)  # most of it on a busy machine is the tokenizer's loading
async def test_reloads_under_load_fail_nothing_lose_nothing_and_reach_all_workers(tmp_path: Path) -> None:
    scale = Scale(callers=6, reloads=len(WAYS) + 2, bad=50)
    findings = await drill(scale, tmp_path)
    assert findings.violations == []
    assert findings.requests > findings.streams > 20
    assert findings.charged > 500
    assert findings.refused_files == 45  # by /admin/reload; every tenth is left to SIGHUP
    known_after_s = sorted(findings.known_after_s)
    assert len(known_after_s) == scale.reloads + 1
    assert known_after_s[len(known_after_s) // 2] < 1.0
    assert known_after_s[-1] < 5.0  # other tests share the machine; alone it takes 0.7 s
