"""What was answered while its transaction is still open, kept where a killed process does not lose it."""

from __future__ import annotations

import os
import struct
import zlib
from mmap import mmap
from pathlib import Path

ROOM = 1 << 20
"""Bytes of the file, taken from the disk when it is made: a full disk must not stand between a request and its hold."""

_RECORDS_AT = 64
"""Before them stands whatever was last written by a process that asked for its turn."""

_HEAD = struct.Struct("<QII")
"""The transaction's number, the record's length, and a checksum that goes on from the record before."""


class Promises:
    """The file ``<database>-promises``: records of the one transaction that is open.

    Only who holds the database's write lock may write records, and numbers its transaction one above the last that was
    committed with records. A record of that number that is found when the lock is taken was therefore left by a
    process that was killed, or whose commit failed, and is still to be carried out. Records of lower numbers are void.

    The file is written through memory: that takes a tenth of a microsecond where a write takes ten, and what is killed
    is this process, not the system that keeps its pages.
    """

    def __init__(self, database: Path) -> None:
        path = database.with_name(f"{database.name}-promises")
        with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0) as file:
            # Without overwriting what another process may be writing there.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, ROOM)
            elif os.fstat(file.fileno()).st_size < ROOM:
                file.truncate(ROOM)
            self._room = mmap(file.fileno(), ROOM)
        self._mark = self._room[:_RECORDS_AT]
        self._end = _RECORDS_AT
        self._sum = 0

    def left(self, transaction: int) -> list[bytes]:
        """Return the records of a transaction, in order."""
        records = []
        at, checksum = _RECORDS_AT, 0
        while at + _HEAD.size <= len(self._room):
            number, length, expected = _HEAD.unpack_from(self._room, at)
            if number != transaction:
                break
            at += _HEAD.size
            record = self._room[at : at + length]
            at += length
            checksum = zlib.crc32(record, checksum)
            if len(record) < length or checksum != expected:
                break  # a record that was being written was never answered
            records.append(record)
        return records

    def add(self, transaction: int, record: bytes) -> bool:
        """Write a record behind those of its transaction; False when there is no room left for it."""
        end = self._end + _HEAD.size + len(record)
        if end > len(self._room):
            return False
        self._sum = zlib.crc32(record, self._sum)
        self._room[self._end : end] = _HEAD.pack(transaction, len(record), self._sum) + record
        self._end = end
        return True

    def rewind(self) -> None:
        """Begin a transaction: its records replace those of the one before."""
        self._end, self._sum = _RECORDS_AT, 0

    def ask_for_turn(self) -> None:
        """Ask whoever keeps the lock from one request to the next not to."""
        self._mark = os.urandom(_RECORDS_AT)
        self._room[:_RECORDS_AT] = self._mark

    def others_asked(self) -> bool:
        """Whether another process has asked for its turn since this was last looked at."""
        before, self._mark = self._mark, self._room[:_RECORDS_AT]
        return self._mark != before

    def close(self) -> None:
        self._room.close()
