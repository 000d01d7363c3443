"""The responses API -> what OpenAI's models read and bill. All constants were measured (see `openai_models`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers_offline.layouts.openai_chat import (
    add_named_choice,
    add_output_schema,
    add_part,
    add_tools,
    note_call,
    result_text,
)
from tokenizers_offline.layouts.openai_models import Generation
from tokenizers_offline.layouts.openai_schema import HEADER, render_namespace, write_json
from tokenizers_offline.layouts.openai_tally import Tally
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

_FRAME = 4
"""3 tokens and the role, as in chat completions."""
_LATE_TOOLS_EXTRA = 87
_REASONING_OVERHEAD_CHARACTERS = 900
_CHARACTERS_PER_REASONING_TOKEN = 6.2


def add_responses(tally: Tally, prompt: ChatPrompt, model: str, generation: Generation) -> None:
    """Add a whole input; `model` is a bare lower-case name."""
    names = {
        part.call_id: part.name
        for message in prompt.messages
        for part in message.parts
        if isinstance(part, ToolCallPart)
    }
    lone = _lone_calls(prompt.messages)
    last_user = max((i for i, message in enumerate(prompt.messages) if message.role == "user"), default=-1)
    for index, message in enumerate(prompt.messages):
        _add_message(tally, message, names, model, generation, current=index > last_user)
        if index in lone:
            tally.add_tokens(generation.lone_call)
    if prompt.options.get("instructions") == "":
        tally.doubt("Calls with empty `instructions` were billed for more or less than their text.", extra=64)
    if prompt.tools:
        tally.add_text(add_tools(tally, prompt, generation))
        tally.add_tokens(
            generation.tools_responses + generation.bare_tool * sum(not tool.description for tool in prompt.tools)
        )
        add_named_choice(tally, prompt, generation)
    if prompt.output_schema is not None and prompt.output_schema.schema is not None:
        tally.add_text(add_output_schema(tally, prompt.output_schema))
        tally.add_tokens(generation.schema_beside_tools if prompt.tools else generation.schema_responses)
    tally.add_tokens(generation.reply)


def _lone_calls(messages: Sequence[Message]) -> set[int]:
    """Where calls stand that were not made in parallel with others and carry the id of their item."""
    calls = [[part for part in message.parts if isinstance(part, ToolCallPart)] for message in messages]
    return {
        index
        for index, found in enumerate(calls)
        if found and found[0].item_id and not any(calls[index - 1 : index]) and not any(calls[index + 1 : index + 2])
    }


def _add_message(
    tally: Tally, message: Message, names: dict[str, str], model: str, generation: Generation, *, current: bool
) -> None:
    if not message.parts or any(isinstance(part, TextPart | MediaPart) for part in message.parts):
        tally.add_tokens(_FRAME)
        tally.add_text(message.text)
        if message.role == "assistant":
            tally.add_tokens(generation.history)
    for part in message.parts:
        match part:
            case ToolCallPart():
                note_call(tally)
                tally.add_text(part.name)
                tally.add_text(part.arguments if isinstance(part.arguments, str) else write_json(part.arguments))
                tally.add_tokens(generation.call_responses)
            case ToolResultPart():
                tally.add_feature("tool_calls")
                tally.add_text(names.get(part.call_id, part.name))
                tally.add_text(result_text(part))
                for inner in part.parts:
                    add_part(tally, inner, model, in_chat=False)
            case OpaquePart(kind="additional_tools"):
                _add_late_tools(tally, part, generation)
            case ThinkingPart() if current:
                _add_reasoning(tally, part)
            case _:
                add_part(tally, part, model, in_chat=False)


def _add_late_tools(tally: Tally, part: OpaquePart, generation: Generation) -> None:
    """Tools declared in mid-conversation are shown like those of chat completions, in a message of their own."""
    found = part.raw.get("tools") if isinstance(part.raw, Mapping) else None
    tools = [
        ToolSpec(tool["name"], _text(tool.get("description")), _schema(tool.get("parameters")))
        for tool in (found if isinstance(found, list) else [])
        if isinstance(tool, Mapping) and isinstance(tool.get("name"), str)
    ]
    tally.add_text(HEADER + render_namespace(tools, whole_limits=generation.whole_limits).text)
    tally.add_tokens(_LATE_TOOLS_EXTRA)
    tally.doubt("Tools declared in mid-conversation were seen in few bills only.", factor=1.1, extra=16)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _schema(value: object) -> Mapping[str, Any] | None:
    return value if isinstance(value, Mapping) else None


def _add_reasoning(tally: Tally, part: ThinkingPart) -> None:
    """Reasoning is read back in the turn it belongs to; its length shows only through the cipher text's."""
    tally.add_feature("reasoning")
    characters = len(part.opaque)
    tally.add_tokens(max(0, round((characters - _REASONING_OVERHEAD_CHARACTERS) / _CHARACTERS_PER_REASONING_TOKEN)))
    tally.doubt("Encrypted reasoning is estimated from its length.", factor=1.1, extra=round(0.05 * characters) + 16)
