"""A chat prompt as open models' servers see it: OpenAI-shaped messages, whatever API it came in through."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tokenizers_offline.prompt import (
    ChatPrompt,
    MediaPart,
    Message,
    OpaquePart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
    ToolSpec,
)

_ROLES = {"model": "assistant", "function": "tool", "developer": "system", "ai": "assistant", "human": "user"}


@dataclass(frozen=True, slots=True)
class Turn:
    """One message with everything a chat template may ask for.

    `content` is its text (parts joined), `media` what else it shows, `reasoning` the thinking sent back.
    `call_id` and `name` belong to a tool's answer. `parts` keeps text and media in order for templates
    that lay media out themselves.
    """

    role: str
    content: str
    reasoning: str = ""
    calls: tuple[ToolCallPart, ...] = ()
    call_id: str = ""
    name: str = ""
    parts: tuple[TextPart | MediaPart, ...] = ()
    has_media: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


def turns(prompt: ChatPrompt, *, keep_developer: bool = False) -> list[Turn]:
    """The conversation, one turn for each message and each tool's answer, in order."""
    names: dict[str, str] = {}
    found: list[Turn] = []
    for message in prompt.messages:
        found.extend(_turns_of(message, names, keep_developer=keep_developer))
    return found


def _turns_of(message: Message, names: dict[str, str], *, keep_developer: bool) -> Iterator[Turn]:
    role = message.role.lower()
    if not (keep_developer and role == "developer"):
        role = _ROLES.get(role, role)
    parts = message.parts
    if len(parts) == 1 and type(parts[0]) is TextPart:  # most of a conversation, told apart early for speed
        yield Turn(role, parts[0].text, name=message.name, parts=(parts[0],), extra=dict(message.extra))
        return
    shown: list[TextPart | MediaPart] = []
    reasoning: list[str] = []
    calls: list[ToolCallPart] = []
    answered = False
    for part in message.parts:
        match part:
            case TextPart() | MediaPart():
                shown.append(part)
            case ThinkingPart():
                reasoning.append(part.text)
            case ToolCallPart():
                calls.append(part)
                names[part.call_id] = part.name
            case ToolResultPart():
                answered = True
                yield _answer(part, names)
            case OpaquePart():
                pass  # labelled where the prompt's features are read
    if shown or reasoning or calls or not answered:
        yield Turn(
            role=role,
            content="".join(part.text for part in shown if isinstance(part, TextPart)),
            reasoning="".join(reasoning),
            calls=tuple(calls),
            name=message.name,
            parts=tuple(shown),
            has_media=any(isinstance(part, MediaPart) for part in shown),
            extra=dict(message.extra),
        )


def _answer(part: ToolResultPart, names: dict[str, str]) -> Turn:
    shown = tuple(p for p in part.parts if isinstance(p, TextPart | MediaPart))
    content = "".join(p.text for p in shown if isinstance(p, TextPart))
    if not shown and part.response is not None:
        content = part.response if isinstance(part.response, str) else compact(part.response)
    return Turn(
        role="tool",
        content=content,
        call_id=part.call_id,
        name=part.name or names.get(part.call_id, ""),
        parts=shown,
        has_media=any(isinstance(p, MediaPart) for p in shown),
    )


def function_of(tool: ToolSpec) -> dict[str, Any]:
    """A tool's declaration as ``{"name", "description", "parameters"}``, in the order open models' servers print it."""
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    return function


def tool_object(tool: ToolSpec) -> dict[str, Any]:
    """A tool as OpenAI's chat API writes it."""
    return {"type": "function", "function": function_of(tool)}


def arguments_object(call: ToolCallPart) -> Any:
    """A call's arguments as the object they spell; the text itself where it spells none."""
    if not isinstance(call.arguments, str):
        return dict(call.arguments)
    try:
        value = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        return call.arguments
    return value if isinstance(value, dict) else call.arguments


def arguments_text(call: ToolCallPart) -> str:
    """A call's arguments as JSON text, as sent where they were sent as text."""
    return call.arguments if isinstance(call.arguments, str) else spaced(call.arguments)


def spaced(value: Any) -> str:
    """JSON as Python writes it by default, non-ASCII characters kept: what chat templates' ``tojson`` prints."""
    return _dumps(value, separators=(", ", ": "))


def compact(value: Any) -> str:
    """JSON without blanks, non-ASCII characters kept."""
    return _dumps(value, separators=(",", ":"))


def _dumps(value: Any, *, separators: tuple[str, str]) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=separators)
    except (TypeError, ValueError, RecursionError):
        return str(value)
