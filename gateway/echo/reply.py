"""What the echo model says: decided once, then written in the caller's dialect."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from gateway.echo.samples import sample
from gateway.formats.fields import write_object
from tokenizers_offline.prompt import ChatPrompt, Message, TextPart, TextPrompt, ToolResultPart, ToolSpec

if TYPE_CHECKING:
    from gateway.counting import Counting
    from gateway.formats.base import Call

Finish = Literal["stop", "length", "tool_calls"]

GREETING = "Hello from Tollgate's echo model."
"""Said when the last message holds no text."""

_ASKS_FOR_TOOL = re.compile(r"\b(?:call|use|invoke|run)\b.*\b(?:tool|function)\b", re.IGNORECASE | re.DOTALL)
_NAME_WORD = re.compile(r"[A-Z]?[a-z]{3,}")
_PIECE = re.compile(r"\S+\s*|\s+")
_MOST_PIECES = 200


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one of the caller's tools."""

    id: str
    name: str
    arguments: Mapping[str, Any]

    @property
    def arguments_json(self) -> str:
        """The arguments as APIs send them: JSON text."""
        return write_object(self.arguments).decode()


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer with its bill. `choices` of it are sent, all alike, and `output_tokens` covers all of them."""

    id: str
    created_at: int
    model: str
    text: str
    tool_calls: tuple[ToolCall, ...]
    finish: Finish
    choices: int
    input_tokens: int
    output_tokens: int

    @property
    def pieces(self) -> list[str]:
        """The text cut into what a stream sends one by one: words, or longer pieces of a long text."""
        words = _PIECE.findall(self.text)
        size = -(-len(words) // _MOST_PIECES) or 1
        return ["".join(words[start : start + size]) for start in range(0, len(words), size)]


async def compose(call: Call, *, model: str, platform: str, counting: Counting, created_at: int) -> Reply:
    """Answer a call. Raises what counting raises."""
    prompt = call.prompt
    count = await counting.count(model, prompt, platform=platform)
    tool_calls = _choose_tools(prompt) if isinstance(prompt, ChatPrompt) else ()
    finish: Finish = "tool_calls" if tool_calls else "stop"
    if tool_calls:
        text = ""
        said = [text for each in tool_calls for text in (each.name, each.arguments_json)]
        tokens = sum(await counting.count_texts(model, said))
    else:
        text = _say(prompt)
        text, tokens, whole = await _fit(text, model=model, cap=call.output_cap, counting=counting)
        finish = "stop" if whole else "length"
    return Reply(
        id=uuid4().hex,
        created_at=created_at,
        model=call.model,
        text=text,
        tool_calls=tool_calls,
        finish=finish,
        choices=call.choices,
        input_tokens=count.input_tokens,
        output_tokens=tokens * call.choices,
    )


def _say(prompt: ChatPrompt | TextPrompt) -> str:
    if isinstance(prompt, TextPrompt):
        return next((item for item in prompt.items if isinstance(item, str) and item), GREETING)
    asked = _last_words(prompt.messages)
    schema = prompt.output_schema
    if schema is None:
        return asked or GREETING
    filled = sample(schema.schema) if schema.schema is not None else {"echo": asked}
    return write_object(filled).decode()


def _last_words(messages: tuple[Message, ...]) -> str:
    """The text of the last tool results, or of the last message of the caller."""
    if messages:
        results = [part for part in messages[-1].parts if isinstance(part, ToolResultPart)]
        if results:
            return " ".join(
                inner.text for result in results for inner in result.parts if isinstance(inner, TextPart)
            ) or str(results[-1].response or "")
    for message in reversed(messages):
        if message.role in ("user", "tool") and message.text:
            return message.text
    return ""


def _choose_tools(prompt: ChatPrompt) -> tuple[ToolCall, ...]:
    """The tool that is forced, or asked for by (a word of) its name; none after a tool has answered."""
    choice = prompt.tool_choice
    if not prompt.tools or (choice is not None and choice.mode == "none"):
        return ()
    if prompt.messages and any(isinstance(part, ToolResultPart) for part in prompt.messages[-1].parts):
        return ()
    if choice is not None and choice.mode == "named":
        return tuple(_call(tool) for tool in prompt.tools if tool.name == choice.name)[:1]
    asked = _last_words(prompt.messages).lower()
    for tool in prompt.tools:
        words = [word.lower() for word in _NAME_WORD.findall(tool.name)]
        if any(word in asked for word in words if len(word) > 3):
            return (_call(tool),)
    forced = choice is not None and choice.mode == "required"
    return (_call(prompt.tools[0]),) if forced or _ASKS_FOR_TOOL.search(asked) else ()


def _call(tool: ToolSpec) -> ToolCall:
    filled = sample(tool.parameters) if tool.parameters is not None else {}
    return ToolCall(
        id="call_" + uuid4().hex[:24],
        name=tool.name,
        arguments=filled if isinstance(filled, dict) else {},
    )


async def _fit(text: str, *, model: str, cap: int | None, counting: Counting) -> tuple[str, int, bool]:
    """The longest beginning of `text` within `cap` tokens, its tokens, and whether that is all of it."""
    tokens = (await counting.count_texts(model, [text]))[0]
    if cap is None or tokens <= cap:
        return text, tokens, True
    low, high, fitting = 0, len(text), 0
    while low < high:
        middle = (low + high + 1) // 2
        tokens = (await counting.count_texts(model, [text[:middle]]))[0]
        if tokens <= cap:
            low, fitting = middle, tokens
        else:
            high = middle - 1
    return text[:low], fitting, False
