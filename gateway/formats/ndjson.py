"""Streams of one JSON document a line (Ollama, Cohere v1), split out of bytes that may arrive cut anywhere."""

from __future__ import annotations

from gateway.formats.listening import AnswerReader
from gateway.formats.sse import MAX_EVENT_BYTES, SseEvent, SseSplitter


class LineSplitter(SseSplitter):
    """Collects bytes and hands out whole lines as nameless events; the `raw` of all plus `finish` is what was fed."""

    __slots__ = ("_held", "_held_size", "_too_long")

    def __init__(self) -> None:
        super().__init__()
        self._held: list[bytes] = []
        self._held_size = 0
        self._too_long = False

    @property
    def overflowed(self) -> bool:
        return self._too_long

    def feed(self, chunk: bytes) -> list[SseEvent]:
        if self._too_long:
            return [SseEvent("", b"", chunk)] if chunk else []
        if b"\n" in chunk:
            *lines, rest = b"".join([*self._held, chunk]).split(b"\n")
            self._held = [rest] if rest else []
            self._held_size = len(rest)
            return [SseEvent("", line.strip(), line + b"\n") for line in lines]
        if chunk:
            self._held.append(chunk)
            self._held_size += len(chunk)
        if self._held_size > MAX_EVENT_BYTES:
            self._too_long = True
            return self.finish()
        return []

    def finish(self) -> list[SseEvent]:
        rest = b"".join(self._held)
        self._held = []
        self._held_size = 0
        return [SseEvent("", b"" if self._too_long else rest.strip(), rest)] if rest else []


class LineReader(AnswerReader):
    """An `AnswerReader` whose stream is lines instead of server-sent events."""

    def __init__(self, *, lines: bool, events: bool = False, failed: bool = False) -> None:
        super().__init__(events=events, failed=failed)
        if lines:
            self._splitter = LineSplitter()
