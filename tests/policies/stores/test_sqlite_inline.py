"""What the event loop's own thread writes, and what it leaves to others: locks, crowds, the disk."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from policies.model import StoreLost
from policies.stores import sqlite_checkpoints
from policies.stores.base import HeldLine, State
from policies.stores.sqlite import SqliteStore
from policies.stores.sqlite_writer import CROWD
from tests.policies.stores.test_contract import DAY, NOW, entry, granted, order, rigid


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "budgets.db")
    await opened.ping()
    await asyncio.sleep(0)  # the turn in which it was opened is over
    yield opened
    await opened.close()


def share(store: SqliteStore) -> None:
    """As if another process had just been met on the file."""
    assert store._writer._file is not None
    store._writer._file.others = True


def logs_before(path: Path) -> int:
    """How many times the log was begun anew: its header counts."""
    with Path(f"{path}-wal").open("rb") as log:
        return int.from_bytes(log.read(16)[12:])


def ledger_lines(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM ledger").fetchone()[0])
    finally:
        connection.close()


async def test_lone_operation_is_over_when_its_call_returns(store: SqliteStore) -> None:
    reserved = asyncio.ensure_future(store.reserve(order(rigid(DAY, 10, 100)), now=NOW))
    assert reserved.done()
    await asyncio.sleep(0)
    settled = asyncio.ensure_future(store.settle("r1", (7,), read=[DAY], now=NOW, entry=entry()))
    assert settled.result().states == (State(7, 0),)


async def test_operations_of_one_turn_share_a_transaction_once_there_is_a_crowd(store: SqliteStore) -> None:
    """Where the file is shared; a process of its own keeps its transaction open instead."""
    share(store)
    for turn in range(2):
        asked = [
            asyncio.ensure_future(store.reserve(order(rigid(DAY, 1, 1000), hold_id=f"{turn}-{number}"), now=NOW))
            for number in range(CROWD)
        ]
        assert [each.done() for each in asked] == [turn == 0, *[False] * (CROWD - 1)]
        await asyncio.gather(*asked)
    assert await store.read([DAY], now=NOW) == (State(0, 2 * CROWD),)


async def test_operation_waits_on_the_thread_while_another_process_writes(store: SqliteStore) -> None:
    other = await asyncio.to_thread(lambda: sqlite3.connect(store.path, isolation_level=None, check_same_thread=False))
    await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
    reserved = asyncio.ensure_future(store.reserve(order(rigid(DAY, 10, 100)), now=NOW))
    settled = asyncio.ensure_future(store.settle("r1", (7,), read=[DAY], now=NOW))
    await asyncio.sleep(0.01)
    assert not reserved.done()
    await asyncio.to_thread(other.execute, "ROLLBACK")
    await asyncio.to_thread(other.close)
    assert (await settled).states == (State(7, 0),)
    assert reserved.done()


async def test_operation_does_not_overtake_those_handed_over(store: SqliteStore) -> None:
    charged = asyncio.ensure_future(store.charge([HeldLine(DAY.series, DAY.slot, 95, 0.0)], batch="b", now=NOW))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # it is on its way to the thread
    denied = await store.reserve(order(rigid(DAY, 10, 100)), now=NOW)
    assert denied.states == (State(95, 0),)
    await charged


async def test_what_fails_here_is_undone_and_left_to_the_thread(store: SqliteStore) -> None:
    await granted(store, order(rigid(DAY, 10, 100)))
    with pytest.raises(OverflowError):
        await store.settle("r1", (2**70,), read=[DAY], now=NOW, entry=entry())
    assert await store.read([DAY], now=NOW) == (State(0, 10),)
    assert (await store.settle("r1", (7,), read=[DAY], now=NOW)).states == (State(7, 0),)
    assert [line async for line in store.entries()] == []


async def test_log_is_begun_anew_by_a_thread_while_requests_write_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_checkpoints, "ROWS_APART", 200)
    monkeypatch.setattr(sqlite_checkpoints, "PAGES_MOST", 300)
    store = SqliteStore(tmp_path / "budgets.db")
    number = 0
    while not number or await asyncio.to_thread(logs_before, store.path) < 3:
        for _ in range(50):
            number += 1
            await granted(store, order(rigid(DAY, 1, 10**9), hold_id=f"r{number}"))
            await store.settle(f"r{number}", (1,), read=[], now=NOW, entry=entry())
    assert await store.read([DAY], now=NOW) == (State(number, 0),)
    await store.close()
    assert await asyncio.to_thread(ledger_lines, store.path) == number


async def test_log_of_an_idle_gateway_is_begun_anew_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or its next request would wait for the disk."""
    monkeypatch.setattr(sqlite_checkpoints, "ROWS_APART", 1)
    store = SqliteStore(tmp_path / "budgets.db")
    await granted(store, order(rigid(DAY, 1, 10)))
    while await asyncio.to_thread(logs_before, store.path) < 1:
        await asyncio.sleep(0.005)
    await store.close()


async def test_ping_tells_that_the_log_cannot_be_moved(store: SqliteStore) -> None:
    store._writer.checkpoints.error = sqlite3.OperationalError("disk I/O error")
    with pytest.raises(StoreLost, match=r"budgets\.db' failed: disk I/O error"):
        await store.ping()


async def test_counters_in_great_number_are_forgotten_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policies.stores.sqlite_file.CELLS_KEPT", 500)
    store = SqliteStore(tmp_path / "budgets.db")
    for number in range(1_500):
        await granted(store, order(rigid(DAY._replace(series=f"s{number}"), 1, 10), hold_id=f"r{number}"))
    again = [DAY._replace(series=f"s{number}") for number in range(1_500)]
    assert set(await store.read(again, now=NOW)) == {State(0, 1)}
    await store.close()
