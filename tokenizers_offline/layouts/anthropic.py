"""Claude: an estimate, whatever API the prompt came through.

Constants without another source were fitted on recorded calls with their reported usage: least absolute relative
error, five-fold cross-validation over distinct requests. They held unchanged for Claude behind OpenRouter, Bedrock,
Vercel and Databricks, which were left out of the fit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers_offline.images import measure
from tokenizers_offline.layouts.base import ModelSpec, Piece, Rendered
from tokenizers_offline.layouts.claude_generations import Generation, generation_of
from tokenizers_offline.layouts.claude_text import count_shape, count_surplus
from tokenizers_offline.prompt import (
    Accuracy,
    ChatPrompt,
    MediaPart,
    Message,
    OpaquePart,
    OutputSchema,
    Part,
    Prompt,
    TextPart,
    TextPrompt,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
    ToolSpec,
)

_FOLLOW_UP = 3
"""Each message after the first."""
_OPENED_BY_ASSISTANT = 12
"""A conversation whose first message is the assistant's gets an empty user turn before it."""
_TOOL = 4.2
_TOOL_PROPERTY = 2.0
"""Each ``"type"`` in a tool's JSON, beside the JSON's own tokens."""
_TOOL_PUNCTUATION = 0.21
_CALL_AND_RESULT = 42
_CALL_ARGUMENT = 11
_PARALLEL_CALL = 24
"""Each call after the first in one assistant message."""
_SCHEMA = 87
_SCHEMA_PROPERTY = 4.9
_SCHEMA_PUNCTUATION = 1.3
_SCHEMA_CHARACTER = 0.085
_IMAGE_PATCH_PX = 28
_IMAGE = 3
_PDF_PAGE = 1575
"""The image of a page; the guide to PDF support says that each page comes as an image and as its text."""
_DOCUMENT_CHARACTER = 0.19
"""Of base64: three bytes in four characters, four bytes of text a token."""
_OPAQUE_CHARACTER = 0.25
_SERVER_TOOLS = {
    "bash": 245,
    "text_editor": 700,
    "computer": 1700,
    "memory": 1550,
    "code_execution_2025": 1600,
    "code_execution": 4650,
    "tool_search": 600,
    "advisor": 1500,
    "web_fetch": 6000,
    "web_search": 9000,
}
"""Tools that the API defines or runs, by the start of their type: bash and text_editor from Anthropic's tool guides,
the rest about the median of recorded calls, whatever they brought back."""
_OTHER_SERVER_TOOL = 1000
_UNKNOWABLE = {"mcp_servers": 600}
_UNKNOWABLE_RISK = 3000


class AnthropicLayout:
    """Text costs its o200k tokens and what `claude_text` adds; everything structural is a constant."""

    def render(self, prompt: Prompt, model: ModelSpec, *, platform: str = "", template: str = "") -> Rendered:
        generation = generation_of(model.family, model.name)
        if isinstance(prompt, TextPrompt):
            return _render_text(prompt, generation)
        return _Tally(generation).render(prompt, model)


def _render_text(prompt: TextPrompt, generation: Generation) -> Rendered:
    texts = [item for item in prompt.items if isinstance(item, str)]
    ready = sum(len(item) for item in prompt.items if not isinstance(item, str))
    surplus = count_surplus(texts, generation.surplus)
    return Rendered(
        pieces=tuple(Piece(text) for text in texts),
        tokens=ready + round(surplus),
        accuracy=Accuracy.ESTIMATE,
        upper_factor=1.25,
        upper_extra=10 + _foreign(texts),
        features=("text", *prompt.unknowable),
        notes=(_WHY,),
    )


_WHY = "Anthropic publishes no tokenizer for this model; the count is an estimate from o200k and the text's shape."


class _Tally:
    """Adds up one conversation: what is text, what is JSON of tools, and the constants beside them."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._texts: list[str] = []
        self._tool_texts: list[str] = []
        self._schema_texts: list[str] = []
        self._constant = float(generation.base)
        self._risk = 0.0
        """Tokens that may be wrong by their own size, added to the figure to hold."""
        self._features: set[str] = set()
        self._notes: list[str] = [_WHY]

    def render(self, prompt: ChatPrompt, model: ModelSpec) -> Rendered:
        self._add_messages(prompt.messages)
        self._add_tools(prompt)
        self._add_thinking(prompt, model)
        if prompt.output_schema is not None:
            self._add_schema(prompt.output_schema)
        for name in prompt.server_tools:
            self._add_server_tool(name)
        if prompt.unknowable:
            self._features.update(prompt.unknowable)
            self._notes.append(f"Cannot be known before the call: {', '.join(prompt.unknowable)}.")
            self._constant += sum(_UNKNOWABLE.get(name, 0) for name in prompt.unknowable)
            self._risk += _UNKNOWABLE_RISK * len(prompt.unknowable)
        self._constant += count_surplus(self._texts, self._generation.surplus)
        texts = (*self._texts, *self._tool_texts, *self._schema_texts)
        plain = self._features <= {"text"}
        return Rendered(
            pieces=tuple(Piece(text) for text in texts if text),
            tokens=round(self._constant),
            accuracy=Accuracy.ESTIMATE,
            upper_factor=1.12 if plain else 1.17,
            upper_extra=round((10 if plain else 50) + self._risk) + _foreign(self._texts),
            features=tuple(sorted(self._features or {"text"})),
            notes=tuple(self._notes),
        )

    def _add_messages(self, messages: Iterable[Message]) -> None:
        turns = [message for message in messages if message.role not in ("system", "developer")]
        current = _start_of_turn(turns)
        prefilled = len(turns) > 1 and turns[-1].role == "assistant"
        self._constant += _FOLLOW_UP * max(0, len(turns) - 1 - prefilled)
        if turns and turns[0].role == "assistant":
            self._constant += _OPENED_BY_ASSISTANT
        for message in messages:
            calls = sum(isinstance(part, ToolCallPart) for part in message.parts)
            self._constant += _PARALLEL_CALL * max(0, calls - 1)
            for part in message.parts:
                self._add_part(part)
        for at, message in enumerate(turns):
            thoughts = [part for part in message.parts if isinstance(part, ThinkingPart)]
            if thoughts and at >= current:  # earlier turns' thinking is dropped by the API
                self._features.add("reasoning")
                self._texts.extend(part.text for part in thoughts)

    def _add_part(self, part: Part) -> None:
        match part:
            case TextPart():
                self._texts.append(part.text)
            case ToolCallPart():
                self._features.add("calls")
                arguments = _arguments(part)
                self._texts += (part.name, arguments if isinstance(arguments, str) else _compact(arguments))
                named = 1 if isinstance(arguments, str) else len(arguments)
                self._constant += _CALL_AND_RESULT + _CALL_ARGUMENT * named
            case ToolResultPart():
                for inner in part.parts:
                    self._add_part(inner)
                if part.response is not None:
                    self._texts.append(_compact(part.response))
            case MediaPart():
                self._add_media(measure(part))
            case OpaquePart():
                self._features.add(part.kind)
                guess = _OPAQUE_CHARACTER * len(_compact(part.raw))
                self._constant += guess
                self._risk += guess + 200

    def _add_media(self, part: MediaPart) -> None:
        self._features.add(part.kind)
        self._texts += (part.name, part.text or "")
        if part.text is not None and part.pages is None:
            return
        if part.kind == "image":
            tokens = _count_image(part, self._generation)
            self._constant += tokens
            self._risk += 0.1 * tokens
        elif part.media_type not in ("", "application/pdf"):
            tokens = round(_DOCUMENT_CHARACTER * len(part.data or ""))
            self._constant += tokens
            self._risk += 2 * tokens + 500
            self._notes.append(f"A document of type {part.media_type} is counted by its size only.")
        else:
            tokens = _PDF_PAGE * (part.pages or 1)
            self._constant += tokens
            self._risk += 0.1 * tokens if part.text is not None else tokens
            self._notes.append("The pages of a document count as images, by a figure per page.")

    def _add_tools(self, prompt: ChatPrompt) -> None:
        loaded = [tool for tool in prompt.tools if tool.raw.get("defer_loading") is not True]
        if not loaded:
            return
        self._features.add("tools")
        forced = prompt.tool_choice is not None and prompt.tool_choice.mode in ("required", "named")
        self._constant += self._generation.tools_forced if forced else self._generation.tools_auto
        for tool in loaded:
            text = _compact(_tool_object(tool))
            self._tool_texts.append(text)
            self._constant += _TOOL + _TOOL_PROPERTY * text.count('"type"')
            self._constant += _TOOL_PUNCTUATION * count_shape(text, b"P")

    def _add_thinking(self, prompt: ChatPrompt, model: ModelSpec) -> None:
        if prompt.thinking and prompt.thinking.get("type") == "adaptive":
            forced = prompt.tool_choice is not None and prompt.tool_choice.mode in ("required", "named")
            self._constant += 0 if forced else self._generation.adaptive_thinking
        elif prompt.thinking or model.name.endswith(":thinking") or _asks_for_reasoning(prompt.options):
            self._features.add("thinking")
            self._constant += self._generation.thinking
            if "tools" in self._features:
                self._risk += self._generation.interleaved

    def _add_schema(self, schema: OutputSchema) -> None:
        if schema.schema is None:
            return
        self._features.add("schema")
        only = schema.schema.get("json") if len(schema.schema) == 1 else None
        text = only if isinstance(only, str) else _compact(schema.schema)
        self._schema_texts.append(text)
        self._constant += _SCHEMA + _SCHEMA_PROPERTY * text.count('"type"')
        self._constant += _SCHEMA_PUNCTUATION * count_shape(text, b"PPP") + _SCHEMA_CHARACTER * len(text)

    def _add_server_tool(self, name: str) -> None:
        self._features.add("server_tools")
        tokens = next((cost for kind, cost in _SERVER_TOOLS.items() if name.startswith(kind)), _OTHER_SERVER_TOOL)
        self._constant += tokens
        self._risk += 2 * tokens
        self._notes.append(f"'{name}' is run by the provider; what it adds is known only after the call.")


def _start_of_turn(turns: list[Message]) -> int:
    """Where the current turn starts: after the last user message that brings more than tool results."""
    for at in range(len(turns) - 1, -1, -1):
        if turns[at].role == "user" and not any(isinstance(part, ToolResultPart) for part in turns[at].parts):
            return at
    return 0


def _count_image(part: MediaPart, generation: Generation) -> int:
    if not part.width or not part.height:
        return generation.image_tokens + _IMAGE
    scale = min(1.0, generation.image_edge_px / max(part.width, part.height))
    width, height = part.width * scale, part.height * scale
    tokens = _patches(width, height)
    if tokens > generation.image_tokens:
        scale = math.sqrt(generation.image_tokens / tokens)
        tokens = min(_patches(width * scale, height * scale), generation.image_tokens)
    return tokens + _IMAGE


def _patches(width: float, height: float) -> int:
    return math.ceil(width / _IMAGE_PATCH_PX) * math.ceil(height / _IMAGE_PATCH_PX)


def _tool_object(tool: ToolSpec) -> dict[str, Any]:
    described = {} if tool.description is None else {"description": tool.description}
    return {"name": tool.name, **described, "input_schema": tool.parameters or {}}


def _arguments(call: ToolCallPart) -> Mapping[str, Any] | str:
    """The call's arguments as an object where their text is one."""
    if not isinstance(call.arguments, str):
        return call.arguments
    try:
        parsed = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        return call.arguments
    return parsed if isinstance(parsed, dict) else call.arguments


def _asks_for_reasoning(options: Mapping[str, Any]) -> bool:
    """The ways that routers ask for thinking: ``reasoning_effort`` or a ``reasoning`` object."""
    routed = options.get("reasoning")
    wanted = {"effort": options.get("reasoning_effort"), **(routed if isinstance(routed, Mapping) else {})}
    effort = wanted.get("effort")
    return wanted.get("enabled") is True or bool(wanted.get("max_tokens")) or bool(effort and effort != "none")


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def _foreign(texts: Iterable[str]) -> int:
    """A margin for scripts past ASCII, which no recorded call could teach: up to a token a character."""
    return sum(len(text) - len(text.encode("ascii", "ignore")) for text in texts if not text.isascii())
