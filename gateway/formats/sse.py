"""Server-sent events, split out of bytes that may arrive cut anywhere."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_EVENT_BYTES = 32 * 1024 * 1024
"""An event longer than this is relayed but not read: the buffer stays bounded whatever an upstream sends."""

# A blank line. A CR at the end of what has arrived may still be half of a CRLF, so it must be followed by something.
_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?=[^\n]))(?:\r\n|\n|\r(?=[^\n]))")
_SEAM_BYTES = 4
"""A blank line has at most four bytes, so one that these bytes complete began no further back."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event: its name ("" when it has none), its data lines joined by newlines, and the very bytes it came as."""

    event: str
    data: bytes
    raw: bytes


class SseSplitter:
    """Collects bytes and hands out whole events; the `raw` of all events plus `finish` is what was fed."""

    __slots__ = ("_overflowed", "_pending", "_size")

    def __init__(self) -> None:
        self._pending: list[bytes] = []
        self._size = 0
        self._overflowed = False

    @property
    def overflowed(self) -> bool:
        """Whether an event outgrew `MAX_EVENT_BYTES`; from there on nothing is split any more."""
        return self._overflowed

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that these bytes complete."""
        if self._overflowed:
            return [SseEvent("", b"", chunk)] if chunk else []
        if self._pending:
            self._pending.append(chunk)
            self._size += len(chunk)
            seam = self._pending[-2][-_SEAM_BYTES:]
            if len(seam) < _SEAM_BYTES and len(self._pending) > 2:
                seam = b"".join(self._pending[-1 - _SEAM_BYTES : -1])[-_SEAM_BYTES:]
            if _BLANK_LINE.search(seam + chunk) is None:  # look at new bytes only: an event may come in many pieces
                return self._overflow() if self._size > MAX_EVENT_BYTES else []
            chunk = b"".join(self._pending)
            self._pending.clear()
        if b"\r" in chunk:
            raws, rest = _split_any(chunk)
        else:
            *raws, rest = chunk.split(b"\n\n")
            raws = [raw + b"\n\n" for raw in raws]
        self._size = len(rest)
        if rest:
            self._pending.append(rest)
        events = [_read_event(raw) for raw in raws]
        return events + self._overflow() if self._size > MAX_EVENT_BYTES else events

    def finish(self) -> list[SseEvent]:
        """The stream ended: the last event if it was never closed by a blank line (many servers forget it)."""
        rest = b"".join(self._pending)
        self._pending.clear()
        self._size = 0
        return [_read_event(rest)] if rest else []

    def _overflow(self) -> list[SseEvent]:
        self._overflowed = True
        raw = b"".join(self._pending)
        self._pending.clear()
        return [SseEvent("", b"", raw)]


def _split_any(chunk: bytes) -> tuple[list[bytes], bytes]:
    raws = []
    start = 0
    for match in _BLANK_LINE.finditer(chunk):
        raws.append(chunk[start : match.end()])
        start = match.end()
    return raws, chunk[start:]


def _read_event(raw: bytes) -> SseEvent:
    if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2 and b"\r" not in raw:
        return SseEvent("", raw[6:-2], raw)
    name = ""
    data = []
    for line in raw.removeprefix(_BYTE_ORDER_MARK).splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
    return SseEvent(name, b"\n".join(data), raw)
