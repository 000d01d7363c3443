"""Ending OpenAI's streams early: chat completions, completions, responses."""

from __future__ import annotations

from typing import Any

from gateway.formats.base import Call
from gateway.formats.early_end import EarlyEnd, write_event
from gateway.formats.listening import objects
from gateway.formats.sse import SseSplitter
from policies.usage import Usage

_HEAD = ("id", "object", "created", "model", "service_tier", "system_fingerprint")
_DONE = b"data: [DONE]\n\n"


class ChoicesEarlyEnd(EarlyEnd):
    """Every open choice gets ``finish_reason: length``; the usage chunk follows where the caller asked for it."""

    def __init__(self, call: Call, *, kind: str, empty: dict[str, Any]) -> None:
        super().__init__(SseSplitter())
        self._head: dict[str, Any] = {"id": "", "object": kind, "created": 0, "model": call.model}
        self._empty = empty
        self._open = set(range(call.choices))
        self._wants_usage = call.wants_usage

    def _take(self, document: dict[str, Any]) -> None:
        self._head |= {name: document[name] for name in _HEAD if name in document}
        for choice in objects(document.get("choices")):
            if choice.get("finish_reason") is not None:
                self._open.discard(choice.get("index", 0))

    def closing(self, usage: Usage) -> bytes:
        ends = [
            {**self._head, "choices": [{"index": index, **self._empty, "logprobs": None, "finish_reason": "length"}]}
            for index in sorted(self._open)
        ]
        if self._wants_usage:
            figures = {
                "prompt_tokens": usage.input_tokens,
                "completion_tokens": usage.output_tokens,
                "total_tokens": usage.input_tokens + usage.output_tokens,
            }
            ends.append({**self._head, "choices": [], "usage": figures})
        return b"".join(map(write_event, ends)) + _DONE


class ResponsesEarlyEnd(EarlyEnd):
    """What is open is done as ``incomplete``, then ``response.incomplete`` says ``max_output_tokens``."""

    def __init__(self, call: Call) -> None:
        super().__init__(SseSplitter())
        self._response: dict[str, Any] = {"id": "", "object": "response", "model": call.model}
        self._number = -1
        self._items: dict[int, dict[str, Any]] = {}
        self._texts: dict[tuple[int, int], list[str]] = {}
        self._arguments: dict[int, list[str]] = {}
        self._done: set[int] = set()

    def _take(self, document: dict[str, Any]) -> None:
        number, kind = document.get("sequence_number"), document.get("type")
        if type(number) is int:
            self._number = max(self._number, number)
        index, item = document.get("output_index"), document.get("item")
        index = index if type(index) is int else 0
        if kind in ("response.created", "response.in_progress") and type(document.get("response")) is dict:
            self._response |= document["response"]
        elif kind in ("response.output_item.added", "response.output_item.done") and type(item) is dict:
            self._items[index] = item
            if kind.endswith(".done"):
                self._done.add(index)
        elif kind in ("response.output_text.delta", "response.refusal.delta"):
            part = document.get("content_index")
            self._texts.setdefault((index, part if type(part) is int else 0), []).append(str(document.get("delta")))
        elif kind in ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta"):
            self._arguments.setdefault(index, []).append(str(document.get("delta")))

    def closing(self, usage: Usage) -> bytes:
        events: list[bytes] = []
        for index in sorted(self._items.keys() - self._done):
            self._close(index, events)
        response = {
            **self._response,
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": [self._items[index] for index in sorted(self._items)],
            "usage": {
                "input_tokens": usage.input_tokens,
                "input_tokens_details": {"cached_tokens": usage.cached_tokens},
                "output_tokens": usage.output_tokens,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
                "total_tokens": usage.input_tokens + usage.output_tokens,
            },
        }
        self._write(events, "response.incomplete", response=response)
        return b"".join(events)

    def _close(self, index: int, events: list[bytes]) -> None:
        item = self._items[index] = {**self._items[index], "status": "incomplete"}
        item_id = item.get("id")
        if item.get("type") == "message":
            item["content"] = parts = []
            for place in sorted(place for place in self._texts if place[0] == index):
                text = "".join(self._texts[place])
                at = {"item_id": item_id, "output_index": index, "content_index": place[1]}
                part = {"type": "output_text", "text": text, "annotations": []}
                self._write(events, "response.output_text.done", **at, text=text, logprobs=[])
                self._write(events, "response.content_part.done", **at, part=part)
                parts.append(part)
        elif index in self._arguments:
            name = "input" if item.get("type") == "custom_tool_call" else "arguments"
            item[name] = "".join(self._arguments[index])
        self._write(events, "response.output_item.done", output_index=index, item=item)

    def _write(self, events: list[bytes], kind: str, **fields: Any) -> None:
        self._number += 1
        events.append(write_event({"type": kind, "sequence_number": self._number, **fields}, name=kind))
