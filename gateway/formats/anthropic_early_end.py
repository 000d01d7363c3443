"""Ending Anthropic's streams early."""

from __future__ import annotations

from typing import Any

from gateway.formats.base import Call
from gateway.formats.early_end import EarlyEnd, write_event
from gateway.formats.sse import SseSplitter
from policies.usage import Usage


class AnthropicEarlyEnd(EarlyEnd):
    """Open blocks are stopped, then the message: ``stop_reason: max_tokens``."""

    def __init__(self, call: Call) -> None:
        super().__init__(SseSplitter())
        self._model = call.model
        self._started = False
        self._open: dict[int, None] = {}

    def _take(self, document: dict[str, Any]) -> None:
        index = document.get("index")
        match document.get("type"):
            case "message_start":
                self._started = True
            case "content_block_start" if type(index) is int:
                self._open[index] = None
            case "content_block_stop" if type(index) is int:
                self._open.pop(index, None)

    def closing(self, usage: Usage) -> bytes:
        events: list[dict[str, Any]] = []
        if not self._started:
            figures = {"input_tokens": usage.input_tokens, "output_tokens": 0}
            message: dict[str, Any] = {
                "id": "",
                "type": "message",
                "role": "assistant",
                "model": self._model,
                "content": [],
            }
            message |= {"stop_reason": None, "stop_sequence": None, "usage": figures}
            events.append({"type": "message_start", "message": message})
        events += [{"type": "content_block_stop", "index": index} for index in self._open]
        delta = {"stop_reason": "max_tokens", "stop_sequence": None}
        events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": usage.output_tokens}})
        events.append({"type": "message_stop"})
        return b"".join(write_event(event, name=event["type"]) for event in events)
