"""The SQLite file: its tables, and batches of operations on it in one transaction each."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from policies.ledger import LedgerEntry
from policies.model import StoreLost
from policies.stores.base import Counter, Denied, Granted, HeldLine, Hold, Note, Order, Row, Settled, State
from policies.stores.book import Book
from policies.stores.ledger_rows import COLUMNS, LedgerRow, ledger_entry

SCHEMA_VERSION = 1
CELLS_KEPT = 100_000
LONGEST_PAUSE_S = 0.001
"""Between two attempts to take the file's write lock, which others hold for a tenth of that."""

BATCHES_KEPT_S = 86_400.0
PRUNED_AT_ONCE = 1_000
"""Ledger lines dropped in one transaction, so that nobody waits long for the file."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS counters (
    series TEXT NOT NULL, slot INTEGER NOT NULL, used INTEGER NOT NULL, held INTEGER NOT NULL,
    expires_at REAL NOT NULL, PRIMARY KEY (series, slot)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holds (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, held_at REAL NOT NULL, input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, choices INTEGER NOT NULL, memo BLOB NOT NULL, lines BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS owners (owner TEXT PRIMARY KEY, beat_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (batch TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (
    kind TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL UNIQUE, body BLOB NOT NULL,
    PRIMARY KEY (kind, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, request_id TEXT NOT NULL, key_id TEXT NOT NULL, model TEXT NOT NULL,
    upstream TEXT NOT NULL, outcome TEXT NOT NULL, source TEXT NOT NULL, input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL,
    counted_tokens INTEGER NOT NULL, accuracy TEXT NOT NULL, choices INTEGER NOT NULL, more BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS ledger_at ON ledger (at);
CREATE INDEX IF NOT EXISTS ledger_answers ON ledger (key_id, model);
"""


class SqliteFile:
    """One connection to the file, used by one thread at a time.

    Counters are remembered between transactions and forgotten as soon as another connection has written
    (``PRAGMA data_version``), so that a lone worker reads almost nothing. Moving the write-ahead log into the file is
    left to `Checkpoints`: it would keep whoever commits waiting for the disk.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        self._connection = _opened(path, busy_timeout_s=busy_timeout_s)
        self._connection.execute("PRAGMA wal_autocheckpoint = 0")
        self._connection.execute("PRAGMA busy_timeout = 0")
        self._busy_timeout_s = busy_timeout_s
        self._book = Book(self._load)
        self._lines: dict[str, Sequence[tuple[str, int, int, float]]] = {}
        self._new_holds: dict[str, tuple[Any, ...]] = {}
        self._ledger_rows: list[LedgerRow] = []
        self._version = -1
        self._rows_changed = 0
        self._execute = self._connection.execute

    def begin(self, *, wait: bool) -> None:
        """Take the file's write lock, waiting for whoever else has it, or failing at once."""
        waited_s, pause_s = 0.0, 0.0001
        while True:
            try:
                self._execute("BEGIN IMMEDIATE")
                break
            except sqlite3.OperationalError as error:
                locked = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not (wait and locked and waited_s < self._busy_timeout_s):
                    raise
            # SQLite itself would sleep so long that others, who never wait, take the lock again and again meanwhile.
            time.sleep(pause_s)
            waited_s += pause_s
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        version = self._execute("PRAGMA data_version").fetchone()[0]
        if version != self._version or len(self._book.cells) > CELLS_KEPT:
            self._version = version
            self._book.forget()
        self._book.let_go()

    def commit(self) -> int:
        """Write what the batch changed and end the transaction; return how many rows were written."""
        self._write_counters()
        if self._new_holds:
            self._connection.executemany("INSERT INTO holds VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self._new_holds.values())
            self._new_holds.clear()
        if self._ledger_rows:
            self._connection.executemany(
                f"INSERT INTO ledger ({COLUMNS}) VALUES ({', '.join('?' * 15)})",  # noqa: S608 - constants
                self._ledger_rows,
            )
            self._ledger_rows.clear()
        self._execute("COMMIT")
        before, self._rows_changed = self._rows_changed, self._connection.total_changes
        return self._rows_changed - before

    def roll_back(self) -> None:
        """Undo the batch, and forget what was remembered of the file."""
        self._book.forget()
        self._book.dirty.clear()
        self._new_holds.clear()
        self._ledger_rows.clear()
        if self._connection.in_transaction:
            self._execute("ROLLBACK")

    def close(self) -> None:
        self._connection.close()

    def reserve(self, order: Order, now: float) -> Granted | Denied:
        outcome = self._book.reserve(order)
        if isinstance(outcome, Granted):
            lines = []  # bare tuples: orjson takes no named ones
            for (counter, *_), amount in zip(order.asks, outcome.amounts, strict=True):
                lines.append((counter.series, counter.slot, amount, counter.expires_at))
            if len(self._lines) > CELLS_KEPT:
                self._lines.clear()
            self._lines[order.id] = lines
            self._new_holds[order.id] = (
                order.id,
                order.owner,
                now,
                order.input_tokens,
                order.output_held(outcome.output),
                order.choices,
                order.memo,
                orjson.dumps(lines),
            )
        return outcome

    def settle(
        self, hold_id: str, used: Sequence[int] | None, read: Sequence[Counter], row: LedgerRow | None
    ) -> Settled:
        lines = self._lines.pop(hold_id, None)
        if self._new_holds.pop(hold_id, None) is None:
            if lines is None:
                found = self._execute("SELECT lines FROM holds WHERE id = ?", (hold_id,)).fetchone()
                lines = _lines(found[0]) if found is not None else ()
            if not self._execute("DELETE FROM holds WHERE id = ?", (hold_id,)).rowcount:
                return Settled(False, self.read(read))
        assert lines is not None
        self._book.settle(lines, used)
        if row is not None:
            self._ledger_rows.append(row)
        return Settled(True, self.read(read))

    def charge(self, lines: Sequence[HeldLine], batch: str, now: float) -> None:
        if self._execute("INSERT OR IGNORE INTO batches VALUES (?, ?)", (batch, now)).rowcount:
            for line in lines:
                self._book.add(line.series, line.slot, used=line.amount, held=0, expires_at=line.expires_at)

    def read(self, counters: Sequence[Counter]) -> tuple[State, ...]:
        return self._book.states(counters)

    def record(self, row: LedgerRow) -> None:
        self._ledger_rows.append(row)

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
        self._execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _write_counters(self) -> None:
        if not self._book.dirty:
            return
        rows = [(*key, cell.used, cell.held, cell.expires_at) for key, cell in self._book.dirty]
        self._connection.executemany("INSERT OR REPLACE INTO counters VALUES (?, ?, ?, ?, ?)", rows)
        self._book.clean()

    def _load(self, series: str, since: int, slot: int) -> None:
        rows = self._execute(
            "SELECT slot, used, held, expires_at FROM counters WHERE series = ? AND slot BETWEEN ? AND ?",
            (series, since, slot),
        )
        for start, used, held, expires_at in rows:
            self._book.keep(series, start, used=used, held=held, expires_at=expires_at)


class SqliteReader:
    """Questions that may take long, on a connection of their own that never writes nor waits for writers."""

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=busy_timeout_s, isolation_level=None
        )

    def __enter__(self) -> SqliteReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def holds(self, hold_id: str | None) -> list[Hold]:
        rows = self._connection.execute(
            "SELECT h.id, h.owner, held_at, input_tokens, output_tokens, choices, memo, lines, coalesce(beat_at, 0) "
            "FROM holds h LEFT JOIN owners USING (owner) WHERE ? IS NULL OR h.id = ?",
            (hold_id, hold_id),
        )
        return [Hold._make((*row[:7], _lines(row[7]), row[8])) for row in rows]

    def owners(self) -> dict[str, float]:
        return dict(self._connection.execute("SELECT owner, beat_at FROM owners").fetchall())

    def counters(self, series_prefix: str) -> list[Row]:
        rows = self._connection.execute(
            "SELECT series, slot, used, held, expires_at FROM counters WHERE substr(series, 1, length(?)) = ? "
            "ORDER BY series, slot",
            (series_prefix, series_prefix),
        )
        return [Row(*row) for row in rows]

    def entries(
        self, after: tuple[float, int], until: float | None, key_id: str | None, model: str | None, limit: int
    ) -> list[tuple[int, LedgerEntry]]:
        rows = self._connection.execute(
            f"SELECT {COLUMNS}, id FROM ledger WHERE (at, id) > (?, ?) AND (? IS NULL OR at < ?) "  # noqa: S608
            "AND (? IS NULL OR key_id = ?) AND (? IS NULL OR model = ?) ORDER BY at, id LIMIT ?",
            (*after, until, until, key_id, key_id, model, model, limit),
        )
        return [(row[15], ledger_entry(row)) for row in rows]

    def latest(self, limit: int) -> list[LedgerEntry]:
        rows = self._connection.execute(f"SELECT {COLUMNS} FROM ledger ORDER BY id DESC LIMIT ?", (limit,))  # noqa: S608
        return [ledger_entry(row) for row in rows][::-1]

    def notes(self, after: int) -> list[Note]:
        rows = self._connection.execute(
            "SELECT kind, name, revision, body FROM notes WHERE revision > ? ORDER BY revision", (after,)
        )
        return [Note(*row) for row in rows]

    def recent_outputs(self, key_id: str, model: str, limit: int) -> list[int]:
        rows = self._connection.execute(
            "SELECT output_tokens, choices FROM ledger WHERE key_id = ? AND model = ? AND output_tokens > 0 "
            "AND source IN ('reported', 'counted') ORDER BY id DESC LIMIT ?",
            (key_id, model, limit),
        )
        return [-(-output // max(1, choices)) for output, choices in rows]


def _opened(path: Path, *, busy_timeout_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=busy_timeout_s, isolation_level=None, cached_statements=256, check_same_thread=False
    )
    try:
        # In force where the file is new. A commit writes whole pages, each for a row or two: half the usual size takes
        # a quarter less time, and still holds the longest ledger line with few overflows.
        connection.execute("PRAGMA page_size = 2048")
        # With WAL, NORMAL loses nothing when a process is killed, only (the latest transactions) when power fails.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            raise StoreLost(
                f"The budget store '{path}' was written by another version of Tollgate (schema {version}, this one "
                f"reads {SCHEMA_VERSION}). Use that version, or name a new file in store.url."
            )
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _lines(body: bytes) -> tuple[HeldLine, ...]:
    return tuple(HeldLine(*line) for line in orjson.loads(body))
