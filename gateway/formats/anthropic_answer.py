"""What an Anthropic answer says it used, as one message or as its stream of events."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.formats.listening import AnswerReader, figure, objects
from policies.usage import Usage


class AnthropicReader(AnswerReader):
    """Reads a message object or the events of its stream.

    The API splits the input in three: `input_tokens` there is only what was neither read from nor written to the
    cache, so the sum of the three is the prompt. ``message_delta`` repeats figures cumulatively, and some servers
    correct the input there.
    """

    def __init__(self, *, events: bool, failed: bool = False) -> None:
        super().__init__(events=events, failed=failed)
        self._figures: dict[str, Any] = {}

    def _take_document(self, document: dict[str, Any]) -> None:
        self._take_message(document)
        self._complete = document.get("type") == "message"

    def _take_event(self, name: str, document: dict[str, Any]) -> bool:
        match document.get("type"):
            case "content_block_delta":
                delta = document.get("delta")
                if type(delta) is dict:
                    self._add_text(delta, "text", "partial_json", "thinking")
            case "content_block_start":
                self._take_block(document.get("content_block"))
            case "message_start":
                self._take_message(document.get("message"))
            case "message_delta":
                self._take_usage(document.get("usage"))
            case "message_stop":
                self._complete = True
        return False

    def _take_message(self, message: object) -> None:
        if type(message) is dict:
            self._take_usage(message.get("usage"))
            for block in objects(message.get("content")):
                self._take_block(block)

    def _take_usage(self, usage: object) -> None:
        if type(usage) is not dict:
            return
        self._figures.update({name: value for name, value in usage.items() if value is not None})
        # A turn that was compacted on the way lists its passes, which the top-level figures leave out.
        passes = [_add_up(one) for one in objects(self._figures.get("iterations"))]
        listed = [sum(figures) for figures in zip(*passes, strict=True)] or [0, 0, 0]
        read, written, cached = max(_add_up(self._figures), listed, key=lambda sums: sums[0] + sums[1])
        thinking = figure(self._figures, "output_tokens_details", "thinking_tokens") or 0
        self._usage = Usage(read, written, cached_tokens=cached, reasoning_tokens=thinking)

    def _take_block(self, block: object) -> None:
        if type(block) is dict:
            self._add_text(block, "text", "thinking", "name")
            if block.get("input"):
                self._texts.append(orjson.dumps(block["input"]).decode())


def _add_up(usage: dict[str, Any]) -> list[int]:
    """Input, output and cached tokens of one usage block."""
    cached = figure(usage, "cache_read_input_tokens") or 0
    fresh = (figure(usage, "input_tokens") or 0) + (figure(usage, "cache_creation_input_tokens") or 0)
    return [fresh + cached, figure(usage, "output_tokens") or 0, cached]
