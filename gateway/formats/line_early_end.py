"""Ending the streams of Ollama and Cohere early."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.formats.base import Call
from gateway.formats.early_end import EarlyEnd, write_event
from gateway.formats.ndjson import LineSplitter
from gateway.formats.sse import SseSplitter
from policies.usage import Usage


class OllamaEarlyEnd(EarlyEnd):
    """The last line says ``done_reason: length``."""

    def __init__(self, call: Call) -> None:
        super().__init__(LineSplitter())
        self._head: dict[str, Any] = {"model": call.model}
        self._empty: dict[str, Any] = {"message": {"role": "assistant", "content": ""}}

    def _take(self, document: dict[str, Any]) -> None:
        self._head |= {name: document[name] for name in ("model", "created_at") if name in document}
        if "response" in document:
            self._empty = {"response": ""}

    def closing(self, usage: Usage) -> bytes:
        counts = {"prompt_eval_count": usage.input_tokens, "eval_count": usage.output_tokens}
        return orjson.dumps({**self._head, **self._empty, "done": True, "done_reason": "length", **counts}) + b"\n"


class CohereEarlyEnd(EarlyEnd):
    """Version 2's events end with ``message-end``, version 1's lines with ``stream-end``: ``MAX_TOKENS``."""

    def __init__(self, *, lines: bool) -> None:
        super().__init__(LineSplitter() if lines else SseSplitter())
        self._lines = lines
        self._open: dict[int, str] = {}
        self._texts: list[str] = []

    def _take(self, document: dict[str, Any]) -> None:
        kind, index = document.get("type"), document.get("index")
        if type(index) is int and kind in ("content-start", "tool-call-start"):
            self._open[index] = kind.replace("start", "end")
        elif type(index) is int and kind in ("content-end", "tool-call-end"):
            self._open.pop(index, None)
        elif document.get("event_type") == "text-generation":
            self._texts.append(str(document.get("text")))

    def closing(self, usage: Usage) -> bytes:
        units = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
        figures = {"billed_units": units, "tokens": units}
        if self._lines:
            response = {"text": "".join(self._texts), "finish_reason": "MAX_TOKENS", "meta": figures}
            end = {"is_finished": True, "event_type": "stream-end", "finish_reason": "MAX_TOKENS", "response": response}
            return orjson.dumps(end) + b"\n"
        events: list[dict[str, Any]] = [{"type": kind, "index": index} for index, kind in self._open.items()]
        events.append({"type": "message-end", "delta": {"finish_reason": "MAX_TOKENS", "usage": figures}})
        return b"".join(write_event(event, name=event["type"]) for event in events)
