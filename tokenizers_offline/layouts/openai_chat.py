"""Chat completions -> what OpenAI's models read and bill.

The frame of a message (3 tokens, its role, its name) is from OpenAI's cookbook; tools, calls, results and schemas
are not documented and were measured (see `openai_models`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tokenizers_offline.layouts.openai_media import add_media
from tokenizers_offline.layouts.openai_models import Generation
from tokenizers_offline.layouts.openai_output import render_output_schema
from tokenizers_offline.layouts.openai_schema import HEADER, render_tools, write_json
from tokenizers_offline.layouts.openai_tally import Tally
from tokenizers_offline.prompt import (
    Accuracy,
    ChatPrompt,
    MediaPart,
    Message,
    OpaquePart,
    OutputSchema,
    Part,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)

_FRAME = 3
_RESULT_ROLES = ("tool", "function")
_KNOWN_ROLES = frozenset({"assistant", "developer", "function", "system", "tool", "user"})
_PLAIN_ROLES = ("user", "assistant")
_TAG = 2
_PARALLEL_EXTRA = 20
"""One message to `multi_tool_use.parallel` and one with all results, besides their JSON."""
_OPAQUE_TOKENS = 500


def add_chat(tally: Tally, prompt: ChatPrompt, model: str, generation: Generation) -> None:
    """Add a whole conversation; `model` is a bare lower-case name."""
    appended = _appended(tally, prompt, generation)
    heading = generation.heading if prompt.tools else ""
    tagged = "" if prompt.tools or prompt.output_schema is None else prompt.output_schema.name
    names = {
        part.call_id: part.name
        for message in prompt.messages
        for part in message.parts
        if isinstance(part, ToolCallPart)
    }
    messages = prompt.messages
    index = 0
    while index < len(messages):
        message = messages[index]
        index += 1
        parts = message.parts
        if len(parts) == 1 and message.role in _PLAIN_ROLES and not message.name and type(parts[0]) is TextPart:
            text = parts[0].text  # most of a conversation, told apart early for speed
            tally.add_tokens(_FRAME + 1)
            tally.add_text(text)
            if text and message.role == "assistant":
                tally.add_tokens(generation.history)
                _add_tag(tally, tagged)
            continue
        calls = [part for part in message.parts if isinstance(part, ToolCallPart)]
        if len(calls) > 1 and generation.merges_calls:
            first = index
            while index < len(messages) and messages[index].role in _RESULT_ROLES:
                index += 1
            _add_parallel(tally, message, calls, messages[first:index], model)
        elif message.role in _RESULT_ROLES:
            _add_result(tally, message, names, model)
        elif appended and message.role in ("system", "developer"):
            _add_message(tally, message, model, generation, prefix=heading, suffix=f"\n\n{appended}")
            appended = ""
        else:
            _add_message(tally, message, model, generation)
            if message.role == "assistant" and message.text:
                _add_tag(tally, tagged)
    if appended:
        tally.add_tokens(_FRAME + 1)
        tally.add_text(appended)
    tally.add_tokens(generation.reply)
    _add_tag(tally, tagged)


def _add_tag(tally: Tally, name: str) -> None:
    """Where an answer must follow a schema, each answer is opened with the schema's name."""
    if name:
        tally.add_text(name)
        tally.add_tokens(_TAG)


def _appended(tally: Tally, prompt: ChatPrompt, generation: Generation) -> str:
    """What joins the first system message (or becomes one): the functions, then the answer's schema."""
    texts = []
    if prompt.tools:
        texts.append(add_tools(tally, prompt, generation))
        tally.add_tokens(
            generation.tools_chat + generation.bare_tool * sum(not tool.description for tool in prompt.tools)
        )
        add_named_choice(tally, prompt, generation)
    if prompt.output_schema is not None and prompt.output_schema.schema is not None:
        texts.append(add_output_schema(tally, prompt.output_schema))
    return "\n\n".join(texts)


def add_tools(tally: Tally, prompt: ChatPrompt, generation: Generation) -> str:
    """Note the tools and return them as the model sees them."""
    namespace = render_tools(prompt.tools, whole_limits=generation.whole_limits)
    tally.add_feature("tools")
    tally.doubt("How tools are shown is not documented; the rule was measured.", factor=1.03, extra=12)
    if namespace.unsure:
        tally.doubt(
            f"JSON schema keywords never observed in a bill: {', '.join(namespace.unsure)}.", factor=1.1, extra=16
        )
    return HEADER + namespace.text


def add_named_choice(tally: Tally, prompt: ChatPrompt, generation: Generation) -> None:
    """Add what a `tool_choice` that names a tool costs."""
    choice = prompt.tool_choice
    if choice is not None and choice.mode == "named" and generation.named is not None:
        tally.add_text(choice.name)
        tally.add_tokens(generation.named)


def note_call(tally: Tally) -> None:
    """Note one tool call; its frame is small but not documented."""
    tally.add_feature("tool_calls")
    tally.doubt("How tool calls are shown is not documented; the rule was measured.", extra=6)


def add_output_schema(tally: Tally, output: OutputSchema) -> str:
    """Note the answer's schema and return it as the model sees it."""
    tally.add_feature("json_schema")
    tally.doubt("How a response schema is shown is not documented; the rule was measured.", extra=4)
    return render_output_schema(output)


def _add_message(
    tally: Tally, message: Message, model: str, generation: Generation, *, prefix: str = "", suffix: str = ""
) -> None:
    if message.role == "assistant" and message.text:
        tally.add_tokens(generation.history)
    calls = [part for part in message.parts if isinstance(part, ToolCallPart)]
    if not calls or message.text:
        tally.add_tokens(_FRAME + 1)
        if message.role not in _KNOWN_ROLES:
            tally.add_text(message.role)
            tally.add_tokens(-1)
    if message.name:
        tally.add_tokens(1)
        tally.add_text(message.name)
    tally.add_text(prefix + message.text + suffix)
    for part in message.parts:
        add_part(tally, part, model)
    for call in calls:
        note_call(tally)
        tally.add_text(call.name)
        tally.add_text(_compact(call.arguments))
        tally.add_tokens(_FRAME + 1 + generation.call_chat)


def _add_result(tally: Tally, message: Message, names: dict[str, str], model: str) -> None:
    tally.add_feature("tool_calls")
    for result in message.parts:
        if isinstance(result, ToolResultPart):
            tally.add_text("." + (names.get(result.call_id) or result.name or result.call_id))
            tally.add_text(result_text(result))
            for part in result.parts:
                add_part(tally, part, model)
            tally.add_tokens(_FRAME + 2)


def _add_parallel(
    tally: Tally, message: Message, calls: Sequence[ToolCallPart], results: Sequence[Message], model: str
) -> None:
    """Calls made together are one call of `multi_tool_use.parallel`, and their results one JSON array."""
    tally.add_feature("tool_calls")
    tally.add_feature("parallel_calls")
    tally.doubt("How parallel calls are shown is not documented; the rule was measured.", extra=12)
    uses = ",".join(
        f'{{"recipient_name":"functions.{call.name}","parameters":{_compact(call.arguments)}}}' for call in calls
    )
    answers: list[Any] = []
    for result in (part for sent in results for part in sent.parts if isinstance(part, ToolResultPart)):
        answers.append(_parse(result_text(result)))
        for part in result.parts:
            add_part(tally, part, model)
    tally.add_text(message.text)
    tally.add_text(f'{{"tool_uses":[{uses}]}}')
    tally.add_text(json.dumps(answers, ensure_ascii=False))
    tally.add_tokens(_PARALLEL_EXTRA)


def add_part(tally: Tally, part: Part, model: str, *, in_chat: bool = True) -> None:
    """Add a part that is neither text nor a call nor a result."""
    match part:
        case MediaPart():
            add_media(tally, part, model, in_chat=in_chat)
        case ThinkingPart() if part.text or part.opaque:
            tally.add_feature("reasoning")
        case OpaquePart():
            tally.add_feature(part.kind)
            tally.add_tokens(_OPAQUE_TOKENS)
            tally.doubt(
                f"The tokens of a part of kind '{part.kind}' cannot be known before the call.",
                factor=2.0,
                extra=4000,
                accuracy=Accuracy.ESTIMATE,
            )


def result_text(result: ToolResultPart) -> str:
    """A tool result's text parts, concatenated."""
    return "".join(part.text for part in result.parts if isinstance(part, TextPart))


def _compact(arguments: Any) -> str:
    """Arguments as compact JSON; text that is not JSON stays as it is."""
    if not isinstance(arguments, str):
        return write_json(arguments)
    value = _parse(arguments)
    return arguments if isinstance(value, str) else write_json(value)


def _parse(text: str) -> Any:
    """A JSON value, or the text itself where it is none (or nested deeper than Python writes back)."""
    try:
        value = json.loads(text)
        json.dumps(value)
    except (ValueError, RecursionError):
        return text
    return value
