"""The overspend run at a size for CI: real processes, real stores, kills. ``make overspend`` is the large one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.overspend.cases import Scale
from benchmarks.overspend.run import overspend

SMALL = Scale(callers=120, seconds=7.0, kill_every_s=2.0, stream_s=(0.4, 2.5), size=60)
SHAPES = {"sqlite": replace(SMALL, gateways=1, workers=4), "redis": replace(SMALL, gateways=4, workers=1)}
"""Four processes: workers of one gateway, gateways of their own."""


@pytest.fixture(autouse=True)
def _never_block_the_event_loop() -> None:
    """The loop here only drives other processes: starting and reading them may block."""


@pytest.mark.parametrize("store", ["sqlite", "redis"])
async def test_nothing_is_overspent_when_gateways_die_under_load(store: str, tmp_path: Path) -> None:
    if store == "redis" and shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    verdict = await overspend(store, SHAPES[store], folder=tmp_path)
    assert verdict.violations == []
    figures = verdict.figures
    # The run has tried what it is there to try.
    assert figures["kill -9"] >= 1
    assert figures["admissions"] > 50
    assert figures["refusals"] > 10
    assert figures["abandoned"] > 0
    assert figures["settled by our own count"] > 0
    assert figures["debts (answers beyond their hold)"] > 0
    assert max(figures["fullest"].values()) > 0.95
