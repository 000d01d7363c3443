"""Budgets in one SQLite file, shared by the worker processes of one machine; the default store."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from policies.ledger import LedgerEntry
from policies.model import StoreLost
from policies.stores.base import Counter, Denied, Granted, HeldLine, Hold, Note, Order, Row, Settled, State
from policies.stores.ledger_rows import ledger_row
from policies.stores.sqlite_checkpoints import Checkpoints
from policies.stores.sqlite_file import PRUNED_AT_ONCE, SqliteFile, SqliteReader
from policies.stores.sqlite_operations import Operation, answer_all, resolve

BATCH_MOST = 512
"""Operations in one transaction: more would keep other processes waiting for the file."""

CROWD = 3
"""Operations in one turn of the event loop from which on the next turn's are waited for, to share a transaction."""

HERE_MOST = 32
"""Operations carried out on the event loop's own thread at once: together they take a millisecond or less."""

PAGE = 1_000

T = TypeVar("T")


class SqliteStore:
    """A `BudgetStore` in a file (WAL).

    A brief operation is carried out where it is asked for, if it can be at once: handing it to a thread and back takes
    many times as long. Everything else, and whatever meets another process's lock, is written by a thread of its own,
    all that is waiting in one transaction. The event loop never waits, for a lock or for the disk (`Checkpoints`).

    Survives ``kill -9`` at any moment. Open it after forking: a connection must not cross into another process.
    """

    name = "sqlite"

    def __init__(self, path: Path, *, busy_timeout_s: float = 5.0) -> None:
        self.path = path
        self._busy_timeout_s = busy_timeout_s
        self._waiting: list[Operation] = []
        self._in_turn = self._crowded = False
        self._met = 0
        self._handed = self._taken = self._done = 0
        self._writing = threading.Lock()
        self._checkpoints = Checkpoints(path, in_pause=self._pause_writing)
        self._queue: queue.SimpleQueue[list[Operation] | None] = queue.SimpleQueue()
        self._file: SqliteFile | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._lost: StoreLost | None = None

    def aligned(self, now: float) -> float:
        return now

    def reserve(self, order: Order, *, now: float) -> Awaitable[Granted | Denied]:
        return self._submit(lambda file: file.reserve(order, now), brief=True)

    def settle(
        self,
        hold_id: str,
        used: Sequence[int] | None,
        *,
        read: Sequence[Counter],
        now: float,
        entry: LedgerEntry | None = None,
    ) -> Awaitable[Settled]:
        row = None if entry is None else ledger_row(entry)
        return self._submit(lambda file: file.settle(hold_id, used, read, row), brief=True)

    def charge(self, lines: Sequence[HeldLine], *, batch: str, now: float) -> Awaitable[None]:
        return self._submit(lambda file: file.charge(lines, batch, now))

    async def read(self, counters: Sequence[Counter], *, now: float) -> tuple[State, ...]:
        return await self._submit(lambda file: file.read(counters))

    async def beat(self, owner: str, *, now: float) -> None:
        await self._submit(lambda file: file.beat(owner, now))

    async def leave(self, owner: str) -> None:
        await self._submit(lambda file: file.leave(owner))

    async def owners(self) -> dict[str, float]:
        return await self._ask(lambda reader: reader.owners())

    async def holds(self, *, hold_id: str | None = None) -> list[Hold]:
        return await self._ask(lambda reader: reader.holds(hold_id))

    async def counters(self, *, series_prefix: str = "") -> list[Row]:
        return await self._ask(lambda reader: reader.counters(series_prefix))

    async def reset(self, series_prefix: str) -> int:
        return await self._submit(lambda file: file.reset(series_prefix))

    def record(self, entry: LedgerEntry) -> None:
        row = ledger_row(entry)
        if self._closed:
            raise StoreLost(f"The budget store '{self.path}' is closed.")
        self._waiting.append(Operation(lambda file: file.record(row), None, brief=True))
        self._count()

    async def entries(
        self, *, since: float = 0.0, until: float | None = None, key_id: str | None = None, model: str | None = None
    ) -> AsyncIterator[LedgerEntry]:
        await self.ping()
        after = (since, -1)
        while True:
            page = await self._ask(
                lambda reader, after=after: reader.entries(after, until, key_id, model, PAGE)  # type: ignore[misc]
            )
            for row_id, entry in page:
                yield entry
                after = (entry.at, row_id)
            if len(page) < PAGE:
                return

    async def recent_outputs(self, key_id: str, model: str, *, limit: int) -> list[int]:
        return await self._ask(lambda reader: reader.recent_outputs(key_id, model, limit))

    async def latest(self, *, limit: int) -> list[LedgerEntry]:
        return await self._ask(lambda reader: reader.latest(limit))

    async def notes(self, *, after: int = 0) -> list[Note]:
        return await self._ask(lambda reader: reader.notes(after))

    async def write_note(self, kind: str, name: str, body: bytes, *, replacing: int) -> int | None:
        return await self._submit(lambda file: file.write_note(kind, name, body, replacing))

    async def prune(self, *, now: float, ledger_before: float | None) -> None:
        await self._submit(lambda file: file.prune(now))
        pruned = PRUNED_AT_ONCE
        while ledger_before is not None and pruned == PRUNED_AT_ONCE:
            pruned = await self._submit(lambda file: file.prune_ledger(ledger_before))

    async def ping(self) -> None:
        await self._submit(lambda file: file.ping())
        error = self._checkpoints.error
        if error is not None:
            raise self._failed(error)

    async def close(self) -> None:
        if self._closed:
            return
        self._hand_over()
        self._closed = True
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            await asyncio.to_thread(self._checkpoints.close)
            if self._lost is not None:
                raise self._lost

    def _submit(self, run: Callable[[SqliteFile], T], *, brief: bool = False) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_exception(StoreLost(f"The budget store '{self.path}' is closed."))
            return future
        operation = Operation(run, future, brief)
        if self._in_turn or self._crowded or not self._carried_out_here([operation]):
            self._waiting.append(operation)
        self._count()
        return future

    def _count(self) -> None:
        self._met += 1
        if not self._in_turn:
            # What else this turn of the event loop asks for goes into one transaction.
            self._in_turn = True
            asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._in_turn = False
        self._crowded, self._met = self._met >= CROWD, 0
        if self._waiting and self._carried_out_here(self._waiting):
            self._waiting = []
        self._hand_over()

    def _carried_out_here(self, operations: Sequence[Operation]) -> bool:
        """Carry out operations on the event loop's own thread, if nothing is in the way of doing so at once."""
        file = self._file
        if file is None or self._handed != self._done or len(operations) > HERE_MOST:
            return False
        if not all(operation.brief for operation in operations) or not self._writing.acquire(blocking=False):
            return False
        try:
            file.begin(wait=False)
            results = [operation.run(file) for operation in operations]
            rows = file.commit()
        except BaseException as error:  # another process's lock, or worse: the thread knows what to do about each
            with contextlib.suppress(sqlite3.Error):
                file.roll_back()
            if not isinstance(error, Exception):
                raise
            return False
        finally:
            self._writing.release()
        self._checkpoints.wrote(rows)
        resolve([(each.future, result) for each, result in zip(operations, results, strict=True) if each.future])
        return True

    def _hand_over(self) -> None:
        if self._waiting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tollgate-budgets", daemon=True)
                self._thread.start()
            self._handed += 1
            self._queue.put(self._waiting)
            self._waiting = []

    async def _ask(self, question: Callable[[SqliteReader], T]) -> T:
        if self._thread is None:
            await self.ping()

        def answered() -> T:
            with SqliteReader(self.path, busy_timeout_s=self._busy_timeout_s) as reader:
                return question(reader)

        try:
            return await asyncio.to_thread(answered)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> StoreLost:
        if isinstance(error, StoreLost):
            return error
        return StoreLost(f"The budget store '{self.path}' failed: {error}. Check the file, its disk and its lock.")

    def _work(self) -> None:
        """The thread: run batch after batch until the last one."""
        unwritten: list[Operation] = []
        last = False
        while not last:
            batch, last = self._next_batch()
            operations = unwritten + batch
            unwritten = []
            with self._writing:
                carried_out = [
                    self._carry_out(operations[start : start + BATCH_MOST])
                    for start in range(0, len(operations), BATCH_MOST)
                ]
            for answers in carried_out:
                unwritten += [each for each, answer in answers if each.future is None and isinstance(answer, StoreLost)]
            if not unwritten:
                # Before anybody is answered: who asks again at once is to find the way free.
                self._done = self._taken
            for answers in carried_out:
                answer_all(answers)
        with self._writing:
            file, self._file = self._file, None
            if file is not None:
                file.close()

    def _carry_out(self, operations: Sequence[Operation]) -> list[tuple[Operation, Any]]:
        """Run operations in one transaction; return each with its result, or with what it failed of.

        The file is opened when it is needed, and again after it failed.
        """
        try:
            if self._file is None:
                self._file = SqliteFile(self.path, busy_timeout_s=self._busy_timeout_s)
            file = self._file
            file.begin(wait=True)
            results = [operation.run(file) for operation in operations]
            rows = file.commit()
        except (sqlite3.Error, OSError, StoreLost) as error:
            self._drop_file()
            self._lost = self._failed(error)
            return [(operation, self._lost) for operation in operations]
        except Exception as error:  # what one operation cannot stomach must not cost the others their answer
            self._drop_file()
            if len(operations) == 1:
                return [(operations[0], error)]
            return [again for operation in operations for again in self._carry_out([operation])]
        self._lost = None
        self._checkpoints.wrote(rows)
        return list(zip(operations, results, strict=True))

    def _pause_writing(self, move: Callable[[], bool]) -> None:
        with self._writing:
            file = self._file
            if file is None:
                return
            try:
                file.begin(wait=True)
                all_moved = move()
                file.commit()
                if all_moved:
                    file.begin(wait=True)
                    file.write_nothing_new()
                    file.commit()
            except sqlite3.Error:
                file.roll_back()
                raise

    def _drop_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            # The connection is given up in any case, and closing it undoes the transaction.
            with contextlib.suppress(sqlite3.Error):
                file.roll_back()
            file.close()

    def _next_batch(self) -> tuple[list[Operation], bool]:
        batch = self._queue.get()
        if batch is None:
            return [], True
        self._taken += 1
        while len(batch) < BATCH_MOST:
            try:
                more = self._queue.get_nowait()
            except queue.Empty:
                break
            if more is None:
                return batch, True
            batch += more
            self._taken += 1
        return batch, False
