"""The SQLite file's tables and settings."""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path

from policies.model import StoreLost

VERSION = 1

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
CREATE TABLE IF NOT EXISTS promises (kept INTEGER NOT NULL);
"""


def prepare(connection: sqlite3.Connection) -> None:
    """Set a new connection up for writing."""
    # In force where the file is new. A commit writes whole pages, each for a row or two: half the usual size takes
    # a quarter less time, and still holds the longest ledger line with few overflows.
    connection.execute("PRAGMA page_size = 2048")
    # With WAL, NORMAL loses nothing when a process is killed, only (the latest transactions) when power fails.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA busy_timeout = 0")


def create(connection: sqlite3.Connection, path: Path) -> None:
    """Create what the file has not yet, in the transaction that is open. Raises `StoreLost` for another's version."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, VERSION):
        raise StoreLost(
            f"The budget store '{path}' was written by another version of Tollgate (schema {version}, this one "
            f"reads {VERSION}). Use that version, or name a new file in store.url."
        )
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    if connection.execute("SELECT 1 FROM promises").fetchone() is None:
        # Any number, so that promises of an earlier file of this name are not taken for this one's.
        connection.execute("INSERT INTO promises VALUES (?)", (secrets.randbits(48),))
    connection.execute(f"PRAGMA user_version = {VERSION}")
