"""What operators changed and what the ledger keeps, in every store."""

from __future__ import annotations

import asyncio

from policies.ledger import LedgerEntry
from policies.stores import open_store
from policies.stores.base import BudgetStore, Note
from tests.policies.conftest import NOON


def line(number: int, *, at: float = NOON) -> LedgerEntry:
    return LedgerEntry(f"q{number}", at + number, "alice", "gpt-4o", "openai", "ok", input_tokens=5, source="reported")


async def test_notes_come_in_the_order_they_were_written(store: BudgetStore) -> None:
    assert await store.notes() == []
    assert await store.write_note("key", "alice", b'{"a":"\xc3\xa9 |x"}', replacing=0) == 1
    assert await store.write_note("key", "bob", b"{}", replacing=0) == 2
    assert await store.write_note("key", "alice", b"[]", replacing=1) == 3
    assert await store.notes() == [Note("key", "bob", 2, b"{}"), Note("key", "alice", 3, b"[]")]
    assert await store.notes(after=2) == [Note("key", "alice", 3, b"[]")]
    assert await store.notes(after=3) == []


async def test_a_note_is_not_written_over_one_that_was_not_seen(store: BudgetStore) -> None:
    await store.write_note("key", "alice", b"1", replacing=0)
    for unseen in (0, 2, 99):
        assert await store.write_note("key", "alice", b"2", replacing=unseen) is None
    assert await store.write_note("other", "alice", b"2", replacing=0) == 2
    assert (await store.notes())[0].body == b"1"


async def test_one_of_many_writers_of_a_note_wins(store: BudgetStore) -> None:
    outcomes = await asyncio.gather(
        *(store.write_note("key", "alice", str(number).encode(), replacing=0) for number in range(20))
    )
    assert sorted(outcome for outcome in outcomes if outcome is not None) == [1]
    assert len(await store.notes()) == 1


async def test_notes_survive_their_writer(kept_url: str) -> None:
    first = open_store(kept_url)
    await first.write_note("key", "alice", b"1", replacing=0)
    await first.close()
    second = open_store(kept_url)
    assert await second.notes() == [Note("key", "alice", 1, b"1")]
    assert await second.write_note("key", "bob", b"2", replacing=0) == 2
    await second.close()


async def test_the_latest_lines_come_oldest_first(store: BudgetStore) -> None:
    for number in range(30):
        store.record(line(number))
    await store.ping()
    assert [each.request_id for each in await store.latest(limit=3)] == ["q27", "q28", "q29"]
    assert len(await store.latest(limit=100)) == 30


async def test_old_lines_are_pruned_however_many(store: BudgetStore) -> None:
    for number in range(2_300):
        store.record(line(number))
    await store.prune(now=NOON + 2_300, ledger_before=NOON + 2_250)
    assert [each.request_id async for each in store.entries()] == [f"q{number}" for number in range(2_250, 2_300)]
    await store.prune(now=NOON + 9_000, ledger_before=None)
    assert len(await store.latest(limit=100)) == 50


async def test_a_store_in_memory_keeps_so_many_lines(store_url: str) -> None:
    if store_url.startswith("sqlite"):
        return  # a file grows until its lines are old
    store = open_store(store_url, ledger_lines=300)
    for number in range(1_000):
        store.record(line(number))
    await store.ping()
    kept = await store.latest(limit=1_000)
    assert 300 <= len(kept) <= 400  # Redis drops whole blocks of a hundred
    assert kept[-1].request_id == "q999"
    await store.close()


async def test_the_latest_lines_are_all_there_when_they_are_many(store: BudgetStore) -> None:
    for number in range(1_203):
        store.record(line(number))
    assert [each.request_id for each in await store.latest(limit=1_100)] == [f"q{n}" for n in range(103, 1_203)]


async def test_the_ledger_keeps_why_a_request_was_refused(store: BudgetStore) -> None:
    refused = LedgerEntry(
        "q", NOON, "alice", "gpt-4o", "", "refused",
        refused_by="plan", refused_for="window_full", refused_limit="tokens per minute",
    )  # fmt: skip
    store.record(refused)
    store.record(line(1))
    assert await store.latest(limit=2) == [refused, line(1)]
