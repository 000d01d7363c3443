"""Ending Gemini's streams early: server-sent events, or one JSON array."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.formats.base import Call
from gateway.formats.early_end import EarlyEnd, ElementSplitter, write_event
from gateway.formats.listening import objects
from gateway.formats.sse import SseSplitter
from policies.usage import Usage


class GeminiEarlyEnd(EarlyEnd):
    """Every open candidate gets ``finishReason: MAX_TOKENS``."""

    def __init__(self, call: Call, *, events: bool) -> None:
        super().__init__(SseSplitter() if events else ElementSplitter())
        self._events = events
        self._open = set(range(call.choices))
        self._about: dict[str, Any] = {"modelVersion": call.model}
        self._begun = False

    def _take(self, document: dict[str, Any]) -> None:
        self._begun = True
        self._about |= {name: document[name] for name in ("modelVersion", "responseId") if name in document}
        for candidate in objects(document.get("candidates")):
            if candidate.get("finishReason"):
                self._open.discard(candidate.get("index", 0))

    def closing(self, usage: Usage) -> bytes:
        content = {"parts": [{"text": ""}], "role": "model"}
        document = {
            "candidates": [
                {"content": content, "finishReason": "MAX_TOKENS", "index": index} for index in sorted(self._open)
            ],
            "usageMetadata": {
                "promptTokenCount": usage.input_tokens,
                "candidatesTokenCount": usage.output_tokens,
                "totalTokenCount": usage.input_tokens + usage.output_tokens,
            },
            **self._about,
        }
        if self._events:
            return write_event(document, end=b"\r\n\r\n")
        return (b",\r\n" if self._begun else b"[") + orjson.dumps(document) + b"\n]"
