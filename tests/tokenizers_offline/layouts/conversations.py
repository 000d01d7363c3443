"""Short ways to write prompts, for the tests of layouts."""

from typing import Any

from tokenizers_offline.prompt import (
    ChatPrompt,
    Dialect,
    Message,
    Part,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    ToolSpec,
)

WEATHER = ToolSpec(
    "weather",
    "Weather of a city",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


def said(role: str, *content: str | Part, **extra: Any) -> Message:
    parts = tuple(TextPart(part) if isinstance(part, str) else part for part in content)
    return Message(role, parts, extra=extra)


def call(name: str = "weather", arguments: Any = '{"city": "Rome"}', call_id: str = "call00001") -> ToolCallPart:
    return ToolCallPart(name, arguments, call_id=call_id)


def answer(text: str, call_id: str = "call00001") -> Message:
    return Message("tool", (ToolResultPart((TextPart(text),), call_id=call_id),))


def chat(*messages: Message, **fields: Any) -> ChatPrompt:
    return ChatPrompt(fields.pop("dialect", Dialect.OPENAI_CHAT), messages, **fields)
