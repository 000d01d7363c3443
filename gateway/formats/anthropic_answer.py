"""What an Anthropic answer says it used, as one message or as its stream of events."""

from __future__ import annotations

from typing import Any

from gateway.formats.answers import figure, mapping, objects, read_document, text_of
from policies.usage import Usage

_DELTA = b'"content_block_delta"'


class AnthropicTally:
    """Reads message objects (``type: message``) and stream events alike.

    The API splits the input in three: `input_tokens` there is only what was neither read from nor written to the
    cache, so the sum of the three is the prompt. ``message_delta`` repeats figures cumulatively, and some servers
    correct the input there.
    """

    __slots__ = ("_complete", "_deltas", "_figures", "_seen", "_texts")

    def __init__(self) -> None:
        self._figures: dict[str, Any] = {}
        self._seen = False
        self._complete = False
        self._deltas: list[bytes] = []
        self._texts: list[str] = []

    def read(self, document: bytes) -> None:
        if _DELTA in document[:64]:
            self._deltas.append(document)  # parsed only if the text is ever asked for
            return
        event = read_document(document)
        match event.get("type"):
            case "message":
                self._read_message(event)
                self._complete = True
            case "message_start":
                self._read_message(mapping(event.get("message")))
            case "message_delta":
                self._take(event.get("usage"))
            case "message_stop":
                self._complete = True
            case "content_block_start":
                self._read_text()
                self._read_block(mapping(event.get("content_block")))
            case "content_block_delta":
                self._deltas.append(document)

    def _read_message(self, message: dict[str, Any]) -> None:
        self._take(message.get("usage"))
        for block in objects(message.get("content")):
            self._read_block(block)

    def _take(self, usage: object) -> None:
        if type(usage) is dict:
            self._seen = True
            self._figures.update({name: value for name, value in usage.items() if value is not None})

    def _read_block(self, block: dict[str, Any]) -> None:
        for name in ("text", "thinking", "name"):
            self._texts.append(text_of(block.get(name)))
        if block.get("input"):
            self._texts.append(text_of(block["input"]))

    def _read_text(self) -> None:
        for document in self._deltas:
            delta = mapping(read_document(document).get("delta"))
            for name in ("text", "partial_json", "thinking"):
                self._texts.append(text_of(delta.get(name)))
        self._deltas.clear()

    @property
    def usage(self) -> Usage | None:
        if not self._seen:
            return None
        # A turn that was compacted on the way lists its passes, which the top-level figures leave out.
        passes = objects(self._figures.get("iterations"))
        whole = _add_up(self._figures)
        listed = tuple(sum(figures) for figures in zip(*map(_add_up, passes), strict=True)) if passes else whole
        used_input, output, cached = max(whole, listed, key=lambda figures: figures[0] + figures[1])
        details = mapping(self._figures.get("output_tokens_details"))
        return Usage(used_input, output, cached_tokens=cached, reasoning_tokens=figure(details, "thinking_tokens"))

    @property
    def complete(self) -> bool:
        return self._complete

    @property
    def output_text(self) -> str:
        self._read_text()
        self._texts = ["".join(self._texts)]
        return self._texts[0]


def _add_up(usage: dict[str, Any]) -> tuple[int, ...]:
    """(input, output, cached) of one usage block."""
    cached = figure(usage, "cache_read_input_tokens")
    fresh = figure(usage, "input_tokens") + figure(usage, "cache_creation_input_tokens")
    return fresh + cached, figure(usage, "output_tokens"), cached
