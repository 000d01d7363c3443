"""JSON access logs read back as ledger lines, for a replay of traffic whose ledger is gone or elsewhere."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from policies.ledger import LedgerEntry
from policies.ledger import Outcome as LedgerOutcome

LONGEST_S = 600.0
"""Lines are written when requests end and replayed by when they began: so much of the log is held to put it in order.
A request that took longer is replayed where it is met."""

_OUTCOMES: dict[str, LedgerOutcome] = {
    "ok": "ok",
    "refused": "refused",
    "declined": "released",
    "upstream_error": "upstream_error",
    "client_left": "cancelled",
    "cut": "cut",
}


class AccessLog:
    """One log file, read as a stream. `read_bytes` and `skipped` (lines that are no request, or not JSON) grow as it
    is read."""

    def __init__(self, path: Path, *, since: float) -> None:
        self.path = path
        self.read_bytes = 0
        self.skipped = 0
        self._since = since

    def __iter__(self) -> Iterator[LedgerEntry]:
        waiting: list[tuple[float, int, LedgerEntry]] = []
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines):
                self.read_bytes += len(line)
                entry = read_line(line)
                if entry is None:
                    self.skipped += 1
                    continue
                if entry.at < self._since:
                    continue
                heapq.heappush(waiting, (entry.at, number, entry))
                ended_at = entry.at + entry.latency_s
                while waiting and waiting[0][0] < ended_at - LONGEST_S:
                    yield heapq.heappop(waiting)[2]
        while waiting:
            yield heapq.heappop(waiting)[2]


def read_line(line: bytes) -> LedgerEntry | None:
    """Read one line as a request that reached its budgets; None for any other line.

    A log tells neither tags nor caps nor choices: tags are those of the policy's keys, and a request counts as one
    answer whose caller named no cap.
    """
    if b'"request"' not in line:
        return None
    try:
        said: Any = orjson.loads(line)
        if not isinstance(said, dict) or said.get("event") != "request" or said.get("outcome") not in _OUTCOMES:
            return None
        latency_s = float(said["total_ms"]) / 1000
        held, counted = int(said.get("held", 0)), int(said.get("counted", 0))
        return LedgerEntry(
            request_id=str(said["request_id"]),
            at=datetime.fromisoformat(said["at"]).timestamp() - latency_s,
            key_id=str(said["key_id"]),
            model=str(said["model"]),
            upstream=str(said["upstream"]),
            outcome=_OUTCOMES[said["outcome"]],
            held_input=counted,
            held_output=max(0, held - counted),
            input_tokens=int(said.get("used_input", 0)),
            output_tokens=int(said.get("used_output", 0)),
            counted_tokens=counted,
            source=str(said.get("source", "")),
            endpoint=str(said["format"]),
            latency_s=latency_s,
        )
    except (KeyError, TypeError, ValueError):
        return None
