"""Listening to an answer as it passes: one JSON document or an event stream, whole or cut off.

A format derives from `AnswerReader` and says what its documents and events mean. Nothing an upstream
sends can make a reader raise: what cannot be read is relayed and ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.formats.sse import SseEvent, SseSplitter
from policies.usage import Usage

MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
"""A JSON answer longer than this is relayed but not kept for reading."""
_MAX_FIGURE = 2**40
"""A token figure past this is garbage; stores keep 64-bit integers."""


def figure(source: object, *path: str) -> int | None:
    """A token figure found by walking objects by key; None unless it is a whole number >= 0 that can be true."""
    for key in path:
        if type(source) is not dict:
            return None
        source = source.get(key)
    if type(source) is float and source.is_integer():
        source = int(source)
    return source if type(source) is int and 0 <= source <= _MAX_FIGURE else None


def is_event_stream(*, content_type: str, stream: bool) -> bool:
    """Whether an answer is read as events: its content type says so, or says nothing and events were asked for."""
    content_type = content_type.lower()
    return "event-stream" in content_type or (stream and "json" not in content_type)


class AnswerReader:
    """The `UsageReader` all formats share. Derived classes set `_usage`, `_complete` and add to `_texts`.

    `failed` says that the answer is an error (status >= 400): it is relayed and nothing is read from it.
    """

    def __init__(self, *, events: bool, failed: bool = False, hide_usage: bool = False) -> None:
        self._splitter = SseSplitter() if events else None
        self._failed = failed
        self._hide_usage = hide_usage and events
        self._usage: Usage | None = None
        self._complete = False
        self._texts: list[str] = []
        self._document: list[bytes] = []
        self._document_size = 0
        self._document_read = False

    @property
    def usage(self) -> Usage | None:
        return self._usage

    @property
    def complete(self) -> bool:
        return self._complete

    @property
    def output_text(self) -> str:
        if self._document and not self._document_read:  # cut off: the JSON itself bounds what it says from above
            return b"".join(self._document).decode("utf-8", "replace")
        return "".join(self._texts)

    def output_since(self, piece: int) -> list[str]:
        return self._texts[piece:]

    def feed(self, chunk: bytes) -> bytes:
        if self._failed:
            return chunk
        if self._splitter is None:
            self._document_size += len(chunk)
            if self._document_size <= MAX_DOCUMENT_BYTES:
                self._document.append(chunk)
            return chunk
        relayed = self._read_events(self._splitter.feed(chunk))
        return relayed if self._hide_usage else chunk

    def finish(self) -> bytes:
        if self._failed:
            return b""
        if self._splitter is not None:
            relayed = self._read_events(self._splitter.finish())
            return relayed if self._hide_usage else b""
        if not self._document_read and self._document_size <= MAX_DOCUMENT_BYTES:
            document = _read(b"".join(self._document))
            if document is not None:
                self._document_read = True
                self._document.clear()
                self._take_document(document)
        return b""

    def _read_events(self, events: list[SseEvent]) -> bytes:
        relayed = []
        for event in events:
            hidden = False
            if event.data == b"[DONE]":
                self._take_end()
            elif event.data:
                document = _read(event.data)
                if document is not None:
                    hidden = self._take_event(event.event, document)
            if self._hide_usage and not hidden:
                relayed.append(event.raw)
        return b"".join(relayed)

    def _take_document(self, document: dict[str, Any]) -> None:
        """The whole answer of a call that did not stream."""
        raise NotImplementedError

    def _take_event(self, name: str, document: dict[str, Any]) -> bool:
        """One event; returns whether it must be hidden from a caller who did not ask for usage."""
        raise NotImplementedError

    def _take_end(self) -> None:
        """The ``[DONE]`` of the APIs that end a stream with it."""
        self._complete = True

    def _add_text(self, source: Mapping[str, Any], *names: str) -> None:
        for name in names:
            value = source.get(name)
            if type(value) is str and value:
                self._texts.append(value)


def objects(value: object) -> list[dict[str, Any]]:
    """The objects in an array that an upstream sent; nothing else."""
    return [item for item in value if type(item) is dict] if type(value) is list else []


def _read(data: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return value if type(value) is dict else None
