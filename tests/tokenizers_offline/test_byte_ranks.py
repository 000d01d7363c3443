"""Ranks, SentencePiece models and llama-tokenizer-js become the merges they imply."""

from __future__ import annotations

import base64
import json
import struct

import pytest
import tokenizers

from tests.tokenizers_offline.vocabularies import ranks_bytes, sentencepiece_bytes
from tokenizers_offline.byte_ranks import (
    byte_letters,
    from_byte_ranks,
    from_llama_tokenizer_js,
    from_sentencepiece,
)
from tokenizers_offline.vocabulary import BadVocabulary, Vocabulary, assemble


def merges(vocabulary: Vocabulary) -> list[str]:
    found: list[str] = json.loads(f"{{{vocabulary.core}}}")["merges"]
    return found


def tokens(vocabulary: Vocabulary, text: str) -> list[str]:
    loaded = tokenizers.Tokenizer.from_str(assemble(vocabulary.core, vocabulary.frame))
    found: list[str] = loaded.encode(text, add_special_tokens=False).tokens
    return found


def test_merges_follow_from_ranks() -> None:
    vocabulary = from_byte_ranks(ranks_bytes(), pattern="cl100k")
    assert merges(vocabulary) == ["a b", "b c", "ab c"]
    assert tokens(vocabulary, "abcbc") == ["abc", "bc"]


def test_byte_letters_are_one_printable_letter_each() -> None:
    letters = byte_letters()
    assert len(set(letters)) == 256
    assert (letters[ord("A")], letters[ord(" ")], letters[ord("\n")]) == ("A", "Ġ", "Ċ")
    assert all(letter.isprintable() for letter in letters)


def test_special_tokens_are_added_to_ranks() -> None:
    vocabulary = from_byte_ranks(ranks_bytes(), pattern="o200k", added=[("<|end|>", 300), ("<|start|>", 299)])
    assert tokens(vocabulary, "ab<|end|>") == ["ab", "<|end|>"]


@pytest.mark.parametrize("data", [b"", b"onlyoneword\n", b"!!! 3\n", b"YQ== x\n"])
def test_ranks_are_refused_when_damaged(data: bytes) -> None:
    with pytest.raises(BadVocabulary):
        from_byte_ranks(data, pattern="cl100k")


def test_ranks_are_refused_when_no_merge_makes_a_token() -> None:
    holes = b"YQ== 0\nYg== 1\nYw== 2\nYWJj 3\n"  # a, b, c and abc, but neither ab nor bc
    with pytest.raises(BadVocabulary, match="No merge makes"):
        from_byte_ranks(holes, pattern="cl100k")


PIECES = [
    ("<unk>", 0.0, 2),
    ("<s>", 0.0, 3),
    ("▁", -5.0, 1),
    ("a", -6.0, 1),
    ("b", -7.0, 1),
    ("ab", -1.0, 1),
    ("▁ab", -2.0, 1),
]


def test_sentencepiece_merges_come_by_score() -> None:
    vocabulary = from_sentencepiece(sentencepiece_bytes(PIECES))
    assert merges(vocabulary) == ["a b", "▁ ab"]
    assert tokens(vocabulary, "ab ab") == ["▁ab", "▁ab"]


def test_sentencepiece_without_prefix_counts_the_text_as_it_is() -> None:
    vocabulary = from_sentencepiece(sentencepiece_bytes(PIECES), prepend=False)
    assert tokens(vocabulary, "ab ab") == ["ab", "▁ab"]


@pytest.mark.parametrize("data", [b"", b"\x0a\xff", b"\x0a", b"\x0f"])
def test_sentencepiece_is_refused_when_cut_or_empty(data: bytes) -> None:
    with pytest.raises(BadVocabulary):
        from_sentencepiece(data)


def test_llama_tokenizer_js_tables_are_read() -> None:
    words = ["<unk>", "<s>", "</s>", "▁", "a", "b", "ab", "▁ab"]
    pairs = [words.index(word) for word in ("a", "b", "▁", "ab")]
    tables = {
        "llama_vocab_base64": base64.b64encode("\n".join(words).encode()).decode(),
        "llama_merges_binary": base64.b64encode(struct.pack("<4H", *pairs)).decode(),
    }
    script = "".join(f'const {name} = "{table}"\n' for name, table in tables.items()).encode()
    assert tokens(from_llama_tokenizer_js(script), "ab") == ["▁ab"]


def test_llama_tokenizer_js_is_refused_when_its_form_changed() -> None:
    with pytest.raises(BadVocabulary, match="changed its form"):
        from_llama_tokenizer_js(b"export const nothing = 1")
