"""How long laying a prompt out will take, told from its size: an upper estimate that is itself quick to make.

Laying out runs on the event loop for a small prompt and in a thread for a large one. Text that is new is bounded
apart from this, when it is counted; here it is the messages, the schemas and the files that take time.
"""

from __future__ import annotations

from typing import Any

import orjson

from tokenizers_offline.prompt import (
    ChatPrompt,
    MediaPart,
    OpaquePart,
    Part,
    Prompt,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)

_MESSAGE_US = {"jinja": 20.0}
_OTHER_MESSAGE_US = 5.0
"""Measured with 1,000 messages (Python 3.11, two shared cores): 16 us in Qwen 3's template, 1 to 4 us elsewhere."""
_CHARACTER_US = {"openai": 0.002, "gemini": 0.002}
_OTHER_CHARACTER_US = 0.008
"""Claude's shape of a text, and the search for what looks like a special token, are a few passes over it."""
_JSON_CHARACTER_US = 0.03
_IMAGE_US = 60.0
_DOCUMENT_US = 10_000.0
"""A PDF is searched for its pages and inflated: up to tens of milliseconds, whatever its length says."""
_MULTIPLYING_REFERENCES = 2
_UNBOUNDED_US = 40_000.0
"""A schema whose `$ref`s point back at it is written out until a limit of thousands of types."""


def layout_us(prompt: Prompt, layout: str, *, enough: float) -> float:
    """About how many microseconds `layout` needs for a prompt, rather more than fewer.

    Stops adding once it is past `enough`, so that its own cost is bounded.
    """
    if not isinstance(prompt, ChatPrompt):
        return 0.0
    total = len(prompt.messages) * _MESSAGE_US.get(layout, _OTHER_MESSAGE_US)
    character_us = _CHARACTER_US.get(layout, _OTHER_CHARACTER_US)
    for message in prompt.messages:
        if total > enough:
            return total
        for part in message.parts:
            total += len(part.text) * character_us if type(part) is TextPart else _part_us(part, character_us)
    for tool in prompt.tools:
        if total > enough:
            return total
        total += _schema_us(tool.parameters)
    if prompt.output_schema is not None:
        total += _schema_us(prompt.output_schema.schema)
    return total


def _part_us(part: Part, character_us: float) -> float:
    match part:
        case TextPart():
            return len(part.text) * character_us
        case ThinkingPart():
            return (len(part.text) + len(part.opaque)) * character_us
        case ToolCallPart():
            return 10.0 + _json_us(part.arguments)
        case ToolResultPart():
            return 10.0 + sum(_part_us(inner, character_us) for inner in part.parts) + _json_us(part.response)
        case MediaPart(kind="document"):
            return _DOCUMENT_US if part.data else _IMAGE_US
        case MediaPart():
            return _IMAGE_US
        case OpaquePart():
            return _json_us(part.raw)


def _json_us(value: Any) -> float:
    """The cost of a JSON value, or of a text that holds one."""
    if value is None:
        return 0.0
    return len(value if isinstance(value, str) else _written(value)) * _JSON_CHARACTER_US


def _schema_us(schema: Any) -> float:
    if not schema:
        return 1.0
    written = _written(schema)
    if not written or written.count(b'"$ref"') >= _MULTIPLYING_REFERENCES:
        return _UNBOUNDED_US
    return len(written) * _JSON_CHARACTER_US


def _written(value: Any) -> bytes:
    """The value as JSON, which says its size at the price of a copy; b"" when it is too strange to be written."""
    try:
        return orjson.dumps(value)
    except TypeError:  # nested beyond what orjson writes, or a lone surrogate
        return b""
