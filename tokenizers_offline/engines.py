"""The engines that can count an encoding, all behind one `Encoder`.

`tokenizers` is the reference that every encoding must load in. `fastokens` is some two hundred times faster on long
text and takes 65 to 140 MB an encoding; `splintr` is as fast on short text, twenty times faster than the reference on
long text, and takes 25 to 45 MB. Which of them count an encoding right, `verdicts` finds out. All release the GIL while
they encode (`tokenizers` and `splintr` only in their batch calls), so a long text in a thread does not stop the event
loop.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import tokenizers

from tokenizers_offline.store import InstalledEncoding
from tokenizers_offline.vocabulary import assemble, is_byte_level, without_merges

_LONG_TEXT = 16_384
"""From so many characters on `splintr` encodes without the GIL, in a thread of its own."""


class Encoder(Protocol):
    """Counts the tokens of one encoding. `engine` is the library that does it; `at_once` how many characters an event
    loop may have it count in one go, 0 for none; `specials` says whether special tokens written in plain text are
    recognised by this encoding's own rule."""

    name: str
    revision: str
    specials: bool

    @property
    def engine(self) -> str: ...

    @property
    def at_once(self) -> int: ...

    def count(self, text: str, *, specials: bool) -> int:
        """How many tokens a text has, no start token added. A lone surrogate counts as U+FFFD does."""
        ...

    def named(self, record: InstalledEncoding) -> Encoder:
        """The same engine object under another encoding's name; both encodings count by one revision."""
        ...


class ReferenceEncoder:
    """Counts with `tokenizers`."""

    engine = "tokenizers"
    at_once = 0

    def __init__(self, record: InstalledEncoding, core: str) -> None:
        self.name = record.name
        self.revision = record.revision
        self.specials = record.specials
        self._recognising = tokenizers.Tokenizer.from_str(assemble(core, record.frame))
        self._ordinary = _without_specials(self._recognising, record)

    def named(self, record: InstalledEncoding) -> Encoder:
        """The same vocabulary in memory, under another name."""
        return _named(self, record)

    def count(self, text: str, *, specials: bool) -> int:
        """How many tokens a text has."""
        encode = (self._recognising if specials else self._ordinary).encode_batch_fast
        try:
            return len(encode([text], add_special_tokens=False)[0])
        except (TypeError, UnicodeEncodeError):
            return len(encode([_without_lone_surrogates(text)], add_special_tokens=False)[0])


class FastEncoder:
    """Counts with `fastokens`."""

    engine = "fastokens"
    at_once = 65_536

    def __init__(self, record: InstalledEncoding, core: str) -> None:
        # Its own threads would each keep a cache of tens of megabytes, and on few cores make long texts slower:
        # 400 kB new text took 6 ms on one thread and 23 ms on two (measured, 2 cores). Read when it is first used.
        os.environ.setdefault("FASTOKENS_BPE_THREADS", "1")
        import fastokens

        self.name = record.name
        self.revision = record.revision
        self.specials = record.specials
        document = assemble(core, record.frame)
        self._encode: Callable[..., tuple[bytes, bytes]] = fastokens.Tokenizer.from_json_str(document).encode_batch_flat

    def named(self, record: InstalledEncoding) -> Encoder:
        """The same vocabulary in memory, under another name."""
        return _named(self, record)

    def count(self, text: str, *, specials: bool) -> int:
        """How many tokens a text has."""
        try:
            return len(self._encode([text], split_special_tokens=not specials)[0]) >> 2  # four bytes an id
        except (TypeError, UnicodeEncodeError):
            repaired = _without_lone_surrogates(text)
            return len(self._encode([repaired], split_special_tokens=not specials)[0]) >> 2


class LightEncoder:
    """Counts with `splintr`.

    Special tokens are left out of what it loads, so that they are ordinary text to it; where they are recognised, the
    text is cut at them here. The merges of a byte-level vocabulary are left out too: its ids tell them (`verdicts`
    looks whether they do), and without them it needs a third less memory.
    """

    engine = "splintr"
    at_once = 8_192

    def __init__(self, record: InstalledEncoding, core: str) -> None:
        # One thread: the worker processes are the parallelism, and it is here to save memory. Read when first used.
        os.environ.setdefault("RAYON_NUM_THREADS", "1")
        import splintr

        self.name = record.name
        self.revision = record.revision
        self.specials = record.specials
        added = record.frame["added_tokens"]
        frame = {**record.frame, "added_tokens": [token for token in added if not token["special"]]}
        document = assemble(without_merges(core) if is_byte_level(frame) else core, frame)
        loaded = splintr.from_json_bytes(document.encode())
        self._encode: Callable[[str], bytes] = loaded.encode_flat
        self._encode_long: Callable[[list[str]], tuple[bytes, bytes]] = loaded.encode_batch_flat
        self._added = _any_of([token["content"] for token in added])

    def named(self, record: InstalledEncoding) -> Encoder:
        """The same vocabulary in memory, under another name."""
        return _named(self, record)

    def count(self, text: str, *, specials: bool) -> int:
        """How many tokens a text has."""
        try:
            return self._recognising(text) if specials else self._ordinary(text)
        except (TypeError, UnicodeEncodeError):
            repaired = _without_lone_surrogates(text)
            return self._recognising(repaired) if specials else self._ordinary(repaired)

    def _recognising(self, text: str) -> int:
        if self._added is None:
            return self._ordinary(text)
        total = start = 0
        for found in self._added.finditer(text):
            total += self._ordinary(text[start : found.start()]) + 1
            start = found.end()
        return total + self._ordinary(text[start:] if start else text)

    def _ordinary(self, text: str) -> int:
        if len(text) < _LONG_TEXT:
            return len(self._encode(text)) >> 2 if text else 0  # four bytes an id
        return len(self._encode_long([text])[0]) >> 2


_SameEngine = TypeVar("_SameEngine", ReferenceEncoder, FastEncoder, LightEncoder)


def _named(encoder: _SameEngine, record: InstalledEncoding) -> _SameEngine:
    renamed = copy.copy(encoder)
    renamed.name, renamed.specials = record.name, record.specials
    return renamed


def _without_specials(whole: Any, record: InstalledEncoding) -> Any:
    """A second tokenizer over the same vocabulary in memory, in which special tokens are ordinary text.

    Setting `encode_special_tokens` on one shared object instead would race between threads.
    """
    plain = tokenizers.Tokenizer(whole.model)
    if whole.normalizer is not None:
        plain.normalizer = whole.normalizer
    if whole.pre_tokenizer is not None:
        plain.pre_tokenizer = whole.pre_tokenizer
    kept = [token for token in record.frame["added_tokens"] if not token["special"]]
    plain.add_tokens(
        [
            tokenizers.AddedToken(
                token["content"],
                single_word=token["single_word"],
                lstrip=token["lstrip"],
                rstrip=token["rstrip"],
                normalized=token["normalized"],
            )
            for token in kept
        ]
    )
    return plain


def _without_lone_surrogates(text: str) -> str:
    """Pairs of surrogates become their character, lone ones U+FFFD: what tiktoken does with them."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _any_of(tokens: list[str]) -> re.Pattern[str] | None:
    """Finds the first of some tokens, the longest where two begin together; None when there are none."""
    listed = sorted(filter(None, tokens), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, listed))) if listed else None
