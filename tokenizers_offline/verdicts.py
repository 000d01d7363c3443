"""Which engines count an encoding as the reference does.

Found out when an encoding is installed, with texts made to disagree, and recorded with it for each engine; found out
again when a version of that engine, of the reference or of the texts is another one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata

import tokenizers

from tokenizers_offline.byte_ranks import byte_letters
from tokenizers_offline.engine_check import corpus_id, first_difference, hostile_texts
from tokenizers_offline.engines import Encoder, FastEncoder, LightEncoder, ReferenceEncoder
from tokenizers_offline.store import InstalledEncoding
from tokenizers_offline.vocabulary import is_byte_level

FAST, LIGHT, REFERENCE = FastEncoder.engine, LightEncoder.engine, ReferenceEncoder.engine

_PACKAGES = {FAST: "fastokens", LIGHT: "splintr-rs"}
_LOADERS: Mapping[str, Callable[[InstalledEncoding, str], Encoder]] = {FAST: FastEncoder, LIGHT: LightEncoder}


@dataclass(frozen=True, slots=True)
class Judged:
    """The outcome of comparing the engines on one encoding: `why_not` says for each that must not be used why."""

    reference: ReferenceEncoder
    why_not: Mapping[str, str]

    @property
    def verdicts(self) -> dict[str, bool]:
        """The verdict on each engine, by its name."""
        return {engine: engine not in self.why_not for engine in _LOADERS}


def judge(record: InstalledEncoding, core: str) -> Judged:
    """Load every engine, one after the other, and compare it with the reference, specials recognised and not."""
    reference = ReferenceEncoder(record, core)
    texts = hostile_texts(tokens=[token["content"] for token in record.frame["added_tokens"]])
    found = {engine: _difference(engine, record, core, reference, texts) for engine in _LOADERS}
    return Judged(reference, {engine: why for engine, why in found.items() if why})


def recorded(engines: Mapping[str, bool]) -> dict[str, bool] | None:
    """The verdicts of a record, by engine; None unless they are all there, by the very versions that are here."""
    known = {engine: engines.get(check_id(engine)) for engine in _LOADERS}
    judged = {engine: equal for engine, equal in known.items() if equal is not None}
    return judged if len(judged) == len(known) else None


def to_record(verdicts: Mapping[str, bool]) -> dict[str, bool]:
    """Verdicts as a record keeps them."""
    return {check_id(engine): equal for engine, equal in verdicts.items()}


def best(verdicts: Mapping[str, bool]) -> str:
    """The fastest engine that counts right."""
    return next((engine for engine in _LOADERS if verdicts[engine]), REFERENCE)


@cache
def check_id(engine: str) -> str:
    """What a recorded verdict was reached with: the versions of the engine and of the reference, and the texts."""
    return f"{engine} {_version(engine)} = tokenizers {tokenizers.__version__} on {corpus_id()}"


def _version(engine: str) -> str | None:
    """The version of an engine; None when it is not installed (they have wheels for some machines only)."""
    try:
        return metadata.version(_PACKAGES[engine])
    except metadata.PackageNotFoundError:
        return None


def _difference(
    engine: str, record: InstalledEncoding, core: str, reference: ReferenceEncoder, texts: list[str]
) -> str:
    """Why an engine must not count an encoding; "" when it may."""
    if _version(engine) is None:
        return f"{engine} is not installed"
    if engine == LIGHT and is_byte_level(record.frame) and not _ids_tell_merges(core):
        return f"{engine} would have to be given all merges, and take much memory"
    try:
        encoder = _LOADERS[engine](record, core)
    except Exception as error:
        return f"{engine} cannot load it ({error})"
    for specials in (True, False):

        def by_reference(text: str, specials: bool = specials) -> int:
            return reference.count(text, specials=specials)

        def by_other(text: str, specials: bool = specials) -> int:
            return encoder.count(text, specials=specials)

        try:
            difference = first_difference(texts, by_reference, by_other)
        except Exception as error:
            return f"{engine} failed on the check's texts ({error})"
        if difference is not None:
            text, expected, found = difference
            return f"{engine} counts {found} where the reference counts {expected}, in {text[:60]!r}"
    return ""


def _ids_tell_merges(core: str) -> bool:
    """Whether the ids of a byte-level vocabulary say in which order to merge.

    They do when each merge makes a token of the same or a higher id than the one before, and each token that spells
    more than a byte is made by one. (Qwen 3.5 has 201 that are not, none of them in the check's texts.)
    """
    data = json.loads(f"{{{core}}}")
    vocab: dict[str, int] = data["vocab"]
    made = [merge.replace(" ", "", 1) for merge in data["merges"]]
    ids = [vocab[token] for token in made]
    letters = set(byte_letters())
    never_made = vocab.keys() - set(made)
    return ids == sorted(ids) and not any(len(token) > 1 and letters.issuperset(token) for token in never_made)
