"""The SQLite file: its tables, and batches of operations on it in one transaction each."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from policies.stores import sqlite_schema
from policies.stores.base import Counter, Denied, Granted, HeldLine, Order, Settled, State
from policies.stores.book import Book
from policies.stores.ledger_rows import COLUMNS, LedgerRow
from policies.stores.sqlite_promises import Promises
from policies.stores.sqlite_reader import held_lines

CELLS_KEPT = 100_000
LONGEST_PAUSE_S = 0.001
"""Between two attempts to take the file's write lock, which others hold for a tenth of that."""

BATCHES_KEPT_S = 86_400.0
INTEGER_MOST = 2**63 - 1
"""What a column takes; a counter that outgrows it stays there."""

PRUNED_AT_ONCE = 1_000
"""Ledger lines dropped in one transaction, so that nobody waits long for the file."""

_INCAPABLE = (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, OverflowError, ValueError)
"""What the file cannot stomach, however often it is tried."""

_BareLine = tuple[str, int, int, float]
_NewHold = tuple[tuple[str, str, float, int, int, int, bytes], Sequence[_BareLine]]

_log = logging.getLogger(__name__)


class SqliteFile:
    """One connection to the file, used by one thread at a time.

    A transaction goes from `begin` to `commit`, and may stay open from one request to the next: `keep` writes down what
    was done so far where it survives this process, so that it can be answered before it is committed.

    Counters are remembered between transactions and forgotten as soon as another connection has written
    (``PRAGMA data_version``), so that a lone worker reads almost nothing. Moving the write-ahead log into the file is
    left to `Checkpoints`: it would keep whoever commits waiting for the disk.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        self.in_transaction = False
        self.others = False
        """Set when another process was met on the file."""
        self._busy_timeout_s = busy_timeout_s
        self._connection = sqlite3.connect(
            path, timeout=busy_timeout_s, isolation_level=None, cached_statements=256, check_same_thread=False
        )
        self._execute = self._connection.execute
        self._book = Book(self._load)
        self._lines: dict[str, Sequence[_BareLine]] = {}
        self._new_holds: dict[str, _NewHold] = {}
        self._ledger_rows: list[LedgerRow] = []
        self._steps: list[tuple[Any, ...]] = []
        self._version = -1
        self._kept = 0
        self._promised = False
        self._rows_changed = 0
        try:
            sqlite_schema.prepare(self._connection)
            self._promises = Promises(path)
        except BaseException:
            self._connection.close()
            raise
        try:
            self._take_lock(wait=True)
            sqlite_schema.create(self._connection, path)
            self._execute("COMMIT")
        except BaseException:
            self.close()
            raise

    def begin(self, *, wait: bool) -> None:
        """Begin a transaction, unless one is open: take the file's write lock, waiting for whoever else has it, or
        failing at once."""
        if self.in_transaction:
            return
        self._take_lock(wait=wait)
        version = self._execute("PRAGMA data_version").fetchone()[0]
        if version != self._version or len(self._book.cells) > CELLS_KEPT:
            self.others = self.others or version != self._version != -1
            self._version = version
            self._kept = self._execute("SELECT kept FROM promises").fetchone()[0]
            self._book.forget()
        self.others = self._promises.others_asked() or self.others
        left = self._promises.left(self._kept + 1)
        if left:
            self._redo(left)
            self._take_lock(wait=wait)
        self._promises.rewind()
        self._book.let_go()
        self.in_transaction = True

    def keep(self) -> bool:
        """Write down what was done since the last time; False if it has to be committed instead, for want of room."""
        if not self._steps:
            return True
        kept = self._promises.add(self._kept + 1, orjson.dumps(self._steps))
        self._steps.clear()
        self._promised = self._promised or kept
        return kept

    def commit(self) -> int:
        """Write what the batch changed and end the transaction; return how many rows were written."""
        self._write()
        if self._promised:
            self._execute("UPDATE promises SET kept = ?", (self._kept + 1,))
        self._execute("COMMIT")
        if self._promised:
            self._kept += 1
            self._promised = False
            self.others = self._promises.others_asked() or self.others
        self._steps.clear()
        self.in_transaction = False
        before, self._rows_changed = self._rows_changed, self._connection.total_changes
        return self._rows_changed - before

    def roll_back(self) -> None:
        """Undo the batch, and forget what was remembered of the file. Who begins next does again what was kept."""
        self._forget()
        self._promised = self.in_transaction = False
        if self._connection.in_transaction:
            self._execute("ROLLBACK")

    def close(self) -> None:
        self._promises.close()
        self._connection.close()

    def reserve(self, order: Order, now: float) -> Granted | Denied:
        outcome = self._book.reserve(order)
        if isinstance(outcome, Granted):
            lines = []  # bare tuples: orjson takes no named ones
            for (counter, *_), amount in zip(order.asks, outcome.amounts, strict=True):
                lines.append((counter.series, counter.slot, amount, counter.expires_at))
            held = order.output_held(outcome.output)
            row = (order.id, order.owner, now, order.input_tokens, held, order.choices, order.memo)
            if len(self._lines) > CELLS_KEPT:
                self._lines.clear()
            self._lines[order.id] = lines
            self._new_holds[order.id] = (row, lines)
            self._steps.append(("hold", *row[:6], order.memo.decode(), lines))
        return outcome

    def settle(
        self, hold_id: str, used: Sequence[int] | None, read: Sequence[Counter], row: LedgerRow | None
    ) -> Settled:
        if used:
            _check(used)
        lines = self._lines.pop(hold_id, None)
        new = self._new_holds.pop(hold_id, None)
        if new is not None:
            lines = new[1]
        else:
            if lines is None:
                found = self._execute("SELECT lines FROM holds WHERE id = ?", (hold_id,)).fetchone()
                lines = held_lines(found[0]) if found is not None else ()
            if not self._execute("DELETE FROM holds WHERE id = ?", (hold_id,)).rowcount:
                return Settled(False, self.read(read))
        self._book.settle(lines, used)
        if row is not None:
            self._ledger_rows.append(row)
        self._steps.append(("end", hold_id, used, row and (*row[:-1], row[-1].decode())))
        return Settled(True, self.read(read))

    def charge(self, lines: Sequence[HeldLine], batch: str, now: float) -> None:
        _check([line.amount for line in lines])
        if self._execute("INSERT OR IGNORE INTO batches VALUES (?, ?)", (batch, now)).rowcount:
            for line in lines:
                self._book.add(line.series, line.slot, used=line.amount, held=0, expires_at=line.expires_at)

    def read(self, counters: Sequence[Counter]) -> tuple[State, ...]:
        return self._book.states(counters)

    def record(self, row: LedgerRow) -> None:
        self._ledger_rows.append(row)
        self._steps.append(("line", (*row[:-1], row[-1].decode())))

    def beat(self, owner: str, now: float) -> None:
        self._execute("INSERT OR REPLACE INTO owners VALUES (?, ?)", (owner, now))

    def leave(self, owner: str) -> None:
        self._execute("DELETE FROM owners WHERE owner = ?", (owner,))

    def reset(self, series_prefix: str) -> int:
        """Works on the table itself, so what is remembered is forgotten."""
        below = series_prefix.endswith("|")
        where = "substr(series, 1, length(?)) = ?" if below else "series = ? AND series = ?"
        self._write_counters()
        changed = self._execute(f"UPDATE counters SET used = 0 WHERE {where}", (series_prefix, series_prefix))  # noqa: S608
        self._book.forget()
        return changed.rowcount

    def write_note(self, kind: str, name: str, body: bytes, replacing: int) -> int | None:
        known = self._execute("SELECT revision FROM notes WHERE kind = ? AND name = ?", (kind, name)).fetchone()
        if (known[0] if known is not None else 0) != replacing:
            return None
        revision: int = self._execute("SELECT coalesce(max(revision), 0) + 1 FROM notes").fetchone()[0]
        self._execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?)", (kind, name, revision, body))
        return revision

    def prune(self, now: float) -> None:
        self._write_counters()
        self._execute("DELETE FROM counters WHERE expires_at > 0 AND expires_at <= ? AND held = 0", (now,))
        self._execute("DELETE FROM batches WHERE at < ?", (now - BATCHES_KEPT_S,))
        self._execute(
            "DELETE FROM owners WHERE beat_at < ? AND owner NOT IN (SELECT owner FROM holds)", (now - BATCHES_KEPT_S,)
        )
        self._book.forget()

    def prune_ledger(self, before: float) -> int:
        """Drop some of the lines from before a moment, and return how many."""
        old = "SELECT id FROM ledger WHERE at < ? ORDER BY at LIMIT ?"
        return self._execute(f"DELETE FROM ledger WHERE id IN ({old})", (before, PRUNED_AT_ONCE)).rowcount  # noqa: S608

    def ping(self) -> None:
        """The transaction around it is the proof."""

    def write_nothing_new(self) -> None:
        """Write a page as it is, so that a log that has been moved into the file begins anew."""
        self._execute(f"PRAGMA user_version = {sqlite_schema.VERSION}")

    def _write(self) -> None:
        self._write_counters()
        if self._new_holds:
            rows = [(*row, orjson.dumps(lines)) for row, lines in self._new_holds.values()]
            self._connection.executemany("INSERT INTO holds VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._new_holds.clear()
        if self._ledger_rows:
            self._connection.executemany(
                f"INSERT INTO ledger ({COLUMNS}) VALUES ({', '.join('?' * 15)})",  # noqa: S608 - constants
                self._ledger_rows,
            )
            self._ledger_rows.clear()

    def _write_counters(self) -> None:
        if not self._book.dirty:
            return
        rows = [
            (*key, min(cell.used, INTEGER_MOST), min(cell.held, INTEGER_MOST), cell.expires_at)
            for key, cell in self._book.dirty
        ]
        self._connection.executemany("INSERT OR REPLACE INTO counters VALUES (?, ?, ?, ?, ?)", rows)
        self._book.clean()

    def _load(self, series: str, since: int, slot: int) -> None:
        rows = self._execute(
            "SELECT slot, used, held, expires_at FROM counters WHERE series = ? AND slot BETWEEN ? AND ?",
            (series, since, slot),
        )
        for start, used, held, expires_at in rows:
            self._book.keep(series, start, used=used, held=held, expires_at=expires_at)

    def _forget(self) -> None:
        self._book.forget()
        self._book.clean()
        self._new_holds.clear()
        self._ledger_rows.clear()
        self._steps.clear()

    def _redo(self, records: Sequence[bytes]) -> None:
        """Do what was kept by a transaction that was never committed, and end the one in which this is done."""
        for step in (step for record in records for step in orjson.loads(record)):
            self._execute("SAVEPOINT redo")
            try:
                self._redo_step(*step)
                self._write()
            except _INCAPABLE as error:
                self._execute("ROLLBACK TO redo")
                self._forget()
                _log.error("a step of a transaction that was cut short cannot be done: %s: %s", error, step)
            self._execute("RELEASE redo")
        self._steps.clear()
        self._execute("UPDATE promises SET kept = ?", (self._kept + 1,))
        self._execute("COMMIT")
        self._kept += 1

    def _redo_step(self, kind: str, *of: Any) -> None:
        if kind == "line":
            self.record(_ledger_row(of[0]))
        elif kind == "end":
            hold_id, used, row = of
            self.settle(hold_id, used, (), row and _ledger_row(row))
        else:
            *row, memo, lines = of
            for series, slot, amount, expires_at in lines:
                self._book.add(series, slot, used=0, held=amount, expires_at=expires_at)
            self._new_holds[row[0]] = ((*row, memo.encode()), lines)

    def _take_lock(self, *, wait: bool) -> None:
        waited_s, pause_s = 0.0, 0.0001
        while True:
            try:
                self._execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                self.others = True
                if not wait or waited_s >= self._busy_timeout_s:
                    raise
            if not waited_s:
                self._promises.ask_for_turn()
            # SQLite itself would sleep so long that others, who never wait, take the lock again and again meanwhile.
            time.sleep(pause_s)
            waited_s += pause_s
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _check(figures: Sequence[int]) -> None:
    if max(figures, default=0) > INTEGER_MOST:
        raise OverflowError(f"{max(figures)} is more than a counter can take")


def _ledger_row(kept: Sequence[Any]) -> LedgerRow:
    return (*kept[:-1], kept[-1].encode())
