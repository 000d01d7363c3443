"""Token figures in the usage blocks of OpenAI-compatible servers."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import orjson

from gateway.formats.listening import AnswerReader, figure, objects
from policies.usage import Usage


def read_chat_usage(block: object) -> Usage | None:
    """``usage`` of chat completions, completions and embeddings; None when it names no prompt tokens.

    xAI and Gemini's compatible endpoint leave reasoning out of ``completion_tokens`` but not out of
    ``total_tokens``, so the total decides when it says more. DeepSeek names cached tokens
    ``prompt_cache_hit_tokens``.
    """
    given = figure(block, "prompt_tokens")
    if given is None:
        return None
    output = figure(block, "completion_tokens") or 0
    total = figure(block, "total_tokens") or 0
    cached = figure(block, "prompt_tokens_details", "cached_tokens") or figure(block, "prompt_cache_hit_tokens") or 0
    return Usage(
        input_tokens=given,
        output_tokens=max(output, total - given),
        cached_tokens=min(cached, given),
        reasoning_tokens=figure(block, "completion_tokens_details", "reasoning_tokens") or 0,
    )


def read_responses_usage(block: object) -> Usage | None:
    """``usage`` of the responses API; None when it names no input tokens."""
    given = figure(block, "input_tokens")
    if given is None:
        return None
    return Usage(
        input_tokens=given,
        output_tokens=figure(block, "output_tokens") or 0,
        cached_tokens=min(figure(block, "input_tokens_details", "cached_tokens") or 0, given),
        reasoning_tokens=figure(block, "output_tokens_details", "reasoning_tokens") or 0,
    )


class ChatAnswerReader(AnswerReader):
    """Reads answers that carry ``choices``: chat completions and completions."""

    def _take_document(self, document: dict[str, Any]) -> None:
        self._usage = read_chat_usage(document.get("usage"))
        self._complete = "error" not in document
        for choice in objects(document.get("choices")):
            self._add_choice(choice, "message")

    def _take_event(self, name: str, document: dict[str, Any]) -> bool:
        block = document.get("usage")
        if block is None and type(document.get("x_groq")) is dict:  # Groq's own place for it in streams
            block = document["x_groq"].get("usage")
        usage = read_chat_usage(block)
        if usage is not None:
            self._usage = usage
        for choice in objects(document.get("choices")):
            self._add_choice(choice, "delta")
        return usage is not None and document.get("choices") == []

    def _add_choice(self, choice: dict[str, Any], key: str) -> None:
        self._add_text(choice, "text")
        message = choice.get(key)
        if type(message) is not dict:
            return
        self._add_text(message, "content", "refusal")
        if type(message.get("reasoning_content")) is str:
            self._add_text(message, "reasoning_content")
        else:
            self._add_text(message, "reasoning")
        calls = [call.get("function") or call.get("custom") for call in objects(message.get("tool_calls"))]
        for call in objects([*calls, message.get("function_call")]):
            self._add_text(call, "name", "arguments", "input")


_END_BYTES = 4096
_USAGE_BLOCK = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')


class EmbeddingsAnswerReader:
    """Reads the `usage` of embeddings from either end of the answer: megabytes of numbers are neither kept nor parsed.

    Embeddings hold no text of the caller's, so that nothing else in them can look like the block.
    """

    output_text = ""

    def __init__(self, *, failed: bool) -> None:
        self._failed = failed
        self._head = b""
        self._tail = b""
        self._usage: Usage | None = None
        self._complete = False

    @property
    def usage(self) -> Usage | None:
        return self._usage

    @property
    def complete(self) -> bool:
        return self._complete

    def output_since(self, piece: int) -> list[str]:
        return []

    def feed(self, chunk: bytes) -> bytes:
        if len(self._head) < _END_BYTES:
            self._head += chunk[: _END_BYTES - len(self._head)]
        self._tail = (self._tail + chunk[-_END_BYTES:])[-_END_BYTES:]
        return chunk

    def finish(self) -> bytes:
        if not self._failed:
            self._complete = self._tail.rstrip().endswith(b"}")
            for end in (self._tail, self._head):
                block = _USAGE_BLOCK.search(end)
                if block is not None and self._usage is None:
                    with suppress(orjson.JSONDecodeError):
                        self._usage = read_chat_usage(orjson.loads(block[1]))
        return b""


_FINAL_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed"})
_FINAL_STATES = frozenset({"completed", "incomplete", "failed", "cancelled"})


class ResponsesAnswerReader(AnswerReader):
    """Reads answers of the responses API. A background response that is only queued is not complete."""

    def _take_document(self, document: dict[str, Any]) -> None:
        self._usage = read_responses_usage(document.get("usage"))
        self._complete = document.get("status", "completed") in _FINAL_STATES
        for item in objects(document.get("output")):
            self._add_text(item, "name", "arguments", "input")
            for part in (*objects(item.get("content")), *objects(item.get("summary"))):
                self._add_text(part, "text", "refusal")

    def _take_event(self, name: str, document: dict[str, Any]) -> bool:
        kind = document.get("type")
        if type(kind) is not str:
            return False
        if kind.endswith(".delta"):
            self._add_text(document, "delta")
        elif kind == "response.output_item.added":
            item = document.get("item")
            if type(item) is dict:
                self._add_text(item, "name")
        elif kind in _FINAL_EVENTS:
            response = document.get("response")
            self._usage = read_responses_usage(response.get("usage")) if type(response) is dict else None
            self._complete = True
        return False
