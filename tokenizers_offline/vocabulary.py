"""A tokenizer's vocabulary in the one form that is stored, whatever file it came in.

A `Vocabulary` is a core (vocabulary and merges: megabytes, often shared by several encodings) and a frame
(everything else of a ``tokenizer.json``: added tokens, normaliser, pre-tokeniser). Two files that count alike
because they differ only in formatting give the same `revision`, so one pin serves every source of an encoding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_MODEL_SETTINGS = ("unk_token", "fuse_unk", "byte_fallback", "ignore_merges")


class BadVocabulary(Exception):
    """A tokenizer file that cannot be read; the message says which part and what was expected."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`core` is the JSON text ``"vocab":{...},"merges":[...]``; `frame` the document without those two members.

    `core_id` is the SHA-256 of the core; `revision` is the SHA-256 over core and frame, equal for every source
    that counts by the same document. Both in hex.
    """

    core: str = field(repr=False)
    frame: Mapping[str, Any] = field(repr=False)
    templates: Mapping[str, str]
    """Chat templates that came beside the vocabulary, by name; "" is the default one."""
    core_id: str = field(init=False)
    revision: str = field(init=False)

    def __post_init__(self) -> None:
        core_id = hashlib.sha256(self.core.encode()).hexdigest()
        object.__setattr__(self, "core_id", core_id)
        object.__setattr__(self, "revision", revision_of(core_id, self.frame))


def revision_of(core_id: str, frame: Mapping[str, Any]) -> str:
    """The revision of a stored encoding, from its core's SHA-256 and its frame."""
    text = core_id + json.dumps(frame, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def assemble(core: str, frame: Mapping[str, Any]) -> str:
    """The whole ``tokenizer.json`` text, by joining strings: the megabytes are never parsed in Python."""
    outer = {name: value for name, value in frame.items() if name != "model"}
    head = json.dumps(outer, ensure_ascii=False, separators=(",", ":"))
    model = json.dumps(frame["model"], ensure_ascii=False, separators=(",", ":"))
    return f'{head[:-1]},"model":{model[:-1]},{core}}}}}'


def without_merges(core: str) -> str:
    """A core with an empty list of merges; nothing in a JSON string can look like the joint that is cut at."""
    joint = '},"merges":['
    return f"{core[: core.rindex(joint)]}{joint}]"


def steps(node: Mapping[str, Any] | None, members: str) -> list[Mapping[str, Any]]:
    """The steps of a normaliser or pre-tokeniser, sequences laid flat; `members` is what a sequence calls its own."""
    if node is None:
        return []
    if node["type"] == "Sequence":
        return [step for child in node[members] for step in steps(child, members)]
    return [node]


def is_byte_level(frame: Mapping[str, Any]) -> bool:
    """Whether an encoding's vocabulary spells bytes."""
    return any(step["type"] == "ByteLevel" for step in steps(frame.get("pre_tokenizer"), "pretokenizers"))


def added_token(content: str, token_id: int, **flags: bool) -> dict[str, Any]:
    """One entry of ``added_tokens``; a flag left out is off, except ``special``."""
    return {"id": token_id, "content": content, **{flag: flags.get(flag, flag == "special") for flag in _FLAGS}}


def from_tokenizer_json(
    data: bytes,
    *,
    config: bytes | None = None,
    template: bytes | None = None,
    fixes: Iterable[str] = (),
    added: Iterable[tuple[str, int]] | None = None,
) -> Vocabulary:
    """A vocabulary from ``tokenizer.json``, with the added tokens and chat template of ``tokenizer_config.json``.

    `template` is a ``chat_template.jinja`` kept in its own file; `added` replaces the added tokens;
    `fixes` are named repairs (see `_FIXES`).
    """
    try:
        document = json.loads(data)
        settings = json.loads(config) if config else {}
        model = document["model"]
        vocab, merges = model["vocab"], model["merges"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadVocabulary(
            f"This is not a byte-pair tokenizer.json (model.vocab and model.merges expected): {error!r}"
        ) from error
    if model.get("type", "BPE") != "BPE" or not isinstance(vocab, dict):
        raise BadVocabulary(f"The tokenizer's model is {model.get('type')!r}; only BPE vocabularies are supported.")
    tokens = [_own_token(token) for token in document.get("added_tokens") or ()]
    tokens += _config_tokens(settings, known={token["content"] for token in tokens})
    if added is not None:
        tokens = [added_token(content, token_id) for content, token_id in added]
    frame: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(tokens, key=lambda token: int(token["id"])),
        "normalizer": document.get("normalizer"),
        "pre_tokenizer": document.get("pre_tokenizer"),
        "post_processor": None,
        "decoder": None,
        "model": {"type": "BPE", "dropout": None, **_model_settings(model)},
    }
    for fix in fixes:
        if fix not in _FIXES:
            raise BadVocabulary(f"Unknown fix '{fix}'; known: {', '.join(sorted(_FIXES))}.")
        vocab = _FIXES[fix](frame, vocab)
    joined = [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]
    return Vocabulary(core=_core(vocab, joined), frame=frame, templates=_templates(settings, template))


def byte_level_frame(
    pattern: str, *, added: Iterable[tuple[str, int]], normalizer: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The frame of a vocabulary published as byte ranks: a splitting pattern and special tokens."""
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(content, token_id) for content, token_id in sorted(added, key=lambda t: t[1])],
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "BPE", "dropout": None, **_model_settings({})},
    }


def build(vocab: Mapping[str, int], merges: Iterable[str], frame: Mapping[str, Any]) -> Vocabulary:
    """A vocabulary from its parts, for formats that are not ``tokenizer.json``."""
    return Vocabulary(core=_core(vocab, list(merges)), frame=frame, templates={})


def _core(vocab: Mapping[str, int], merges: list[str]) -> str:
    ordered = dict(sorted(vocab.items(), key=lambda item: item[1]))
    return json.dumps({"vocab": ordered, "merges": merges}, ensure_ascii=False, separators=(",", ":"))[1:-1]


def _model_settings(model: Mapping[str, Any]) -> dict[str, Any]:
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix") or model.get("dropout"):
        raise BadVocabulary("Subword prefixes, word suffixes and dropout are not supported.")
    defaults: dict[str, Any] = {"unk_token": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    return {name: model.get(name, defaults[name]) for name in _MODEL_SETTINGS}


def _own_token(token: Mapping[str, Any]) -> dict[str, Any]:
    flags = {flag: bool(token.get(flag, False)) for flag in _FLAGS}
    return {"id": int(token["id"]), "content": str(token["content"]), **flags}


def _config_tokens(settings: Mapping[str, Any], *, known: set[str]) -> list[dict[str, Any]]:
    """The tokens only ``tokenizer_config.json`` names: without them some models' role markers fall to pieces."""
    listed = settings.get("added_tokens_decoder") or {}
    return [
        _own_token({**token, "id": int(token_id)})
        for token_id, token in listed.items()
        if token["content"] not in known
    ]


def _templates(settings: Mapping[str, Any], template: bytes | None) -> dict[str, str]:
    if template is not None:
        return {"": template.decode()}
    found = settings.get("chat_template")
    if isinstance(found, str):
        return {"": found}
    if isinstance(found, list):
        return {"" if entry["name"] == "default" else entry["name"]: entry["template"] for entry in found}
    return {}


def _without_prepend(frame: dict[str, Any], vocab: dict[str, int]) -> dict[str, int]:
    """Baichuan-2's converted file prepends a word mark that the official SentencePiece model does not."""
    steps = [step for step in frame["normalizer"]["normalizers"] if step["type"] != "Prepend"]
    frame["normalizer"] = {"type": "Sequence", "normalizers": steps}
    return vocab


def _added_out_of_vocab(frame: dict[str, Any], vocab: dict[str, int]) -> dict[str, int]:
    """Some conversions list special tokens among the ordinary ones; byte ranks never do."""
    special = {token["content"] for token in frame["added_tokens"]}
    return {token: token_id for token, token_id in vocab.items() if token not in special}


def _without_added(frame: dict[str, Any], vocab: dict[str, int]) -> dict[str, int]:
    """Keep to the added tokens of the vocabulary's own three (unknown, start, end)."""
    frame["added_tokens"] = [token for token in frame["added_tokens"] if int(token["id"]) <= 2]
    return vocab


_FIXES = {
    "drop_prepend": _without_prepend,
    "added_out_of_vocab": _added_out_of_vocab,
    "base_tokens_only": _without_added,
}
