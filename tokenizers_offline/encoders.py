"""One `Encoder` for each installed encoding, over whichever engine counts it right and fast.

`tokenizers` is the reference that every encoding must load in. `fastokens` is some fifty times faster and is used
for an encoding only after it counted a hostile corpus exactly as the reference did; the verdict is recorded when the
encoding is installed and asked for again when either engine's version changes. Both engines release the GIL while
they encode (`tokenizers` only in its batch call), so a long text in a thread does not stop the event loop.
"""

from __future__ import annotations

import copy
import ctypes
import logging
import os
import threading
from collections.abc import Callable
from functools import cache
from importlib import metadata
from typing import Any, Literal, Protocol, TypeVar

import tokenizers

from tokenizers_offline.engine_check import corpus_id, first_difference, hostile_texts
from tokenizers_offline.prompt import CountingError
from tokenizers_offline.store import InstalledEncoding, TokenizerStore
from tokenizers_offline.vocabulary import assemble

Engine = Literal["auto", "reference", "fast"]

_log = logging.getLogger(__name__)


class Encoder(Protocol):
    """Counts the tokens of one encoding. `engine` is the library that does it, `is_fast` whether it takes about 10 us
    for a thousand characters; `specials` says whether special tokens written in plain text are recognised by this
    encoding's own rule."""

    name: str
    revision: str
    engine: str
    is_fast: bool
    specials: bool

    def count(self, text: str, *, specials: bool) -> int:
        """How many tokens a text has, no start token added. A lone surrogate counts as U+FFFD does."""
        ...

    def named(self, record: InstalledEncoding) -> Encoder:
        """The same engine object under another encoding's name; both encodings count by one revision."""
        ...


class EngineUnusable(CountingError):
    """The engine asked for cannot count this encoding as the reference does; the message says how it differs."""


class Encoders:
    """Loads encoders when first asked for and shares them between threads."""

    def __init__(self, store: TokenizerStore, *, engine: Engine = "auto") -> None:
        self._store = store
        self._engine = engine
        self._loaded: dict[str, Encoder] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, encoding: str) -> Encoder:
        """The encoder of an installed encoding; raises `TokenizerUnavailable` when it is not installed.

        The first call for an encoding takes up to two seconds, with the GIL held for parts of it: call it
        from a thread or before serving.
        """
        found = self._loaded.get(encoding)
        if found is not None:
            return found
        with self._lock:
            lock = self._locks.setdefault(encoding, threading.Lock())
        with lock:
            found = self._loaded.get(encoding)
            if found is None:
                found = self._loaded[encoding] = self._load(self._store.encoding(encoding))
                _return_freed_memory()
            return found

    def loaded(self) -> tuple[Encoder, ...]:
        """The encoders in memory now."""
        return tuple(self._loaded.values())

    def is_loaded(self, encoding: str) -> bool:
        """Whether `get` answers at once."""
        return encoding in self._loaded

    def _load(self, record: InstalledEncoding) -> Encoder:
        for other in self._loaded.values():
            if other.revision == record.revision:
                return other.named(record)
        document = assemble(self._store.core(record.core), record.frame)
        if self._engine == "reference":
            return ReferenceEncoder(record, document)
        equal = record.engines.get(check_id()) if self._engine == "auto" else None
        if equal is None:
            checked = check_engines(record, document)
            if checked.fast is None and self._engine == "fast":
                raise EngineUnusable(f"fastokens cannot count '{record.name}': {checked.why}.")
            if checked.fast is None:
                _log.info("tokenizer %s counts with the reference engine: %s", record.name, checked.why)
            return checked.fast or checked.reference
        if equal:
            return FastEncoder(record, document)
        return ReferenceEncoder(record, document)


class ReferenceEncoder:
    """Counts with `tokenizers`."""

    engine = "tokenizers"
    is_fast = False

    def __init__(self, record: InstalledEncoding, document: str) -> None:
        self.name = record.name
        self.revision = record.revision
        self.specials = record.specials
        self._recognising = tokenizers.Tokenizer.from_str(document)
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
    is_fast = True

    def __init__(self, record: InstalledEncoding, document: str) -> None:
        # Its own threads would each keep a cache of tens of megabytes, and on few cores make long texts slower:
        # 400 kB new text took 6 ms on one thread and 23 ms on two (measured, 2 cores). Read when it is first used.
        os.environ.setdefault("FASTOKENS_BPE_THREADS", "1")
        import fastokens

        self.name = record.name
        self.revision = record.revision
        self.specials = record.specials
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


_SameEngine = TypeVar("_SameEngine", ReferenceEncoder, FastEncoder)


class EngineChecked:
    """The outcome of comparing the engines on one encoding: `fast` is None when it must not be used, `why` says why."""

    def __init__(self, reference: ReferenceEncoder, fast: FastEncoder | None, why: str) -> None:
        self.reference = reference
        self.fast = fast
        self.why = why


def check_engines(record: InstalledEncoding, document: str) -> EngineChecked:
    """Load both engines and compare them on texts made to disagree, specials recognised and not."""
    reference = ReferenceEncoder(record, document)
    if fast_version() is None:
        return EngineChecked(reference, None, "fastokens is not installed")
    try:
        fast = FastEncoder(record, document)
    except Exception as error:
        return EngineChecked(reference, None, f"fastokens cannot load it ({error})")
    texts = hostile_texts(tokens=[token["content"] for token in record.frame["added_tokens"]])
    for specials in (True, False):

        def by_reference(text: str, specials: bool = specials) -> int:
            return reference.count(text, specials=specials)

        def by_fast(text: str, specials: bool = specials) -> int:
            return fast.count(text, specials=specials)

        try:
            difference = first_difference(texts, by_reference, by_fast)
        except Exception as error:
            return EngineChecked(reference, None, f"fastokens failed on the check's texts ({error})")
        if difference is not None:
            text, expected, found = difference
            why = f"fastokens counts {found} where the reference counts {expected}, in {text[:60]!r}"
            return EngineChecked(reference, None, why)
    return EngineChecked(reference, fast, "")


@cache
def fast_version() -> str | None:
    """The version of the fast engine; None when it is not installed (it has wheels for some machines only)."""
    try:
        return metadata.version("fastokens")
    except metadata.PackageNotFoundError:
        return None


@cache
def check_id() -> str:
    """What a recorded verdict was reached with: both engines' versions and the texts."""
    return f"fastokens {fast_version()} = tokenizers {tokenizers.__version__} on {corpus_id()}"


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


@cache
def _allocator() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # not glibc
        return None


def _return_freed_memory() -> None:
    """Give back what loading needed for a moment (up to 70 MB an encoding), which glibc would keep."""
    trim = _allocator()
    if trim is not None:
        trim(0)


def _without_lone_surrogates(text: str) -> str:
    """Pairs of surrogates become their character, lone ones U+FFFD: what tiktoken does with them."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
