"""One form for every file: what formatting cannot change, and what must be refused."""

from __future__ import annotations

import json

import pytest
import tokenizers

from tests.tokenizers_offline.vocabularies import config_bytes, document, document_bytes
from tokenizers_offline.vocabulary import BadVocabulary, assemble, from_tokenizer_json


def test_revision_is_the_same_for_array_and_string_merges() -> None:
    strings, arrays = (from_tokenizer_json(document_bytes(array_merges=form)) for form in (False, True))
    assert strings.revision == arrays.revision


def test_revision_is_the_same_when_only_formatting_differs() -> None:
    shuffled = document()
    shuffled["model"]["vocab"] = dict(reversed(shuffled["model"]["vocab"].items()))
    spaced = json.dumps(shuffled, indent=3).encode()
    assert from_tokenizer_json(spaced).revision == from_tokenizer_json(document_bytes()).revision


def test_revision_changes_with_an_added_token_but_the_core_does_not() -> None:
    plain, other = from_tokenizer_json(document_bytes()), from_tokenizer_json(document_bytes(added=("<|user|>",)))
    assert plain.core_id == other.core_id
    assert plain.revision != other.revision


def test_assembled_document_loads_and_counts() -> None:
    vocabulary = from_tokenizer_json(document_bytes())
    loaded = tokenizers.Tokenizer.from_str(assemble(vocabulary.core, vocabulary.frame))
    assert loaded.encode("hello world").tokens == ["hello", "Ġwor", "ld"]


def test_added_tokens_of_the_config_are_loaded_too() -> None:
    vocabulary = from_tokenizer_json(document_bytes(), config=config_bytes())
    assert [token["content"] for token in vocabulary.frame["added_tokens"]] == ["<|user|>", "<|end|>", "<|extra|>"]


def test_chat_template_file_wins_over_the_config() -> None:
    vocabulary = from_tokenizer_json(document_bytes(), config=config_bytes(template="old"), template=b"new")
    assert vocabulary.templates == {"": "new"}


def test_named_chat_templates_are_kept_apart() -> None:
    listed = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    config = json.dumps({"chat_template": listed}).encode()
    assert from_tokenizer_json(document_bytes(), config=config).templates == {"": "a", "tool_use": "b"}


def test_prepend_is_dropped_when_the_fix_says_so() -> None:
    broken = document()
    broken["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    fixed = from_tokenizer_json(json.dumps(broken).encode(), fixes=["drop_prepend"])
    assert [step["type"] for step in fixed.frame["normalizer"]["normalizers"]] == ["Replace"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"not json", "byte-pair"),
        (b"{}", "byte-pair"),
        (b'{"model": {"type": "WordPiece", "vocab": {}, "merges": []}}', "WordPiece"),
        (b'{"model": {"vocab": {}, "merges": [], "dropout": 0.1}}', "dropout"),
    ],
)
def test_file_is_refused_when_it_is_no_supported_tokenizer(data: bytes, words: str) -> None:
    with pytest.raises(BadVocabulary, match=words):
        from_tokenizer_json(data)
