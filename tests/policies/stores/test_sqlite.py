"""What is SQLite's own: failing files, locks, schema versions, and one transaction for many requests."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from policies.ledger import LedgerEntry
from policies.model import StoreLost
from policies.stores.base import Counter, HeldLine, State
from policies.stores.sqlite import SqliteStore
from tests.policies.stores.test_contract import DAY, NOW, entry, granted, order, rigid


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        yield connection


async def locked(path: Path, connection: sqlite3.Connection) -> None:
    await asyncio.to_thread(connection.execute, "BEGIN IMMEDIATE")


async def test_store_is_lost_when_the_file_cannot_be_opened(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "no" / "such" / "directory.db")
    with pytest.raises(StoreLost, match=r"directory\.db.*unable to open"):
        await store.ping()
    with pytest.raises(StoreLost):
        await store.close()


async def test_store_is_lost_when_the_file_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    await asyncio.to_thread(path.write_text, "this is not a database, and long enough to be told apart from one" * 20)
    store = SqliteStore(path)
    with pytest.raises(StoreLost, match="not a database"):
        await store.ping()
    with pytest.raises(StoreLost):
        await store.close()


async def test_store_is_lost_when_another_version_wrote_the_file(tmp_path: Path) -> None:
    path = tmp_path / "budgets.db"

    def write() -> None:
        with connected(path) as connection:
            connection.execute("PRAGMA user_version = 99")

    await asyncio.to_thread(write)
    store = SqliteStore(path)
    with pytest.raises(StoreLost, match="schema 99"):
        await store.ping()
    with pytest.raises(StoreLost):
        await store.close()


async def test_store_recovers_and_writes_every_ledger_line_when_a_lock_is_gone(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "budgets.db", busy_timeout_s=0.02)
    await granted(store, order(rigid(DAY, 10, 100)))
    connection = await asyncio.to_thread(
        lambda: sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)
    )
    await locked(store.path, connection)
    store.record(entry("q1"))
    with pytest.raises(StoreLost, match="locked"):
        await store.reserve(order(rigid(DAY, 10, 100), hold_id="r2"), now=NOW)
    await asyncio.to_thread(connection.execute, "ROLLBACK")
    await asyncio.to_thread(connection.close)
    assert await store.read([DAY], now=NOW) == (State(0, 10),)
    assert [line.request_id async for line in store.entries()] == ["q1"]
    await store.close()


async def test_changes_of_another_process_are_seen_at_once(tmp_path: Path) -> None:
    one, two = SqliteStore(tmp_path / "budgets.db"), SqliteStore(tmp_path / "budgets.db")
    for number in range(10):
        await granted([one, two][number % 2], order(rigid(DAY, 10, 100), hold_id=f"r{number}"))
    for store in (one, two):
        assert await store.read([DAY], now=NOW) == (State(0, 100),)
    assert (await two.settle("r0", (10,), read=[DAY], now=NOW)).states == (State(10, 90),)
    assert (await one.settle("r0", (10,), read=[DAY], now=NOW)).states == (State(10, 90),)
    await one.close()
    await two.close()


async def test_what_one_operation_cannot_stomach_leaves_the_others_alone(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "budgets.db")
    await store.ping()
    huge = [HeldLine("s", 1, 2**70, 0.0)]
    good = store.reserve(order(rigid(DAY, 10, 100)), now=NOW)
    bad = store.charge(huge, batch="b", now=NOW)
    also_good = store.reserve(order(rigid(DAY, 10, 100), hold_id="r2"), now=NOW)
    outcomes = await asyncio.gather(good, bad, also_good, return_exceptions=True)
    assert isinstance(outcomes[1], OverflowError)
    assert await store.read([DAY], now=NOW) == (State(0, 20),)
    await store.close()


async def test_close_writes_what_is_waiting(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "budgets.db")
    for number in range(700):
        store.record(entry(f"q{number}"))
    await store.close()
    await store.close()
    again = SqliteStore(tmp_path / "budgets.db")
    assert len([line async for line in again.entries()]) == 700
    await again.close()
    with pytest.raises(StoreLost, match="closed"):
        store.record(entry())


async def test_ledger_is_read_page_by_page_without_gap(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "budgets.db")
    for number in range(2500):
        store.record(entry(f"q{number}", at=NOW + number // 900))
    found = [line.request_id async for line in store.entries()]
    assert sorted(found) == sorted(f"q{number}" for number in range(2500))
    await store.close()


async def test_hostile_figures_in_a_ledger_line_do_not_fail_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "budgets.db")
    store.record(LedgerEntry("q", NOW, "k", "m\U0001f600", "u", "ok", input_tokens=10**40, choices=10**30))
    (line,) = [line async for line in store.entries()]
    assert line.input_tokens == 2**63 - 1
    await store.close()


async def test_sliding_slots_are_read_from_the_file_after_a_restart(tmp_path: Path) -> None:
    def minute(second: int) -> Counter:
        return Counter("s", second, second - 60, 1, 1e9)

    for second in (0, 20, 40):
        store = SqliteStore(tmp_path / "budgets.db")
        await granted(store, order(rigid(minute(second), 10, 100), hold_id=f"r{second}"))
        assert await store.read([minute(second)], now=NOW) == (State(0, 10 * (second // 20 + 1)),)
        await store.close()
