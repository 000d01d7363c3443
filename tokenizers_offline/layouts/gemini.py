"""Gemini, in AI Studio, on Vertex AI and behind other hosts: Gemma 3 tokens, and who counts what beside them.

The rules were read off recorded calls with their reported usage. On text and on tools without media they are the
provider's own numbers in nearly every case; media and thought signatures are known by formula only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tokenizers_offline.images import measure
from tokenizers_offline.layouts import gemini_declarations, gemini_fields, gemini_python
from tokenizers_offline.layouts.base import ModelSpec, Piece, Rendered
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


@dataclass(frozen=True, slots=True)
class Rules:
    """What one generation counts in one place; amounts are tokens.

    `turn` is added for each content turn, and for a system instruction that carries a role. `signature` is tokens a
    character of a thought signature past its first `_SIGNATURE_FREE`. `schema` says which spellings of a response
    schema are counted. `per_type` and `per_tool` stand beside the walked fields of a tool.
    """

    tools: Literal["fields", "python", "declarations"]
    turn: int = 0
    signature: float = 0.0
    schema: Literal["none", "typed"] = "none"
    per_type: int = 1
    per_tool: int = 0
    image: int = 258
    tiled: bool = False
    pdf_page: int = 258
    audio_second: float = 25.0
    video_second: float = 263.0


_VERTEX_3 = Rules("fields", per_type=4, per_tool=4, image=1090, pdf_page=530)
_RULES = {
    ("ai_studio", "1"): Rules("fields", schema="typed"),
    ("ai_studio", "2.0"): Rules("fields", schema="typed", tiled=True),
    ("ai_studio", "2.5"): Rules("python", turn=1, audio_second=32.0),
    ("ai_studio", "3"): Rules("declarations", turn=1, signature=0.21, image=1090, pdf_page=530),
    ("vertex", "1"): Rules("fields", schema="typed"),
    ("vertex", "2.0"): Rules("fields", schema="typed", tiled=True),
    ("vertex", "2.5"): Rules("fields", schema="typed"),
    ("vertex", "3"): _VERTEX_3,
}
_SIGNATURE_FREE = 140
_SIGNATURE_BOUND = 0.25
_TILE_PX = 768
_SMALL_IMAGE_PX = 384
"""Google's image guide: an image of at most 384 px a side is one tile, larger ones are tiles of 768 px."""
_GENERATIONS = {"gemini-1.5": "1", "gemini-2.0": "2.0", "gemini-2.5": "2.5", "gemini-embedding": "2.5"}


class GeminiLayout:
    """Each text is a piece of its own: the API adds them up part by part."""

    def render(self, prompt: Prompt, model: ModelSpec, *, platform: str = "", template: str = "") -> Rendered:
        place = _place(prompt, platform)
        rules = _RULES[place, _GENERATIONS.get(model.family, "3")]
        if isinstance(prompt, TextPrompt):
            return _render_text(prompt, rules, model)
        return _Tally(rules).render(prompt)


def _place(prompt: Prompt, platform: str) -> Literal["ai_studio", "vertex"]:
    """Who counts: other hosts buy from Vertex AI."""
    if platform == "ai_studio":
        return "ai_studio"
    if isinstance(prompt, ChatPrompt) and prompt.dialect is Dialect.GEMINI:
        return "vertex" if platform == "vertex" or prompt.options.get("vertex") else "ai_studio"
    return "vertex" if platform else "ai_studio"


def _render_text(prompt: TextPrompt, rules: Rules, model: ModelSpec) -> Rendered:
    texts = [item for item in prompt.items if isinstance(item, str)]
    ready = sum(len(item) for item in prompt.items if not isinstance(item, str))
    embeds = prompt.purpose == "embedding"
    exact = not (embeds or prompt.unknowable) and model.accuracy is Accuracy.EXACT
    return Rendered(
        pieces=tuple(Piece(text) for text in texts),
        tokens=ready + (rules.turn * len(prompt.items) if embeds else 0),
        accuracy=Accuracy.EXACT if exact else Accuracy.ESTIMATE,
        upper_factor=1.0 if exact else 1.15,
        upper_extra=0 if exact else 16 + 2000 * len(prompt.unknowable),
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

    def render(self, prompt: ChatPrompt) -> Rendered:
        for message in prompt.messages:
            self._add_message(message)
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
        if prompt.dialect is not Dialect.GEMINI:
            self._notes.append("Reached through another API, whose own additions are not known.")
        sure = not self._notes
        plain = self._features <= {"schema"}
        return Rendered(
            pieces=tuple(self._pieces),
            tokens=round(self._tokens),
            accuracy=(Accuracy.EXACT if plain else Accuracy.BOUNDED) if sure else Accuracy.ESTIMATE,
            upper_factor=1.05 if sure else 1.15,
            upper_extra=round((2 if plain and sure else 16) + self._risk),
            features=tuple(sorted(self._features)) or ("text",),
            notes=tuple(self._notes),
        )

    def _add_message(self, message: Message) -> None:
        if message.role not in ("system", "developer") or message.extra.get("role"):
            self._tokens += self._rules.turn
        for part in message.parts:
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
            case ThinkingPart():
                self._add_thought(part)
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

    def _add_thought(self, part: ThinkingPart) -> None:
        self._features.add("reasoning")
        past = max(0, len(part.opaque) - _SIGNATURE_FREE)
        self._tokens += self._rules.signature * past
        self._risk += max(0.0, _SIGNATURE_BOUND - self._rules.signature) * past
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
        response = result.response
        if response is None:
            response = {"result": "".join(part.text for part in result.parts if isinstance(part, TextPart))}
        match self._rules.tools:
            case "python":
                self._add_text(gemini_python.render_result(result.name, response))
            case "declarations":
                self._add_marked(gemini_declarations.render_result(result.name, response))
            case "fields":
                for text in (result.name, *gemini_fields.walk_value(response)):
                    self._add_text(text)
        for part in result.parts:
            if not isinstance(part, TextPart):
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
        json_schema = "parameters" not in tool.raw
        if not schema or (json_schema and (self._rules.per_type == 1 or not schema.get("properties"))):
            return  # parametersJsonSchema is not counted here
        for text in gemini_fields.walk_schema(schema):
            self._add_text(text)
        self._tokens += self._rules.per_tool + self._rules.per_type * gemini_fields.count_typed(schema)

    def _add_schema(self, schema: Mapping[str, Any], *, json_schema: bool) -> None:
        self._features.add("schema")
        if self._rules.schema == "typed" and not json_schema:
            for text in gemini_fields.walk_schema(schema):
                self._add_text(text)
            self._tokens += gemini_fields.count_typed(schema)

    def _add_media(self, part: MediaPart) -> None:
        self._features.add(part.kind)
        tokens, known = self._count_media(part)
        self._tokens += tokens
        self._risk += tokens * (0.2 if known else 1.0) + 16
        self._notes.append(f"The tokens of {part.kind} parts are known by formula only.")

    def _count_media(self, part: MediaPart) -> tuple[float, bool]:
        match part.kind:
            case "image":
                return self._rules.image * self._count_tiles(part), not self._rules.tiled or part.width is not None
            case "audio":
                return self._rules.audio_second * (part.seconds or 60), part.seconds is not None
            case "video":
                return self._rules.video_second * (part.seconds or 10), part.seconds is not None
        if part.media_type.startswith("text/"):
            return len(part.text or part.data or "") / 5, False
        return float(self._rules.pdf_page * (part.pages or 1)), part.pages is not None

    def _count_tiles(self, part: MediaPart) -> int:
        width, height = part.width, part.height
        if not self._rules.tiled or not width or not height or max(width, height) <= _SMALL_IMAGE_PX:
            return 1
        return math.ceil(width / _TILE_PX) * math.ceil(height / _TILE_PX)


def _arguments(call: ToolCallPart) -> Mapping[str, Any]:
    """The call's arguments as an object; text that is none is kept whole under one key."""
    if not isinstance(call.arguments, str):
        return call.arguments
    try:
        parsed = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        parsed = None
    return parsed if isinstance(parsed, dict) else {"arguments": call.arguments}
