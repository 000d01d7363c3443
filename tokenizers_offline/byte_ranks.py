"""Vocabularies published as other than ``tokenizer.json``: byte ranks, SentencePiece models, llama-tokenizer-js.

Byte ranks ("tiktoken" files: base64 token, space, rank) say in which order to merge only by rank. The merge that
makes a token is found by running the same byte-pair merging over its bytes with only the lower ranks allowed; the
last two parts are the merge. SentencePiece's BPE ranks every pair of pieces whose joint is a piece by that piece's
score.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tokenizers_offline.vocabulary import (
    BadVocabulary,
    Vocabulary,
    added_token,
    build,
    byte_level_frame,
)

WORD_MARK = "▁"

PATTERNS = {
    # The splitting patterns that OpenAI and Qwen publish with their ranks.
    "cl100k": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "o200k": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "qwen": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}


def from_byte_ranks(
    data: bytes, *, pattern: str, added: Iterable[tuple[str, int]] = (), normalizer: str | None = None
) -> Vocabulary:
    """A vocabulary from a ranks file. `pattern` names one of `PATTERNS`; `normalizer` a Unicode form (``NFC``)."""
    if pattern not in PATTERNS:
        raise BadVocabulary(f"Unknown splitting pattern '{pattern}'; known: {', '.join(PATTERNS)}.")
    ranks = _read_ranks(data)
    spelled = byte_letters()

    def spell(token: bytes) -> str:
        return "".join(spelled[byte] for byte in token)

    vocab = {spell(token): rank for token, rank in ranks.items()}
    merges = [f"{spell(left)} {spell(right)}" for left, right in _merges(ranks)]
    form = {"type": normalizer} if normalizer else None
    return build(vocab, merges, byte_level_frame(PATTERNS[pattern], added=added, normalizer=form))


def from_sentencepiece(data: bytes, *, prepend: bool = True) -> Vocabulary:
    """A vocabulary from a SentencePiece BPE model file. `prepend`: whether a word mark goes before the text."""
    pieces = list(_read_pieces(data))
    if not pieces:
        raise BadVocabulary("The SentencePiece model has no pieces.")
    vocab = {piece: index for index, (piece, _, _) in enumerate(pieces)}
    ranked: list[tuple[float, int, int, int, str]] = []
    for piece, score, _ in pieces:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocab and right in vocab:
                ranked.append((-score, vocab[piece], vocab[left], vocab[right], f"{left} {right}"))
    ranked.sort()  # best score first, then pieces in their order, then the ways to cut one by its parts' order
    merges = [merge for *_, merge in ranked]
    unknown = next((piece for piece, _, kind in pieces if kind == _UNKNOWN), None)
    control = [(piece, index) for index, (piece, _, kind) in enumerate(pieces) if kind in (_UNKNOWN, _CONTROL)]
    return build(vocab, merges, _metaspace_frame(unknown=unknown, added=control, prepend=prepend))


def from_llama_tokenizer_js(data: bytes) -> Vocabulary:
    """Llama-2's vocabulary from llama-tokenizer-js: base64 of the tokens by line, base64 of index pairs (uint16)."""
    text = data.decode()
    found = {
        name: match.group(1)
        for name in ("llama_vocab_base64", "llama_merges_binary")
        if (match := re.search(rf"{name}\s*=\s*[\"'`]([A-Za-z0-9+/=]+)[\"'`]", text))
    }
    if len(found) != 2:
        raise BadVocabulary("llama-tokenizer-js has changed its form: its two base64 tables were not found.")
    tokens = base64.b64decode(found["llama_vocab_base64"]).decode().split("\n")
    packed = base64.b64decode(found["llama_merges_binary"])
    indices = struct.unpack(f"<{len(packed) // 2}H", packed)
    merges = [f"{tokens[left]} {tokens[right]}" for left, right in zip(indices[::2], indices[1::2], strict=True)]
    control = [("<unk>", 0), ("<s>", 1), ("</s>", 2)]
    vocab = {token: index for index, token in enumerate(tokens)}
    return build(vocab, merges, _metaspace_frame(unknown="<unk>", added=control, prepend=True))


def _metaspace_frame(*, unknown: str | None, added: Iterable[tuple[str, int]], prepend: bool) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": " "}, "content": WORD_MARK}]
    if prepend:
        steps.insert(0, {"type": "Prepend", "prepend": WORD_MARK})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(content, token_id) for content, token_id in added],
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
        },
    }


def _read_ranks(data: bytes) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise BadVocabulary(f"Line {number} of the ranks file is not 'base64 rank'.") from error
    if not ranks:
        raise BadVocabulary("The ranks file is empty.")
    return ranks


def byte_letters() -> tuple[str, ...]:
    """One printable letter for each byte, as byte-level BPE spells them: printable Latin-1 stays itself, the
    other 68 bytes take the code points from 256 on, in order (GPT-2)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = iter(range(256, 512))
    return tuple(chr(byte) if byte in printable else chr(next(moved)) for byte in range(256))


def _merges(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    for token, own in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            best, at = own, -1
            for i in range(len(parts) - 1):
                rank = ranks.get(parts[i] + parts[i + 1], own)
                if rank < best:
                    best, at = rank, i
            if at < 0:
                raise BadVocabulary(f"No merge makes token {token!r} (rank {own}).")
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        yield parts[0], parts[1]


_UNKNOWN, _CONTROL = 2, 3
"""Piece kinds of SentencePiece's ModelProto."""


def _read_pieces(data: bytes) -> Iterator[tuple[str, float, int]]:
    """(piece, score, kind) of a ModelProto: field 1 repeats {1: text, 2: float score, 3: kind, default normal}."""
    for field, value in _fields(data):
        if field != 1 or not isinstance(value, bytes):
            continue
        text, score, kind = "", 0.0, 1
        for inner, part in _fields(value):
            if inner == 1 and isinstance(part, bytes):
                text = part.decode()
            elif inner == 2 and isinstance(part, bytes):
                (score,) = struct.unpack("<f", part)
            elif inner == 3 and isinstance(part, int):
                kind = part
        yield text, score, kind


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of one protobuf message: whole numbers for varints, bytes for everything else."""
    at = 0
    try:
        while at < len(data):
            key, at = _varint(data, at)
            wire = key & 7
            if wire == 0:
                number, at = _varint(data, at)
                yield key >> 3, number
                continue
            if wire == 2:
                length, at = _varint(data, at)
            elif wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                raise BadVocabulary("The SentencePiece model is damaged: unknown wire type.")
            if at + length > len(data):
                raise BadVocabulary("The SentencePiece model is cut short.")
            yield key >> 3, data[at : at + length]
            at += length
    except IndexError as error:
        raise BadVocabulary("The SentencePiece model is cut short.") from error


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
