"""Ending a stream before its upstream does, in the words its API has for an answer at its token limit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from gateway.formats.sse import SseEvent
from policies.usage import Usage


class Splitter(Protocol):
    """Collects bytes and hands out whole events."""

    def feed(self, chunk: bytes) -> list[SseEvent]: ...

    def finish(self) -> list[SseEvent]: ...


class EarlyEnd:
    """Follows one stream, a whole event at a time, so that it can be ended after any of them.

    A format derives from it, notes in `_take` what the end must speak of, and writes the end in `closing`.
    """

    def __init__(self, splitter: Splitter) -> None:
        self._splitter = splitter

    def split(self, chunk: bytes) -> list[SseEvent]:
        """The events that these bytes complete."""
        return self._splitter.feed(chunk)

    def finish(self) -> list[SseEvent]:
        """The stream ended by itself: what is left of it."""
        return self._splitter.finish()

    def follow(self, event: SseEvent) -> None:
        """Take note of an event that is relayed; what cannot be read is passed over."""
        try:
            document = orjson.loads(event.data)
        except orjson.JSONDecodeError:
            return
        if type(document) is dict:
            self._take(document)

    def closing(self, usage: Usage) -> bytes:
        """The bytes that end the stream here; `usage` is what it came to."""
        raise NotImplementedError

    def _take(self, document: dict[str, Any]) -> None:
        raise NotImplementedError


def write_event(document: Mapping[str, Any], *, name: str = "", end: bytes = b"\n\n") -> bytes:
    """One server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + orjson.dumps(document) + end


class ElementSplitter:
    """Collects the bytes of a JSON array and hands out its elements; an event's raw bytes begin with what parts it
    from the one before."""

    _MARK = re.compile(rb'["{}]')
    _IN_STRING = re.compile(rb'["\\]')

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0
        self._start = 0
        self._depth = 0
        self._in_string = False

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The elements that these bytes complete."""
        self._bytes += chunk
        found: list[SseEvent] = []
        while True:
            mark = (self._IN_STRING if self._in_string else self._MARK).search(self._bytes, self._at)
            if mark is None:
                self._at = len(self._bytes)
                return found
            at = mark.end()
            sign = mark.group()
            if sign == b"\\":
                if at == len(self._bytes):  # what it escapes has not arrived
                    self._at = mark.start()
                    return found
                at += 1
            elif sign == b'"':
                self._in_string = not self._in_string
            elif sign == b"{":
                if not self._depth:
                    self._start = mark.start()
                self._depth += 1
            elif self._depth:
                self._depth -= 1
                if not self._depth:
                    found.append(SseEvent("", self._bytes[self._start : at], self._bytes[:at]))
                    self._bytes = self._bytes[at:]
                    at = 0
            self._at = at

    def finish(self) -> list[SseEvent]:
        """The end of the array."""
        rest, self._bytes, self._at = self._bytes, b"", 0
        return [SseEvent("", b"", rest)] if rest else []
