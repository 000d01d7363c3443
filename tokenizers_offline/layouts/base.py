"""What a layout is: the rule that turns a prompt into what the model sees, and so into tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from tokenizers_offline.prompt import Accuracy, Prompt


class Piece(NamedTuple):
    """A stretch of text that may be encoded apart from its neighbours without changing the sum.

    `specials`: whether special tokens written in the text are recognised (chat templates) or are
    plain text (user content on OpenAI).
    """

    text: str
    specials: bool = False


class Rendered(NamedTuple):
    """A prompt laid out: tokens = round(scale x sum of encoded pieces) + tokens.

    The figure to hold is ceil(upper_factor x tokens) + upper_extra, and never below the count.
    """

    pieces: tuple[Piece, ...]
    tokens: int = 0
    scale: float = 1.0
    accuracy: Accuracy = Accuracy.EXACT
    upper_factor: float = 1.0
    upper_extra: int = 0
    features: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One catalog answer: which encoding and layout serve a model name, and how sure that is.

    `name` is the caller's name, `family` the catalog entry it resolved to, `options` the entry's
    own data for its layout (per-model constants). `accuracy` is the best any count of this model can be
    (a labelled sibling's vocabulary is an estimate).
    """

    name: str
    family: str
    encoding: str
    layout: str
    accuracy: Accuracy = Accuracy.EXACT
    description: str = ""
    max_output_tokens: int | None = None
    template: str = ""
    """The id of the chat template in the tokenizer store; "" where the layout needs none."""
    options: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Layout(Protocol):
    """Pure and stateless: no tokenizer, no I/O.

    `platform` is who serves the model where that changes the bill (``openai``, ``azure``, ``vertex``,
    ``ai_studio``, ``openrouter``, ``groq``, ...); "" when unknown. `template` is the installed chat template
    that the catalog names for the model; "" when there is none.
    """

    def render(self, prompt: Prompt, model: ModelSpec, *, platform: str = "", template: str = "") -> Rendered: ...
