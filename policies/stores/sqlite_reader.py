"""What is asked of the SQLite file beside the requests' way: ledger, holds, counters."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import orjson

from policies.ledger import LedgerEntry
from policies.stores.base import HeldLine, Hold, Note, Row
from policies.stores.ledger_rows import COLUMNS, ledger_entry


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
        return [Hold._make((*row[:7], held_lines(row[7]), row[8])) for row in rows]

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


def held_lines(body: bytes) -> tuple[HeldLine, ...]:
    """Return the lines of a hold as they are kept in its row."""
    return tuple(HeldLine(*line) for line in orjson.loads(body))
