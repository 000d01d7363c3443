"""Moving SQLite's write-ahead log into the file, where no request waits for it."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROWS_APART = 1_000
"""Rows written by one process between two attempts; each takes one to three pages of the log."""

PAGES_MOST = 8_000
"""A longer log (32 MB) is not left to grow until there is a pause in writing, but makes one."""


class _Log(NamedTuple):
    pages: int
    whole: bool
    """Whether all of them have been moved."""


class Checkpoints:
    """Moves the log on a thread of its own, as often as `wrote` adds up to.

    Who writes first after the whole log has been moved begins it anew and waits for the disk meanwhile. So that this is
    no request, an open read keeps everybody from it until `in_pause` does it: that is to run what it is given while
    nobody writes, and to begin the log anew if the answer is that all of it has been moved.
    """

    def __init__(self, path: Path, *, in_pause: Callable[[Callable[[], bool]], None]) -> None:
        self.error: sqlite3.Error | None = None
        """Why the log could not be moved when that was last tried."""
        self._path = path
        self._in_pause = in_pause
        self._rows = 0
        self._due = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._log: sqlite3.Connection | None = None

    def wrote(self, rows: int) -> None:
        """Count rows that this process has written."""
        self._rows += rows
        if self._rows >= ROWS_APART:
            self._rows = 0
            self._due.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tollgate-checkpoints", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Wait until the log is left alone."""
        self._closed = True
        self._due.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while True:
            self._due.wait()
            if self._closed:
                break
            self._due.clear()
            try:
                self._move()
                self.error = None
            except sqlite3.Error as error:
                self.error = error
                self._let_go()
        self._let_go()

    def _move(self) -> None:
        if self._log is None:
            self._log = sqlite3.connect(self._path, isolation_level=None)
        log = self._log
        with contextlib.closing(sqlite3.connect(self._path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT 1 FROM owners").fetchone()
            moved = _moved(log)
            if not moved.whole and moved.pages < PAGES_MOST:
                return

            def rest() -> bool:
                reader.execute("ROLLBACK")
                return _moved(log).whole

            self._in_pause(rest)

    def _let_go(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            log.close()


def _moved(log: sqlite3.Connection) -> _Log:
    """Move what no reader still needs."""
    busy, pages, moved = log.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return _Log(pages, whole=not busy and pages == moved)
