"""Budgets in one SQLite file, shared by the worker processes of one machine; the default store."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from policies.ledger import LedgerEntry
from policies.model import StoreLost
from policies.stores.base import Counter, Denied, Granted, HeldLine, Hold, Note, Order, Row, Settled, State
from policies.stores.ledger_rows import ledger_row
from policies.stores.sqlite_file import PRUNED_AT_ONCE, SqliteFile, SqliteReader

BATCH_MOST = 512
"""Operations in one transaction: more would keep other processes waiting for the file."""

PAGE = 1_000

T = TypeVar("T")


class _Operation(NamedTuple):
    run: Callable[[SqliteFile], Any]
    future: asyncio.Future[Any] | None
    """Who waits for it; None for what must be written in the end, however often it takes."""


class SqliteStore:
    """A `BudgetStore` in a file (WAL). A thread of its own does all writing, everything that is waiting in one
    transaction, so that the event loop never blocks and concurrent requests share the cost of a commit.

    Survives ``kill -9`` at any moment. Open it after forking: a connection must not cross into another process.
    """

    name = "sqlite"

    def __init__(self, path: Path, *, busy_timeout_s: float = 5.0) -> None:
        self.path = path
        self._busy_timeout_s = busy_timeout_s
        self._waiting: list[_Operation] = []
        self._queue: queue.SimpleQueue[list[_Operation] | None] = queue.SimpleQueue()
        self._file: SqliteFile | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._lost: StoreLost | None = None

    def aligned(self, now: float) -> float:
        return now

    def reserve(self, order: Order, *, now: float) -> Awaitable[Granted | Denied]:
        return self._submit(lambda file: file.reserve(order, now))

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
        return self._submit(lambda file: file.settle(hold_id, used, read, row))

    def charge(self, lines: Sequence[HeldLine], *, batch: str, now: float) -> Awaitable[None]:
        return self._submit(lambda file: file.charge(lines, batch, now))

    async def read(self, counters: Sequence[Counter], *, now: float) -> tuple[State, ...]:
        return await self._submit(lambda file: file.read(counters))

    async def beat(self, owner: str, *, now: float) -> None:
        await self._submit(lambda file: file.beat(owner, now))

    async def holds(self, *, hold_id: str | None = None) -> list[Hold]:
        return await self._ask(lambda reader: reader.holds(hold_id))

    async def counters(self, *, series_prefix: str = "") -> list[Row]:
        return await self._ask(lambda reader: reader.counters(series_prefix))

    async def reset(self, series_prefix: str) -> int:
        return await self._submit(lambda file: file.reset(series_prefix))

    def record(self, entry: LedgerEntry) -> None:
        row = ledger_row(entry)
        self._enqueue(_Operation(lambda file: file.record(row), None))

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

    async def close(self) -> None:
        if self._closed:
            return
        self._hand_over()
        self._closed = True
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            if self._lost is not None:
                raise self._lost

    def _submit(self, run: Callable[[SqliteFile], T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_exception(StoreLost(f"The budget store '{self.path}' is closed."))
            return future
        self._enqueue(_Operation(run, future))
        return future

    def _enqueue(self, operation: _Operation) -> None:
        if self._closed:
            raise StoreLost(f"The budget store '{self.path}' is closed.")
        self._waiting.append(operation)
        if len(self._waiting) == 1:
            # Everything that this turn of the event loop asks for goes into one batch.
            asyncio.get_running_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        if self._waiting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tollgate-budgets", daemon=True)
                self._thread.start()
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
        unwritten: list[_Operation] = []
        last = False
        while not last:
            batch, last = self._next_batch()
            operations = unwritten + batch
            unwritten = []
            for start in range(0, len(operations), BATCH_MOST):
                unwritten += self._carry_out(operations[start : start + BATCH_MOST])
        if self._file is not None:
            self._file.close()

    def _carry_out(self, operations: Sequence[_Operation]) -> list[_Operation]:
        """Run operations in one transaction and answer them; return those to be tried again with the next batch.

        The file is opened when it is needed, and again after it failed.
        """
        try:
            if self._file is None:
                self._file = SqliteFile(self.path, busy_timeout_s=self._busy_timeout_s)
            file = self._file
            file.begin()
            results = [operation.run(file) for operation in operations]
            file.commit()
        except (sqlite3.Error, OSError, StoreLost) as error:
            self._drop_file()
            self._lost = self._failed(error)
            _answer(operations, [self._lost] * len(operations))
            return [operation for operation in operations if operation.future is None]
        except Exception as error:  # what one operation cannot stomach must not cost the others their answer
            self._drop_file()
            if len(operations) == 1:
                _answer(operations, [error])
                return []
            return [again for operation in operations for again in self._carry_out([operation])]
        self._lost = None
        _answer(operations, results)
        return []

    def _drop_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            # The connection is given up in any case, and closing it undoes the transaction.
            with contextlib.suppress(sqlite3.Error):
                file.roll_back()
            file.close()

    def _next_batch(self) -> tuple[list[_Operation], bool]:
        batch = self._queue.get()
        if batch is None:
            return [], True
        while len(batch) < BATCH_MOST:
            try:
                more = self._queue.get_nowait()
            except queue.Empty:
                break
            if more is None:
                return batch, True
            batch += more
        return batch, False


def _answer(operations: Sequence[_Operation], results: Sequence[Any]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for operation, result in zip(operations, results, strict=True):
        if operation.future is not None:
            by_loop.setdefault(operation.future.get_loop(), []).append((operation.future, result))
    for loop, answers in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it everybody who waited
            loop.call_soon_threadsafe(_resolve, answers)


def _resolve(answers: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in answers:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
