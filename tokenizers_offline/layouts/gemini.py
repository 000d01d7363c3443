"""Gemini, in AI Studio, on Vertex AI and behind other hosts: Gemma 3 tokens, and who counts what beside them.

The rules were read off recorded calls with their reported usage. On text and on tools without media they are the
provider's own numbers in nearly every case; media and thought signatures are known by formula only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from tokenizers_offline.images import measure
from tokenizers_offline.layouts import gemini_declarations, gemini_fields, gemini_python
from tokenizers_offline.layouts.base import ModelSpec, Piece, Rendered
from tokenizers_offline.layouts.gemini_rules import Rules, rules_for
from tokenizers_offline.prompt import (
    Accuracy,
    ChatPrompt,
    Dialect,
    MediaPart,
    Message,
    OpaquePart,
    Part,
    Prompt,
    TextPart,
    TextPrompt,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
    ToolSpec,
)

_SIGNATURE_BOUND = 0.25
_STUB_TOOL, _STUB_PROPERTY = 20, 14
"""What a tool may cost more where a router buys from AI Studio after all."""
_MIN_TILE_PX, _MAX_TILE_PX = 256, 768
_SMALL_IMAGE_PX = 384
"""Google's image guide: an image of at most 384 px a side is one tile."""
_VIDEO_BYTES_A_SECOND = 100_000
_UNMEASURED = {"video": 3000}
"""Held beside the guess where a medium's size cannot be read."""


class GeminiLayout:
    """Each text is a piece of its own: the API adds them up part by part."""

    def render(self, prompt: Prompt, model: ModelSpec, *, platform: str = "", template: str = "") -> Rendered:
        rules = rules_for(prompt, model, platform)
        if isinstance(prompt, TextPrompt):
            return _render_text(prompt, rules, model)
        return _Tally(rules).render(prompt)


def _render_text(prompt: TextPrompt, rules: Rules, model: ModelSpec) -> Rendered:
    texts = [item for item in prompt.items if isinstance(item, str)]
    ready = sum(len(item) for item in prompt.items if not isinstance(item, str))
    embeds = prompt.purpose == "embedding"
    exact = not (embeds or prompt.unknowable) and model.accuracy is Accuracy.EXACT
    return Rendered(
        pieces=tuple(Piece(text) for text in texts),
        tokens=ready + rules.image * prompt.unknowable.count("image"),
        accuracy=Accuracy.EXACT if exact else Accuracy.ESTIMATE,
        upper_factor=1.0 if exact else 1.05,
        upper_extra=0 if exact else 2 + 2000 * len(prompt.unknowable),
        features=("text", *prompt.unknowable),
        notes=() if exact else ("Google does not publish how embedding models count.",),
    )


class _Tally:
    """Adds up one conversation."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._pieces: list[Piece] = []
        self._tokens = 0.0
        self._risk = 0.0
        """Tokens the count may be short by, added to the figure to hold."""
        self._features: set[str] = set()
        self._notes: list[str] = []
        self._native = True
        self._called: dict[str, str] = {}

    def render(self, prompt: ChatPrompt) -> Rendered:
        self._native = prompt.dialect is Dialect.GEMINI
        names = {
            part.call_id: part.name
            for message in prompt.messages
            for part in message.parts
            if isinstance(part, ToolCallPart)
        }
        self._called = names
        current = 0 if self._rules.keeps_thoughts else _start_of_turn(prompt.messages)
        for at, message in enumerate(prompt.messages):
            self._add_message(message, current=at >= current)
        for tool in prompt.tools:
            self._add_tool(tool)
        if prompt.output_schema is not None and prompt.output_schema.schema is not None:
            self._add_schema(prompt.output_schema.schema, json_schema=bool(prompt.options.get("response_json_schema")))
        for name in prompt.server_tools:
            self._features.add("server_tools")
            self._risk += 2000
            self._notes.append(f"'{name}' is run by the provider; what it adds is known only after the call.")
        if prompt.unknowable:
            self._features.update(prompt.unknowable)
            self._risk += 2000
            self._notes.append(f"Cannot be known before the call: {', '.join(prompt.unknowable)}.")
        if not self._native:
            self._notes.append("Reached through another API, whose own additions are not known.")
        sure = not self._notes
        plain = sure and not self._features
        exact = plain and self._rules.proven
        return Rendered(
            pieces=tuple(self._pieces),
            tokens=round(self._tokens),
            accuracy=Accuracy.EXACT if exact else Accuracy.BOUNDED if sure else Accuracy.ESTIMATE,
            upper_factor=1.0 if exact else 1.03 if sure else 1.2,
            upper_extra=round((0 if exact else 2 if plain else 8) + self._risk),
            features=tuple(sorted(self._features)) or ("text",),
            notes=tuple(self._notes),
        )

    def _add_message(self, message: Message, *, current: bool) -> None:
        if message.role not in ("system", "developer") or message.extra.get("role"):
            self._tokens += self._rules.turn
        for part in message.parts:
            if isinstance(part, ThinkingPart):
                self._add_thought(part, current=current)
            else:
                self._add_part(part)

    def _add_text(self, text: str) -> None:
        if text:
            self._pieces.append(Piece(text))

    def _add_marked(self, text: str) -> None:
        """A declaration: what stands between its markers, and the markers."""
        stretches = text.split(gemini_declarations.MARK)
        self._tokens += len(stretches) - 1
        for stretch in stretches:
            self._add_text(stretch)

    def _add_part(self, part: Part) -> None:
        match part:
            case TextPart():
                self._add_text(part.text)
            case ToolCallPart():
                self._features.add("calls")
                self._add_call(part)
            case ToolResultPart():
                self._add_result(part)
            case MediaPart():
                self._add_media(measure(part))
            case OpaquePart():
                self._features.add(part.kind)
                for text in gemini_fields.walk_value(part.raw):
                    self._add_text(text)

    def _add_thought(self, part: ThinkingPart, *, current: bool) -> None:
        self._features.add("reasoning")
        self._add_text(part.text)
        past = max(0, len(part.opaque) - self._rules.signature_free)
        counted = self._rules.signature * past if current else 0.0
        self._tokens += counted
        self._risk += _SIGNATURE_BOUND * past - counted
        if past:
            self._notes.append("A thought signature's tokens are guessed from its length.")

    def _add_call(self, call: ToolCallPart) -> None:
        arguments = _arguments(call)
        match self._rules.tools:
            case "python":
                self._add_text(gemini_python.render_call(call.name, arguments))
            case "declarations":
                self._add_marked(gemini_declarations.render_call(call.name, arguments))
            case "fields":
                for text in (call.name, *gemini_fields.walk_value(arguments)):
                    self._add_text(text)

    def _add_result(self, result: ToolResultPart) -> None:
        self._features.add("calls")
        name, response = result.name, result.response
        if response is None:  # another API's result: a text, and the call's id instead of its name
            text = "".join(part.text for part in result.parts if isinstance(part, TextPart))
            called = name or self._called.get(result.call_id, "")
            name, response = "", {"name": called, "content": text}
        match self._rules.tools:
            case "python":
                self._add_text(gemini_python.render_result(name, response))
            case "declarations":
                self._add_marked(gemini_declarations.render_result(name, response))
            case "fields":
                for text in (name, *gemini_fields.walk_value(response)):
                    self._add_text(text)
        for part in result.parts:
            if isinstance(part, MediaPart):
                self._add_media(measure(part), returned=True)
            elif not isinstance(part, TextPart):
                self._add_part(part)

    def _add_tool(self, tool: ToolSpec) -> None:
        self._features.add("tools")
        match self._rules.tools:
            case "python":
                self._add_text(gemini_python.render_tool(tool))
            case "declarations":
                self._add_marked(gemini_declarations.render_tool(tool))
            case "fields":
                self._add_text(tool.name)
                self._add_text(tool.description or "")
                self._add_parameters(tool)

    def _add_parameters(self, tool: ToolSpec) -> None:
        schema = tool.parameters
        json_schema = self._native and "parameters" not in tool.raw
        if not schema or (json_schema and not (self._rules.json_schema and schema.get("properties"))):
            return  # parametersJsonSchema is not counted here
        for text in gemini_fields.walk_schema(schema):
            self._add_text(text)
        typed = gemini_fields.count_typed(schema)
        self._tokens += self._rules.per_tool + self._rules.per_type * typed
        if not self._native:
            self._risk += _STUB_TOOL + _STUB_PROPERTY * typed

    def _add_schema(self, schema: Mapping[str, Any], *, json_schema: bool) -> None:
        if self._rules.schema or self._rules.json_schema:
            self._features.add("schema")
        if self._rules.json_schema and json_schema:
            compact = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
            self._pieces += (Piece(compact), Piece(compact))  # as recorded: the JSON text, twice
            self._notes.append("How Vertex AI counts a response schema is known from few calls.")
        if self._rules.schema and not json_schema:
            for text in gemini_fields.walk_schema(schema):
                self._add_text(text)
            self._tokens += gemini_fields.count_typed(schema)

    def _add_media(self, part: MediaPart, *, returned: bool = False) -> None:
        self._features.add(part.kind)
        tokens, known = self._count_media(part, self._rules.returned_pdf_page if returned else self._rules.pdf_page)
        self._tokens += tokens
        self._risk += tokens * (0.2 if known else 1.0) + (_UNMEASURED.get(part.kind, 16) if not known else 16)
        self._notes.append(f"The tokens of {part.kind} parts are known by formula only.")

    def _count_media(self, part: MediaPart, pdf_page: int) -> tuple[float, bool]:
        """Tokens, and whether the size they rest on is known."""
        match part.kind:
            case "image":
                return self._rules.image * self._count_tiles(part), not self._rules.tiled or part.width is not None
            case "audio":
                return self._rules.audio_second * (part.seconds or 60), part.seconds is not None
            case "video":
                guessed = max(1.0, len(part.data or "") * 0.75 / _VIDEO_BYTES_A_SECOND)
                return self._rules.video_second * (part.seconds or guessed), part.seconds is not None
        if part.media_type.startswith("text/"):
            return len(part.text or part.data or "") / 5, False
        return float(pdf_page * (part.pages or 1)), part.pages is not None

    def _count_tiles(self, part: MediaPart) -> int:
        """Gemini 2.0 sees an image whole and in square crops, whose side follows the image's shorter one."""
        width, height = part.width, part.height
        if not self._rules.tiled or not width or not height or max(width, height) <= _SMALL_IMAGE_PX:
            return 1
        side = min(max(math.floor(min(width, height) / 1.5), _MIN_TILE_PX), _MAX_TILE_PX)
        return math.ceil(width / side) * math.ceil(height / side) + 1


def _start_of_turn(messages: tuple[Message, ...]) -> int:
    """Where the current turn starts: the last message from the user that is more than tool results."""
    for at in range(len(messages) - 1, -1, -1):
        if messages[at].role == "user" and not all(isinstance(part, ToolResultPart) for part in messages[at].parts):
            return at
    return 0


def _arguments(call: ToolCallPart) -> Mapping[str, Any]:
    """The call's arguments as an object; text that is none is kept whole under one key."""
    if not isinstance(call.arguments, str):
        return call.arguments
    try:
        parsed = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        parsed = None
    return parsed if isinstance(parsed, dict) else {"arguments": call.arguments}
