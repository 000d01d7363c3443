"""What is asked of the ledger: who used how much, and how far our counts are from the providers'."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from policies.ledger import DriftRow, LedgerEntry, UsageRow, drift, usage
from policies.windows import time_zone
from tests.policies.conftest import NOON

KOLKATA = time_zone("Asia/Kolkata")


async def lines(*entries: LedgerEntry) -> AsyncIterator[LedgerEntry]:
    for entry in entries:
        yield entry


def line(key: str = "alice", **fields: object) -> LedgerEntry:
    known: dict[str, object] = {"request_id": "q", "at": NOON, "model": "gpt-4o", "upstream": "openai", "outcome": "ok"}
    return LedgerEntry(key_id=key, **{**known, **fields})  # type: ignore[arg-type]


async def test_usage_sums_by_key_with_the_most_tokens_first() -> None:
    rows = await usage(
        lines(
            line(input_tokens=10, output_tokens=5, cached_tokens=4, reasoning_tokens=2),
            line("bob", input_tokens=100, outcome="abandoned"),
            line(input_tokens=1, outcome="cancelled"),
            line("bob", outcome="refused"),
        )
    )
    assert rows == [UsageRow(("bob",), 2, 1, 1, 100, 0, 0, 0), UsageRow(("alice",), 2, 0, 0, 11, 5, 4, 2)]
    assert rows[1].tokens == 16


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        (("model", "key"), {("gpt-4o", "alice"), ("o3", "alice")}),
        (("team",), {("search",), ("",)}),
        (("outcome", "upstream"), {("ok", "openai"), ("ok", "azure")}),
        (("day",), {("2026-03-10",), ("2026-03-11",)}),
        (("month",), {("2026-03",)}),
        (("hour",), {("2026-03-10 17:00",), ("2026-03-11 01:00",)}),
        ((), {()}),
    ],
)
async def test_usage_groups_by_what_is_asked(by: tuple[str, ...], groups: set[tuple[str, ...]]) -> None:
    entries = [line(tags={"team": "search"}), line(model="o3", upstream="azure", at=NOON + 8 * 3600)]
    rows = await usage(lines(*entries), by=by, zone=KOLKATA)
    assert {row.group for row in rows} == groups


async def test_drift_compares_with_what_providers_reported_and_nothing_else() -> None:
    def counted(ours: int, theirs: int, source: str = "reported") -> LedgerEntry:
        return line(counted_tokens=ours, input_tokens=theirs, source=source, accuracy="exact")

    rows = await drift(lines(counted(100, 100), counted(90, 100), counted(5, 50, "counted"), counted(0, 50)))
    assert rows == [DriftRow("gpt-4o", "exact", 2, 1, 0.05, 0, 10)]


def test_output_of_one_answer_is_rounded_up() -> None:
    assert line(output_tokens=7, choices=2).output_per_answer == 4
    assert line(output_tokens=7, choices=0).output_per_answer == 7
