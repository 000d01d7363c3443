"""What is answered inside a transaction that is still open: it survives kill -9, failing commits and torn writes, and
gives way to other processes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from policies.stores import sqlite_promises, sqlite_writer
from policies.stores.base import State
from policies.stores.sqlite import SqliteStore
from policies.stores.sqlite_file import SqliteFile
from tests.policies.stores.test_contract import DAY, NOW, TEAM, entry, granted, order, rigid

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture(autouse=True)
def _long_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_writer, "OPEN_S", 60.0)


@pytest.fixture
def short_transactions(_long_transactions: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_writer, "OPEN_S", 0.01)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "budgets.db")
    await opened.ping()
    yield opened
    with contextlib.suppress(Exception):
        await opened.close()


def committed(path: Path, what: str = "used FROM counters") -> list[Any]:
    """What somebody finds in the file who knows nothing of promises."""
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute(f"SELECT {what}")]


def file_of(store: SqliteStore) -> SqliteFile:
    assert store._writer._file is not None
    return store._writer._file


def abandon(store: SqliteStore) -> None:
    """Leave everything as a killed process does: its lock is gone, and nothing is committed."""
    file_of(store)._connection.close()


async def in_file(store: SqliteStore, what: str = "used FROM counters") -> list[Any]:
    return await asyncio.to_thread(committed, store.path, what)


async def test_answers_come_before_the_commit_and_are_seen_by_who_asks_the_store(store: SqliteStore) -> None:
    await granted(store, order(rigid(DAY, 60, 100)))
    settled = await store.settle("r1", (7,), read=[DAY], now=NOW, entry=entry())
    assert settled.states == (State(7, 0),)
    assert await in_file(store) == []
    assert [row.used for row in await store.counters()] == [7]
    assert await in_file(store) == [7]
    assert await in_file(store, "request_id FROM ledger") == ["q1"]


@pytest.mark.usefixtures("short_transactions")
async def test_transaction_ends_by_itself(store: SqliteStore) -> None:
    await granted(store, order(rigid(DAY, 60, 100)))
    while await in_file(store, "held FROM counters") != [60]:
        await asyncio.sleep(0.005)
    assert not file_of(store).in_transaction


async def test_what_a_killed_process_had_answered_is_done_by_the_next(store: SqliteStore) -> None:
    await granted(store, order(rigid(DAY, 60, 100), rigid(TEAM, 60, 100)))
    await granted(store, order(rigid(DAY, 20, 100), hold_id="r2", owner="dead"))
    await store.settle("r1", (7, 8), read=[], now=NOW, entry=entry(endpoint="m\U0001f600"))
    store.record(entry("q2"))
    assert await in_file(store) == []
    abandon(store)

    other = SqliteStore(store.path)
    assert await other.read([DAY, TEAM], now=NOW) == (State(7, 20), State(8, 0))
    (hold,) = await other.holds()
    assert (hold.id, hold.owner, hold.held_at, hold.memo) == ("r2", "dead", NOW, b'{"memo":1}')
    assert [line.amount for line in hold.lines] == [20]
    lines = [line async for line in other.entries()]
    assert [(line.request_id, line.endpoint) for line in lines] == [("q1", "m\U0001f600"), ("q2", "")]
    assert (await other.settle("r2", (1,), read=[DAY], now=NOW)).states == (State(8, 0),)
    await other.close()


async def test_a_hold_committed_before_is_ended_by_who_finds_its_end(store: SqliteStore) -> None:
    await granted(store, order(rigid(DAY, 60, 100)))
    await store.ping()
    await store.settle("r1", (7,), read=[], now=NOW, entry=entry())
    assert await in_file(store, "held FROM counters") == [60]
    abandon(store)
    other = SqliteStore(store.path)
    assert await other.holds() == []
    assert await other.read([DAY], now=NOW) == (State(7, 0),)
    await other.close()


async def test_promises_are_done_once_however_often_they_are_found(store: SqliteStore) -> None:
    await granted(store, order(rigid(DAY, 60, 100)))
    abandon(store)
    for _ in range(3):
        other = SqliteStore(store.path)
        assert await other.read([DAY], now=NOW) == (State(0, 60),)
        await granted(other, order(rigid(TEAM, 1, 100), hold_id="r2"))
        await other.settle("r2", None, read=[], now=NOW)
        await other.close()
    assert len(await in_file(store, "id FROM holds")) == 1


@pytest.mark.parametrize("error", [sqlite3.OperationalError("database or disk is full"), OverflowError("too large")])
async def test_failed_commit_loses_nothing(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    await granted(store, order(rigid(DAY, 60, 100)))
    await store.settle("r1", (7,), read=[], now=NOW, entry=entry())
    file = file_of(store)

    def failing() -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(file, "commit", failing)
        store._writer._end_transaction()
    assert await store.read([DAY], now=NOW) == (State(7, 0),)
    assert [line.request_id async for line in store.entries()] == ["q1"]


async def test_an_operation_that_fails_takes_none_of_the_answered_ones_with_it(store: SqliteStore) -> None:
    await granted(store, order(rigid(DAY, 60, 100)))
    await granted(store, order(rigid(DAY, 30, 100), hold_id="r2"))
    with pytest.raises(OverflowError):
        await store.settle("r2", (2**70,), read=[], now=NOW)
    assert await store.read([DAY], now=NOW) == (State(0, 90),)
    assert (await store.settle("r2", (5,), read=[DAY], now=NOW)).states == (State(5, 60),)


async def test_what_can_never_be_done_is_left_out_and_logged(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    await granted(store, order(rigid(DAY, 60, 100)))
    await store.ping()
    await granted(store, order(rigid(DAY, 1, 100)))  # the same id: its row cannot be written
    await granted(store, order(rigid(DAY, 5, 100), hold_id="r2"))
    with caplog.at_level(logging.ERROR):
        store._writer._end_transaction()
        assert await store.read([DAY], now=NOW) == (State(0, 65),)
    assert "UNIQUE constraint failed: holds.id" in caplog.text


async def test_a_torn_record_is_none(store: SqliteStore) -> None:
    """It was being written when the process was killed, and never answered."""
    await granted(store, order(rigid(DAY, 60, 100)))
    await granted(store, order(rigid(DAY, 30, 100), hold_id="r2"))
    end = file_of(store)._promises._end
    abandon(store)

    def tear() -> None:
        with store.path.with_name("budgets.db-promises").open("r+b") as file:
            file.seek(end - 1)
            file.write(b"x")

    await asyncio.to_thread(tear)
    other = SqliteStore(store.path)
    assert await other.read([DAY], now=NOW) == (State(0, 60),)
    await other.close()


async def test_without_room_for_another_promise_it_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_promises, "ROOM", 4096)
    store = SqliteStore(tmp_path / "budgets.db")
    await store.ping()
    for number in range(50):
        await granted(store, order(rigid(DAY, 1, 100), hold_id=f"r{number}"))
    (held,) = await in_file(store, "held FROM counters")
    assert 30 <= held < 50
    abandon(store)
    other = SqliteStore(store.path)
    assert await other.read([DAY], now=NOW) == (State(0, 50),)
    await other.close()


async def test_promises_of_a_file_that_was_deleted_are_not_taken_for_a_new_ones(store: SqliteStore) -> None:
    await granted(store, order(rigid(DAY, 60, 100)))
    abandon(store)
    for suffix in ("", "-wal", "-shm"):
        await asyncio.to_thread(Path(f"{store.path}{suffix}").unlink, missing_ok=True)
    other = SqliteStore(store.path)
    assert await other.read([DAY], now=NOW) == (State(0, 0),)
    await other.close()


@pytest.mark.usefixtures("short_transactions")
async def test_another_process_gets_its_turn_and_then_every_turn_is_committed(store: SqliteStore) -> None:
    await granted(store, order(rigid(DAY, 60, 100)))
    other = SqliteStore(store.path)
    assert await other.read([DAY], now=NOW) == (State(0, 60),)
    await granted(other, order(rigid(DAY, 20, 100), hold_id="r2"))
    await granted(store, order(rigid(DAY, 10, 100), hold_id="r3"))
    while file_of(store).in_transaction:
        await asyncio.sleep(0.001)
    await granted(store, order(rigid(DAY, 10, 100), hold_id="r4"))
    assert not file_of(store).in_transaction
    assert await other.read([DAY], now=NOW) == (State(0, 100),)
    await other.close()


def told(output: bytes) -> Iterator[tuple[str, str]]:
    for line in output.splitlines(keepends=True):
        if line.endswith(b"\n"):
            what, hold_id = line.decode().split()
            yield what, hold_id


async def test_nothing_answered_is_lost_when_a_lone_process_is_killed_again_and_again(tmp_path: Path) -> None:
    """Each process says what it was answered; whatever it said must be found, and nothing twice."""
    path = tmp_path / "budgets.db"
    reserved: set[str] = set()
    settled: set[str] = set()
    for life in range(6):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", LONER, str(path), str(life), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        first = await process.stdout.readexactly(4_000 + 700 * life)
        process.send_signal(signal.SIGKILL)
        rest, _ = await process.communicate()
        for what, hold_id in told(first + rest):
            (settled if what == "settled" else reserved).add(hold_id)
    store = SqliteStore(path)
    holds = {hold.id for hold in await store.holds()}
    lines = [line.request_id async for line in store.entries()]
    assert len(lines) == len(set(lines))
    assert settled <= set(lines)
    assert reserved - settled <= holds | set(lines)
    assert len(settled) > 100
    assert len(holds - reserved) <= 6, "one a life at most was made and not said"
    (state,) = await store.read([DAY], now=NOW)
    assert state == State(2 * len(lines), 10 * len(holds))
    await store.close()


LONER = """
import asyncio, os, sys
from pathlib import Path
from policies.stores.sqlite import SqliteStore
from tests.policies.stores.test_contract import DAY, NOW, entry, order, rigid

async def main(path, life):
    store = SqliteStore(Path(path))
    await store.ping()
    number = 0
    while True:
        number += 1
        hold_id = f"{life}-{number}"
        await store.reserve(order(rigid(DAY, 10, 10**12), hold_id=hold_id), now=NOW)
        os.write(1, f"reserved {hold_id}\\n".encode())
        if number % 5:
            await store.settle(hold_id, (2,), read=[], now=NOW, entry=entry(hold_id))
            os.write(1, f"settled {hold_id}\\n".encode())

asyncio.run(main(*sys.argv[1:]))
"""
