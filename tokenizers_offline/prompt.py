"""The neutral prompt: what a request asks the model to read, freed from the API it came in.

A format adapter (``gateway.formats``) builds one of these from a request body; a layout
(``tokenizers_offline.layouts``) turns it into what the model sees. `Dialect` survives the
translation because one model is billed differently behind different APIs (OpenAI chat and
OpenAI responses lay tools out differently).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple


class Dialect(StrEnum):
    """The API a prompt came in through."""

    OPENAI_CHAT = "openai_chat"
    OPENAI_RESPONSES = "openai_responses"
    OPENAI_TEXT = "openai_text"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"
    BEDROCK = "bedrock"
    COHERE = "cohere"
    OLLAMA = "ollama"


@dataclass(frozen=True, slots=True)
class TextPart:
    """Plain text, exactly as the caller wrote it."""

    text: str


@dataclass(frozen=True, slots=True)
class MediaPart:
    """An image, a sound, a video or a document.

    `data` is the base64 text, never decoded whole; `url` is a remote address, never fetched;
    `file_id` is a provider's own reference. The size fields are None until something has
    measured them (`tokenizers_offline.images` reads headers).
    """

    kind: Literal["image", "audio", "video", "document"]
    media_type: str = ""
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    detail: str = "auto"
    name: str = ""
    text: str | None = None
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    pages: int | None = None


@dataclass(frozen=True, slots=True)
class ThinkingPart:
    """Reasoning of an earlier answer sent back: visible text and/or an opaque signature or cipher text."""

    text: str = ""
    opaque: str = ""


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """The model's call of a tool. `arguments` is the JSON text as sent, or the object where the API sends one."""

    name: str
    arguments: str | Mapping[str, Any]
    call_id: str = ""
    item_id: str = ""
    """The id of the item itself where the API has one beside the call's (OpenAI responses)."""


@dataclass(frozen=True, slots=True)
class ToolResultPart:
    """What a tool answered. `response` holds the object where the API sends one (Gemini)."""

    parts: tuple[Part, ...]
    call_id: str = ""
    name: str = ""
    is_error: bool = False
    response: Any = None


@dataclass(frozen=True, slots=True)
class OpaquePart:
    """A part whose tokens cannot be known before the call (a stored file, a search result block). Always labelled."""

    kind: str
    raw: Any = None


Part = TextPart | MediaPart | ThinkingPart | ToolCallPart | ToolResultPart | OpaquePart


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `as_list` tells a content that came as a list of parts from one that came as a bare string."""

    role: str
    parts: tuple[Part, ...]
    name: str = ""
    as_list: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What some chat templates read besides the parts (``reasoning_content``, ``prefix``, ...)."""

    @property
    def text(self) -> str:
        """The message's text parts, concatenated."""
        return "".join(p.text for p in self.parts if isinstance(p, TextPart))


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A function the model may call. `parameters` is its JSON schema, None where the caller gave none.

    `raw` is the caller's own object, for templates that print it whole.
    """

    name: str
    description: str | None
    parameters: Mapping[str, Any] | None
    strict: bool | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """`mode` is the API-neutral word; `name` is set for ``named`` only."""

    mode: Literal["auto", "none", "required", "named"]
    name: str = ""


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """A JSON schema the answer must follow. `schema` None means "any JSON object"."""

    schema: Mapping[str, Any] | None
    name: str = ""
    description: str | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation with everything the provider turns into prompt tokens.

    `server_tools` names built-in tools that the provider runs itself (web search, code interpreter);
    `unknowable` names what else makes the count unknowable before the call
    (``previous_response_id``, ``file``, ``remote_image``, ...). `options` keeps request fields that
    a chat template or layout reads (``enable_thinking``, ``reasoning_effort``, ``parallel_tool_calls``).
    """

    dialect: Dialect
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice | None = None
    output_schema: OutputSchema | None = None
    thinking: Mapping[str, Any] | None = None
    server_tools: tuple[str, ...] = ()
    unknowable: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """Texts to complete or embed, each tokenised by itself; ready token ids count as their number.

    `suffix` is the text after the insertion point (OpenAI completions).
    """

    items: tuple[str | tuple[int, ...], ...]
    purpose: Literal["completion", "embedding", "plain"] = "plain"
    suffix: str = ""
    unknowable: tuple[str, ...] = ()


Prompt = ChatPrompt | TextPrompt


class Accuracy(StrEnum):
    """How sure a count is. ``exact``: the provider's own number. ``bounded``: a rule that holds within
    `TokenCount.upper`. ``estimate``: no public tokenizer or rule; `TokenCount.upper` is a safe guess."""

    EXACT = "exact"
    BOUNDED = "bounded"
    ESTIMATE = "estimate"


class TokenCount(NamedTuple):
    """The answer: `input_tokens` is the best figure, `upper` the figure to hold (>= input_tokens).

    `features` names what the prompt uses (``text``, ``tools``, ``image``, ...), for drift statistics;
    `notes` says in plain words why the count is not exact.
    """

    input_tokens: int
    accuracy: Accuracy
    upper: int
    encoding: str
    revision: str = ""
    features: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class CountingError(Exception):
    """Why a prompt could not be counted; the message says what, which one, and what to do next."""


class UnknownModel(CountingError):
    """No catalog entry matches the model name. `nearest` holds up to five close names."""

    def __init__(self, model: str, nearest: tuple[str, ...] = ()) -> None:
        hint = f" Nearest names: {', '.join(nearest)}." if nearest else ""
        super().__init__(f"The model '{model}' is not in the tokenizer catalog.{hint}")
        self.model = model
        self.nearest = nearest


class TokenizerUnavailable(CountingError):
    """The model is known but its tokenizer is not installed."""

    def __init__(self, model: str, encoding: str) -> None:
        super().__init__(
            f"The tokenizer '{encoding}' for model '{model}' is not installed. "
            f"Run: tollgate tokenizers fetch {encoding}"
        )
        self.model = model
        self.encoding = encoding
