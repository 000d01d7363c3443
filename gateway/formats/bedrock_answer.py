"""What a Bedrock answer says it used: Converse's JSON, each model family's own JSON, and AWS's binary event stream."""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Any

import orjson

from gateway.formats.listening import MAX_DOCUMENT_BYTES, AnswerReader, figure, objects
from policies.usage import Usage

_PRELUDE = struct.Struct(">II")
_MIN_FRAME_BYTES = 16
"""Prelude (total length, headers length), its checksum, and the message's checksum:
the "application/vnd.amazon.eventstream" encoding of the AWS SDK developer guides."""

_INPUT_NAMES = ("inputTokens", "input_tokens", "prompt_tokens", "prompt_token_count", "inputTextTokenCount")
_OUTPUT_NAMES = ("outputTokens", "output_tokens", "completion_tokens", "generation_token_count", "tokenCount")
_CACHE_READ_NAMES = ("cacheReadInputTokens", "cacheReadInputTokenCount", "cache_read_input_tokens")
_CACHE_WRITE_NAMES = ("cacheWriteInputTokens", "cacheWriteInputTokenCount", "cache_creation_input_tokens")
_TEXT_NAMES = ("text", "generation", "outputText", "completion", "partial_json", "thinking", "input", "name")


class BedrockReader(AnswerReader):
    """Reads a JSON answer of Converse or InvokeModel; Converse's `inputTokens` leaves out what the cache held."""

    def __init__(self, *, failed: bool = False) -> None:
        super().__init__(events=False, failed=failed)

    def _take_document(self, document: dict[str, Any]) -> None:
        usage = document.get("usage")
        results = objects(document.get("results"))
        self._take_usage(usage if type(usage) is dict else document | (results[0] if results else {}))
        self._take_texts(document)
        self._complete = True

    def _take_usage(self, usage: dict[str, Any]) -> None:
        read, written = _first(usage, _INPUT_NAMES), _first(usage, _OUTPUT_NAMES)
        if read is None and written is None:
            return
        before = self._usage or Usage(0, 0)
        cached = _first(usage, _CACHE_READ_NAMES) or 0
        read = (read or 0) + cached + (_first(usage, _CACHE_WRITE_NAMES) or 0)
        self._usage = Usage(
            max(before.input_tokens, read),
            max(before.output_tokens, written or 0),
            cached_tokens=max(before.cached_tokens, cached),
        )

    def _take_texts(self, value: object) -> None:
        level = [value]
        while level:
            node = level.pop()
            if type(node) is dict:
                self._add_text(node, *_TEXT_NAMES)
                level.extend(reversed(node.values()))
            elif type(node) is list:
                level.extend(reversed(node))


class BedrockStreamReader(BedrockReader):
    """Reads the binary frames of converse-stream and invoke-with-response-stream."""

    def __init__(self, *, failed: bool = False) -> None:
        super().__init__(failed=failed)
        self._pending = b""
        self._lost = False
        """A frame could not be read: from there on the bytes are only relayed."""

    def feed(self, chunk: bytes) -> bytes:
        if self._failed or self._lost:
            return chunk
        data = self._pending + chunk
        start = 0
        while len(data) - start >= _MIN_FRAME_BYTES:
            size, headers_size = _PRELUDE.unpack_from(data, start)
            if not _MIN_FRAME_BYTES + headers_size <= size <= MAX_DOCUMENT_BYTES:
                self._lost = True
                self._pending = b""
                return chunk
            if len(data) - start < size:
                break
            self._take_frame(data[start + 12 + headers_size : start + size - 4])
            start += size
        self._pending = data[start:]
        return chunk

    def finish(self) -> bytes:
        return b""

    def _take_frame(self, payload: bytes) -> None:
        event = _load(payload)
        wrapped = event.get("bytes")
        if type(wrapped) is str:  # InvokeModel wraps the model's own event
            try:
                event = _load(base64.b64decode(wrapped))
            except (binascii.Error, ValueError):
                return
        metrics = event.get("amazon-bedrock-invocationMetrics")
        if type(metrics) is dict:
            counted = {"inputTokens": metrics.get("inputTokenCount"), "outputTokens": metrics.get("outputTokenCount")}
            self._take_usage(metrics | counted)
            self._complete = True
        message = event.get("message")
        for holder in (event, message if type(message) is dict else {}):
            usage = holder.get("usage")
            if type(usage) is dict:
                self._take_usage(usage)
        if "usage" in event and "metrics" in event:  # Converse's last event, ``metadata``
            self._complete = True
        self._take_texts(
            {name: event.get(name) for name in ("delta", "start", "content_block", "choices", "outputText")}
        )
        self._add_text(event, "generation")


def _load(data: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return value if type(value) is dict else {}


def _first(usage: dict[str, Any], names: tuple[str, ...]) -> int | None:
    return next((found for name in names if (found := figure(usage, name)) is not None), None)
