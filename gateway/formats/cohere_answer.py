"""What a Cohere answer says it used: one document, version 2's events or version 1's lines."""

from __future__ import annotations

from typing import Any

from gateway.formats.listening import figure, objects
from gateway.formats.ndjson import LineReader
from policies.usage import Usage


def read_cohere_usage(block: object) -> Usage | None:
    """``usage`` (version 2) or ``meta`` (version 1). ``tokens`` is all that the model read and wrote;
    ``billed_units`` leaves out Cohere's own preamble and is taken where it stands alone."""
    for name in ("tokens", "billed_units"):
        given = figure(block, name, "input_tokens")
        output = figure(block, name, "output_tokens")
        if given is not None or output is not None:
            return Usage(
                input_tokens=(given or 0) + (figure(block, name, "image_tokens") or 0),
                output_tokens=output or 0,
                cached_tokens=min(figure(block, "cached_tokens") or 0, given or 0),
                reasoning_tokens=figure(block, name, "reasoning_tokens") or 0,
            )
    return None


class CohereReader(LineReader):
    """Reads chat (both versions), generate and embed answers."""

    def _take_document(self, document: dict[str, Any]) -> None:
        self._usage = read_cohere_usage(document.get("usage")) or read_cohere_usage(document.get("meta"))
        self._complete = self._usage is not None or "id" in document
        self._add_text(document, "text")
        self._add_message(document.get("message"))
        for generation in objects(document.get("generations")):
            self._add_text(generation, "text")
        for call in objects(document.get("tool_calls")):
            self._add_text(call, "name")

    def _take_event(self, name: str, document: dict[str, Any]) -> bool:
        delta = document.get("delta")
        if type(delta) is dict:
            self._usage = read_cohere_usage(delta.get("usage")) or self._usage
            self._add_message(delta.get("message"))
        kind = document.get("type") or document.get("event_type")
        if kind == "message-end":
            self._complete = True
        elif kind == "stream-end":
            response = document.get("response")
            if type(response) is dict:
                self._usage = read_cohere_usage(response.get("meta")) or self._usage
            self._complete = True
        elif kind in ("text-generation", "tool-calls-chunk"):
            self._add_text(document, "text")
        return False

    def _add_message(self, message: object) -> None:
        """A whole message or a piece of one: in pieces, content and tool calls are objects instead of arrays."""
        if type(message) is not dict:
            return
        self._add_text(message, "tool_plan")
        content = message.get("content")
        for part in [content] if type(content) is dict else objects(content):
            self._add_text(part, "text", "thinking")
        calls = message.get("tool_calls")
        for call in [calls] if type(calls) is dict else objects(calls):
            function = call.get("function")
            if type(function) is dict:
                self._add_text(function, "name", "arguments")
