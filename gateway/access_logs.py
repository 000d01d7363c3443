"""JSON access logs read back as requests, for a replay of traffic whose ledger is gone or elsewhere.

A log tells neither tags nor caps nor choices: tags are those of the policy's keys, and a request counts as one answer
whose caller named no cap.
"""

from __future__ import annotations

import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from policies.ledger import Outcome as LedgerOutcome
from policies.traffic import Request, Waiting, request

LONGEST_LINE = 1 << 20
"""What goes on beyond it is no line of a log, and is not to fill the memory."""

STDIN = Path("-")

_GZIP = b"\x1f\x8b"

_OUTCOMES: dict[str, LedgerOutcome] = {
    "ok": "ok",
    "refused": "refused",
    "declined": "released",
    "upstream_error": "upstream_error",
    "client_left": "cancelled",
    "cut": "cut",
    "exhausted": "exhausted",
}


class Malformed(Exception):
    """A line that says it is a request, or is no JSON at all; the message says what is wrong with it."""


class AccessLog:
    """One log, plain or gzip'd, from a file or (``-``) standard input, read once as a stream.

    `other` counts lines that are no request that met budgets, `malformed` those that cannot be read; `first_malformed`
    is the number of the first of those and what is wrong with it. Reading raises OSError, also for a broken gzip file.
    """

    def __init__(self, path: Path, *, since: float = 0.0, until: float | None = None) -> None:
        self.path = path
        self.other = 0
        self.malformed = 0
        self.first_malformed: tuple[int, str] | None = None
        self._since = since
        self._until = until
        self._raw: io.FileIO | None = None

    @property
    def read_bytes(self) -> int:
        """How much of the file has been read."""
        try:
            return self._raw.tell() if self._raw is not None else 0
        except (OSError, ValueError):  # a pipe, or closed
            return 0

    def __iter__(self) -> Iterator[Request]:
        waiting = Waiting()
        for number, line in enumerate(self._lines(), start=1):
            try:
                found = read_line(line)
            except Malformed as wrong:
                self.malformed += 1
                self.first_malformed = self.first_malformed or (number, str(wrong))
                continue
            if found is None:
                self.other += line != b"\n"
                continue
            if found.at < self._since or (self._until is not None and found.at >= self._until):
                continue
            yield from waiting.take(found)
        yield from waiting.rest()

    def _lines(self) -> Iterator[bytes]:
        with self._opened() as raw:
            self._raw = raw
            buffered = io.BufferedReader(raw, 1 << 18)
            packed = buffered.peek(2)[:2] == _GZIP
            try:
                with gzip.GzipFile(fileobj=buffered) if packed else buffered as lines:
                    while line := lines.readline(LONGEST_LINE):
                        yield line
            except (EOFError, zlib.error) as error:
                raise OSError(0, f"the gzip file is broken: {error}") from error

    def _opened(self) -> io.FileIO:
        if self.path == STDIN:
            return io.FileIO(os.dup(sys.stdin.fileno()))
        return io.FileIO(self.path)


def read_line(line: bytes) -> Request | None:
    """Read one line as a request that met budgets; None for any other line. Raises `Malformed`."""
    if b'"request"' not in line:
        if (line.startswith(b"{") and line.rstrip().endswith(b"}")) or not line.strip():
            return None
        raise Malformed("it is no JSON object")
    try:
        said: Any = orjson.loads(line)
    except ValueError as error:
        raise Malformed(f"it is no JSON: {error}") from None
    if not isinstance(said, dict):
        raise Malformed("it is no JSON object")
    outcome = said.get("outcome")
    if said.get("event") != "request" or not isinstance(outcome, str) or outcome not in _OUTCOMES:
        return None
    try:
        latency_s = float(said["total_ms"]) / 1000
        counted = int(said.get("counted", 0))
        return request(
            datetime.fromisoformat(said["at"]).timestamp() - latency_s,
            str(said["request_id"]),
            str(said["key_id"]),
            str(said["model"]),
            str(said["upstream"]),
            _OUTCOMES[outcome],
            str(said.get("source", "")),
            int(said.get("used_input", 0)),
            int(said.get("used_output", 0)),
            0,
            0,
            counted,
            1,
            {},
            counted,
            None,
            str(said["format"]),
            latency_s,
        )
    except KeyError as missing:
        raise Malformed(f"it has no {missing}") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise Malformed(str(error)) from None
