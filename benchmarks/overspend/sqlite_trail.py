"""A trail that SQLite keeps itself: triggers write down every change of counters and holds, commit by commit."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from benchmarks.overspend.trail import Admitted, Ended, Event, Moved, Place
from policies.stores import open_store

_TRIGGERS = """
CREATE TABLE audit_trail (seq INTEGER PRIMARY KEY, kind TEXT, body TEXT);
CREATE TRIGGER audit_counters AFTER INSERT ON counters BEGIN
    INSERT INTO audit_trail (kind, body) VALUES ('moved', json_array(new.series, new.slot, new.used, new.held)); END;
CREATE TRIGGER audit_moved AFTER UPDATE ON counters BEGIN
    INSERT INTO audit_trail (kind, body) VALUES ('moved', json_array(new.series, new.slot, new.used, new.held)); END;
CREATE TRIGGER audit_held AFTER INSERT ON holds BEGIN
    INSERT INTO audit_trail (kind, body) VALUES ('held', json_array(new.id, new.owner, new.held_at,
        json_extract(CAST(new.memo AS TEXT), '$.key'), new.input_tokens, new.output_tokens,
        json(CAST(new.lines AS TEXT)))); END;
CREATE TRIGGER audit_ended AFTER DELETE ON holds BEGIN
    INSERT INTO audit_trail (kind, body) VALUES ('ended', json_array(old.id, json(CAST(old.lines AS TEXT)))); END;
"""


class SqliteTrail:
    """The trail of one store file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "budgets.db"
        self.url = f"sqlite:///{self._path}"

    async def start(self) -> None:
        """Let the store make its file, and put the triggers in it."""
        store = open_store(self.url)
        await store.ping()
        await store.close()
        await asyncio.to_thread(self._install)

    def _install(self) -> None:
        connection = sqlite3.connect(self._path)
        connection.executescript(_TRIGGERS)
        connection.close()

    async def stop(self) -> None:
        """The file stays until its folder goes."""

    def events(self) -> Iterator[Event]:
        """Read the trail, oldest first."""
        connection = sqlite3.connect(self._path)
        for kind, body in connection.execute("SELECT kind, body FROM audit_trail ORDER BY seq"):
            fields = json.loads(body)
            if kind == "moved":
                series, slot, used, held = fields
                yield Moved((series, slot), used, held)
            elif kind == "held":
                yield Admitted(*fields[:6], _lines(fields[6]))
            else:
                yield Ended(fields[0], _lines(fields[1]))
        connection.close()


def _lines(lines: list[tuple[str, int, int, float]]) -> tuple[tuple[Place, int], ...]:
    return tuple(((series, slot), amount) for series, slot, amount, _ in lines)
