"""Budgets in one SQLite file, shared by the worker processes of one machine; the default store."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from policies.ledger import LedgerEntry
from policies.stores.base import Counter, Denied, Granted, HeldLine, Hold, Note, Order, Row, Settled, State
from policies.stores.ledger_rows import ledger_row
from policies.stores.sqlite_file import PRUNED_AT_ONCE
from policies.stores.sqlite_reader import SqliteReader
from policies.stores.sqlite_writer import SqliteWriter

PAGE = 1_000

T = TypeVar("T")


class SqliteStore:
    """A `BudgetStore` in a file (WAL).

    Survives ``kill -9`` at any moment. Open it after forking: a connection must not cross into another process.
    """

    name = "sqlite"

    def __init__(self, path: Path, *, busy_timeout_s: float = 5.0) -> None:
        self.path = path
        self._busy_timeout_s = busy_timeout_s
        self._writer = SqliteWriter(path, busy_timeout_s=busy_timeout_s)

    def aligned(self, now: float) -> float:
        return now

    def reserve(self, order: Order, *, now: float) -> Awaitable[Granted | Denied]:
        return self._writer.submit(lambda file: file.reserve(order, now), brief=True)

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
        return self._writer.submit(lambda file: file.settle(hold_id, used, read, row), brief=True)

    def charge(self, lines: Sequence[HeldLine], *, batch: str, now: float) -> Awaitable[None]:
        return self._writer.submit(lambda file: file.charge(lines, batch, now))

    async def read(self, counters: Sequence[Counter], *, now: float) -> tuple[State, ...]:
        return await self._writer.submit(lambda file: file.read(counters))

    async def beat(self, owner: str, *, now: float) -> None:
        await self._writer.submit(lambda file: file.beat(owner, now))

    async def leave(self, owner: str) -> None:
        await self._writer.submit(lambda file: file.leave(owner))

    async def owners(self) -> dict[str, float]:
        return await self._ask(lambda reader: reader.owners(), latest=False)

    async def holds(self, *, hold_id: str | None = None) -> list[Hold]:
        return await self._ask(lambda reader: reader.holds(hold_id))

    async def counters(self, *, series_prefix: str = "") -> list[Row]:
        return await self._ask(lambda reader: reader.counters(series_prefix))

    async def reset(self, series_prefix: str) -> int:
        return await self._writer.submit(lambda file: file.reset(series_prefix))

    def record(self, entry: LedgerEntry) -> None:
        row = ledger_row(entry)
        self._writer.take(lambda file: file.record(row))

    async def entries(
        self, *, since: float = 0.0, until: float | None = None, key_id: str | None = None, model: str | None = None
    ) -> AsyncIterator[LedgerEntry]:
        after = (since, -1)
        while True:
            page = await self._ask(
                lambda reader, after=after: reader.entries(after, until, key_id, model, PAGE),  # type: ignore[misc]
                latest=after[1] < 0,
            )
            for row_id, entry in page:
                yield entry
                after = (entry.at, row_id)
            if len(page) < PAGE:
                return

    async def recent_outputs(self, key_id: str, model: str, *, limit: int) -> list[int]:
        return await self._ask(lambda reader: reader.recent_outputs(key_id, model, limit), latest=False)

    async def latest(self, *, limit: int) -> list[LedgerEntry]:
        return await self._ask(lambda reader: reader.latest(limit))

    async def notes(self, *, after: int = 0) -> list[Note]:
        return await self._ask(lambda reader: reader.notes(after), latest=False)

    async def write_note(self, kind: str, name: str, body: bytes, *, replacing: int) -> int | None:
        return await self._writer.submit(lambda file: file.write_note(kind, name, body, replacing))

    async def prune(self, *, now: float, ledger_before: float | None) -> None:
        await self._writer.submit(lambda file: file.prune(now))
        pruned = PRUNED_AT_ONCE
        while ledger_before is not None and pruned == PRUNED_AT_ONCE:
            pruned = await self._writer.submit(lambda file: file.prune_ledger(ledger_before))

    async def ping(self) -> None:
        await self._writer.submit(lambda file: file.ping())
        error = self._writer.checkpoints.error
        if error is not None:
            raise self._writer.failed(error)

    async def close(self) -> None:
        await self._writer.close()

    async def _ask(self, question: Callable[[SqliteReader], T], *, latest: bool = True) -> T:
        """Ask beside those who write: after whatever has been answered by now, in any process, or (not `latest`) by
        what is in the file."""
        if latest or not self._writer.has_begun:
            await self.ping()

        def answered() -> T:
            with SqliteReader(self.path, busy_timeout_s=self._busy_timeout_s) as reader:
                return question(reader)

        try:
            return await asyncio.to_thread(answered)
        except sqlite3.Error as error:
            raise self._writer.failed(error) from error
