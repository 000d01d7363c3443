"""What was answered while its transaction is still open, kept where a killed process does not lose it."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

ROOM = 1 << 20
"""Bytes of the file, taken from the disk when it is made: a full disk must not stand between a request and its hold."""

_RECORDS_AT = 64
_MARK = 16
_HEAD = struct.Struct("<QII")
"""The transaction's number, the record's length, and a checksum that goes on from the record before."""


class Promises:
    """The file ``<database>-promises``: records of the one transaction that is open.

    Only who holds the database's write lock may write records, and numbers its transaction one above the last that was
    committed with records. A record of that number that is found when the lock is taken was therefore left by a
    process that was killed, or whose commit failed, and is still to be carried out. Records of lower numbers are void.
    """

    def __init__(self, database: Path) -> None:
        path = database.with_name(f"{database.name}-promises")
        self._file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)  # noqa: SIM115
        self._mark = b""
        self._end = _RECORDS_AT
        self._sum = 0

    def make_room(self) -> None:
        """Take the file's room from the disk, unless it has been; the lock must be held."""
        missing = ROOM - os.fstat(self._file.fileno()).st_size
        if missing > 0:
            self._file.seek(0, os.SEEK_END)
            self._file.write(bytes(missing))
        self.others_asked()  # whoever did so before is not meant

    def left(self, transaction: int) -> tuple[list[bytes], bool]:
        """Return the records of a transaction, in order, and what `others_asked` does."""
        self._file.seek(0)
        start = self._file.read(_RECORDS_AT + _HEAD.size)
        asked = self._is_new(start[:_MARK])
        if len(start) < _RECORDS_AT + _HEAD.size or _HEAD.unpack_from(start, _RECORDS_AT)[0] != transaction:
            return [], asked
        self._file.seek(_RECORDS_AT)
        whole = self._file.read(ROOM)
        records = []
        at = checksum = 0
        while at + _HEAD.size <= len(whole):
            number, length, expected = _HEAD.unpack_from(whole, at)
            record = whole[at + _HEAD.size : at + _HEAD.size + length]
            checksum = zlib.crc32(record, checksum)
            if number != transaction or len(record) < length or checksum != expected:
                break  # a record that was being written was never answered
            records.append(record)
            at += _HEAD.size + length
        return records, asked

    def add(self, transaction: int, record: bytes) -> bool:
        """Write a record behind those of its transaction; False when there is no room left for it."""
        length = _HEAD.size + len(record)
        if self._end + length > ROOM:
            return False
        self._sum = zlib.crc32(record, self._sum)
        self._file.seek(self._end)
        if self._file.write(_HEAD.pack(transaction, len(record), self._sum) + record) != length:
            raise OSError("a promise was written in part only")
        self._end += length
        return True

    def rewind(self) -> None:
        """Begin a transaction: its records replace those of the one before."""
        self._end, self._sum = _RECORDS_AT, 0

    def ask_for_turn(self) -> None:
        """Ask whoever keeps the lock from one request to the next not to."""
        self._mark = os.urandom(_MARK)
        self._file.seek(0)
        self._file.write(self._mark)

    def others_asked(self) -> bool:
        """Whether another process has asked for its turn since this was last looked at."""
        self._file.seek(0)
        return self._is_new(self._file.read(_MARK))

    def close(self) -> None:
        self._file.close()

    def _is_new(self, mark: bytes) -> bool:
        before, self._mark = self._mark, mark
        return mark != before
