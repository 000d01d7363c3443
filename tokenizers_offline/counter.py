"""How many tokens is this prompt, for this model? The one question the rest of the gateway asks this package."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Literal, Protocol

from tokenizers_offline.effort import layout_us
from tokenizers_offline.encoders import Encoders
from tokenizers_offline.engines import Encoder
from tokenizers_offline.layouts import LAYOUTS
from tokenizers_offline.layouts.base import Layout, ModelSpec, Piece, Rendered
from tokenizers_offline.prompt import (
    Accuracy,
    CountingError,
    Prompt,
    TextPrompt,
    TokenCount,
    TokenizerUnavailable,
    UnknownModel,
)
from tokenizers_offline.segments import SEGMENT_CHARACTERS, CountCache, Splitter
from tokenizers_offline.store import TokenizerStore

CACHE_BYTES = 64 * 1024 * 1024
UNKNOWN_MODEL_ENCODING = "o200k_base"
MOST_LAYOUT_US = 5_000
"""A prompt that takes longer to lay out, in microseconds, is not counted at once."""

_RANK = {Accuracy.EXACT: 0, Accuracy.BOUNDED: 1, Accuracy.ESTIMATE: 2}

_SAFE_UPPER = {Accuracy.EXACT: (1.0, 0), Accuracy.BOUNDED: (1.1, 16), Accuracy.ESTIMATE: (1.5, 300)}
"""(factor, extra) to hold where a layout names none: 99.4 % of OpenAI's and 95.4 % of open models' recorded calls
were not under-estimated with these (design notes, counting.md)."""


_FLOAT_SLACK = 1e-6
"""1.1 x 100 is a little more than 110 in binary; that must not cost a token."""


class ModelCatalog(Protocol):
    """What the counter asks the catalog."""

    def resolve(self, model: str) -> ModelSpec: ...

    def models(self) -> tuple[ModelSpec, ...]: ...


class HiddenPrompts(Protocol):
    """Tokens a host adds that the caller never sees, by platform, model and the prompt's features."""

    def tokens(self, platform: str, model: str, features: Sequence[str]) -> int: ...

    def may_add(self, platform: str, model: str) -> int: ...


class _Language:
    """One encoding ready to count: its encoder and how its texts are split, specials recognised and not."""

    __slots__ = ("encoder", "ordinary", "recognising", "spaces")

    def __init__(self, encoder: Encoder, recognising: Splitter, ordinary: Splitter) -> None:
        self.encoder = encoder
        self.spaces = ((encoder.name, False), (encoder.name, True))
        self.recognising = recognising
        self.ordinary = ordinary


class BegunCount:
    """A count of which only the new segments are still to be encoded. `at_once` says how many characters of them an
    event loop may have encoded in one go, 0 for none."""

    __slots__ = ("_conclude", "_encode", "_fresh", "at_once")

    def __init__(
        self,
        fresh: Sequence[Piece],
        encode: Callable[[Iterable[Piece]], int],
        conclude: Callable[[int], TokenCount],
        *,
        at_once: int,
    ) -> None:
        self._fresh = fresh
        self._encode = encode
        self._conclude = conclude
        self.at_once = at_once

    @property
    def new_characters(self) -> int:
        """Characters still to be encoded."""
        return sum(len(text) for text, _ in self._fresh)

    @property
    def longest(self) -> int:
        """Characters of the longest segment, which is encoded in one go."""
        return max((len(text) for text, _ in self._fresh), default=0)

    def finish(self) -> TokenCount:
        """Encode the rest."""
        return self._conclude(self._encode(self._fresh))

    def steps(self, characters: int) -> Generator[None, None, TokenCount]:
        """The same in steps of about so many characters; the generator's value is the count."""
        encoded = done = 0
        for piece in self._fresh:
            if done >= characters:
                done = 0
                yield
            encoded += self._encode((piece,))
            done += len(piece.text)
        return self._conclude(encoded)


class TokenCounter:
    """Counts prompts and texts; safe to share between threads.

    `unknown_model` says what a name outside the catalog gets: an `UnknownModel` error, or a labelled estimate.
    """

    def __init__(
        self,
        catalog: ModelCatalog,
        encoders: Encoders,
        store: TokenizerStore,
        *,
        layouts: Mapping[str, Layout] | None = None,
        overheads: HiddenPrompts | None = None,
        cache_bytes: int = CACHE_BYTES,
        unknown_model: Literal["refuse", "estimate"] = "refuse",
    ) -> None:
        self.catalog = catalog
        self.encoders = encoders
        self.store = store
        self.cache = CountCache(cache_bytes)
        self._layouts = LAYOUTS if layouts is None else layouts
        self._overheads = overheads
        self._unknown_model = unknown_model
        self._languages: dict[str, _Language] = {}

    def count(self, model: str, prompt: Prompt, *, platform: str = "") -> TokenCount:
        """Count a prompt. Raises `UnknownModel` and `TokenizerUnavailable`; whatever else is uncertain is a label.

        Long text takes a while: call this from a thread, which the engines let run beside the event loop.
        """
        spec = self.resolve(model)
        language = self._language(spec)
        rendered = self._render(spec, prompt, platform)
        encoded, fresh = self._recall(language, _texts(rendered.pieces, prompt, language))
        encoded += self._encode(language, fresh)
        return self._conclude(spec, language, rendered, encoded, platform)

    def try_count(
        self, model: str, prompt: Prompt, *, platform: str = "", max_new_characters: int
    ) -> TokenCount | None:
        """Count a prompt at once if little of its text is new; None otherwise (then `begin`, or `count` in a thread).

        Remembered segments cost a look-up each. None also when the tokenizer is not in memory yet: loading takes up
        to two seconds. An engine holds the GIL for no more than a few milliseconds at a time, but this call itself
        keeps its thread busy, so `max_new_characters` bounds how long an event loop that calls it stands still:
        about 4 ms per 10,000 characters with the reference engine, 0.1 to 0.3 ms with the others. None as well where
        laying the prompt out would itself take more than a few milliseconds (thousands of messages, PDFs).
        """
        begun = self.begin(model, prompt, platform=platform)
        return None if begun is None or begun.new_characters > max_new_characters else begun.finish()

    def begin(self, model: str, prompt: Prompt, *, platform: str = "") -> BegunCount | None:
        """Do what can be done of a count in a moment; None where `try_count` gives up whatever it is allowed."""
        spec = self.resolve(model)
        language = self._languages.get(spec.encoding)
        if language is None:
            if not self.encoders.is_loaded(spec.encoding):
                if spec.encoding not in self.store.installed():
                    raise TokenizerUnavailable(spec.name, spec.encoding)
                return None
            language = self._language(spec)
        if layout_us(prompt, spec.layout, enough=MOST_LAYOUT_US) > MOST_LAYOUT_US:
            return None
        rendered = self._render(spec, prompt, platform)
        remembered, fresh = self._recall(language, _texts(rendered.pieces, prompt, language))

        def encode(segments: Iterable[Piece]) -> int:
            return self._encode(language, segments)

        def conclude(encoded: int) -> TokenCount:
            return self._conclude(spec, language, rendered, remembered + encoded, platform)

        return BegunCount(fresh, encode, conclude, at_once=language.encoder.at_once)

    def count_texts(self, model: str, texts: Sequence[str]) -> list[int]:
        """Tokens of plain texts, each by itself, special-looking text by the encoding's own rule.

        Loads the tokenizer if it is not in memory (see `is_ready`).
        """
        language = self._language(self.resolve(model))
        specials = language.encoder.specials
        counts = []
        for text in texts:
            remembered, fresh = self._recall(language, (Piece(text, specials),))
            counts.append(remembered + self._encode(language, fresh))
        return counts

    def resolve(self, model: str) -> ModelSpec:
        """The catalog's answer for a model name; for unknown ones an error or a labelled estimate, as configured."""
        try:
            return self.catalog.resolve(model)
        except UnknownModel:
            if self._unknown_model == "refuse":
                raise
            return ModelSpec(
                name=model,
                family="unknown",
                encoding=UNKNOWN_MODEL_ENCODING,
                layout="plain",
                accuracy=Accuracy.ESTIMATE,
                description="Not in the catalog",
                notes=(f"The model is not in the catalog; counted with {UNKNOWN_MODEL_ENCODING}.",),
            )

    def is_ready(self, model: str) -> bool:
        """Whether the model's tokenizer is in memory, so that counting a short text takes microseconds."""
        return self.encoders.is_loaded(self.resolve(model).encoding)

    def warm(self, encodings: Iterable[str], *, fast: bool = False) -> None:
        """Load tokenizers before they are asked for, `fast` in the fast engine whatever memory that takes.

        Raises `TokenizerUnavailable` after loading all that are there.
        """
        missing: list[TokenizerUnavailable] = []
        for encoding in encodings:
            try:
                language = self._language_of(encoding, encoding, fast=fast)
            except TokenizerUnavailable as error:
                missing.append(error)
                continue
            for text in _WARM_UP:
                language.encoder.count(text, specials=language.encoder.specials)
        if missing:
            raise missing[0]

    def _render(self, spec: ModelSpec, prompt: Prompt, platform: str) -> Rendered:
        layout = self._layouts.get(spec.layout)
        if layout is None:
            raise CountingError(
                f"Model '{spec.name}' asks for the layout '{spec.layout}', which does not exist. "
                f"Known layouts: {', '.join(sorted(self._layouts))}."
            )
        template = self.store.template(spec.template) if spec.template else ""
        return layout.render(prompt, spec, platform=platform, template=template)

    def _recall(self, language: _Language, texts: Iterable[Piece]) -> tuple[int, list[Piece]]:
        """Tokens of the segments that are remembered, and the segments that are not."""
        recall, spaces = self.cache.get, language.spaces
        tokens = 0
        fresh: list[Piece] = []
        for piece in texts:
            text, specials = piece
            if len(text) <= SEGMENT_CHARACTERS:  # its own only segment
                count = recall(spaces[specials], text)
                if count is not None:
                    tokens += count
                elif text:
                    fresh.append(piece)
                continue
            for segment in (language.recognising if specials else language.ordinary).split(text):
                count = recall(spaces[specials], segment)
                if count is not None:
                    tokens += count
                else:
                    fresh.append(Piece(segment, specials))
        return tokens, fresh

    def _encode(self, language: _Language, segments: Iterable[Piece]) -> int:
        """Tokens of new segments, which are remembered from now on."""
        total = 0
        for text, specials in segments:
            count = language.encoder.count(text, specials=specials)
            self.cache.put(language.spaces[specials], text, count)
            total += count
        return total

    def _conclude(
        self, spec: ModelSpec, language: _Language, rendered: Rendered, encoded: int, platform: str
    ) -> TokenCount:
        tokens = round(rendered.scale * encoded) + rendered.tokens
        accuracy = max(spec.accuracy, rendered.accuracy, key=_RANK.__getitem__)
        unsure = 0
        if self._overheads is not None:
            bare_name = spec.options.get("bare_name", spec.name)
            hidden = self._overheads.tokens(platform, bare_name, rendered.features)
            unsure = self._overheads.may_add(platform, bare_name)
            tokens += hidden
            if (hidden or unsure) and accuracy is Accuracy.EXACT:
                accuracy = Accuracy.BOUNDED
        tokens = max(0, tokens)
        factor, extra = rendered.upper_factor, rendered.upper_extra
        if (factor, extra) == (1.0, 0):
            factor, extra = _SAFE_UPPER[accuracy]
        notes = rendered.notes + tuple(note for note in spec.notes if note not in rendered.notes)
        return TokenCount(
            input_tokens=tokens,
            accuracy=accuracy,
            upper=max(tokens, math.ceil(factor * tokens - _FLOAT_SLACK) + extra) + unsure,
            encoding=language.encoder.name,
            revision=language.encoder.revision[:12],
            features=rendered.features,
            notes=notes,
        )

    def _language(self, spec: ModelSpec) -> _Language:
        language = self._languages.get(spec.encoding)
        return language if language is not None else self._language_of(spec.encoding, spec.name)

    def _language_of(self, encoding: str, model: str, *, fast: bool = False) -> _Language:
        try:
            encoder = self.encoders.get(encoding, fast=fast)
            record = self.store.encoding(encoding)
        except TokenizerUnavailable:
            raise TokenizerUnavailable(model, encoding) from None
        language = self._languages[encoding] = _Language(
            encoder,
            Splitter(record.frame, record.splits, specials=True),
            Splitter(record.frame, record.splits, specials=False),
        )
        return language


_WARM_UP = ("Hello, world. " * 20, "你好，世界！", "def f(x):\n    return x + 1\n" * 20)
"""Texts that make an engine set up what it sets up on first use."""


def _texts(pieces: tuple[Piece, ...], prompt: Prompt, language: _Language) -> Iterable[Piece]:
    """The pieces; in a text prompt the encoding's own rule decides whether specials are recognised, since its server
    reads the text as it is, whatever the layout that passed it on."""
    if isinstance(prompt, TextPrompt):
        specials = language.encoder.specials
        return [Piece(piece.text, specials) for piece in pieces]
    return pieces
