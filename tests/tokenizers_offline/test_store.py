"""What is installed is read back verified; what is damaged, foreign or missing is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tokenizers_offline.vocabularies import config_bytes, document_bytes
from tokenizers_offline.installing import StoreWriter
from tokenizers_offline.prompt import TokenizerUnavailable
from tokenizers_offline.store import DamagedStore, TokenizerStore
from tokenizers_offline.vocabulary import from_tokenizer_json


@pytest.fixture
def filled(writer: StoreWriter) -> TokenizerStore:
    vocabulary = from_tokenizer_json(document_bytes(), config=config_bytes(template="{{ 1 }}"))
    writer.install("tiny", vocabulary, family="Tiny", specials=True, source="test")
    return TokenizerStore(writer.root)


def test_installed_encoding_is_listed_with_its_revision_and_template(filled: TokenizerStore) -> None:
    assert filled.installed() == ("tiny",)
    assert filled.template("tiny") == "{{ 1 }}"
    assert filled.revision("tiny") == from_tokenizer_json(document_bytes(), config=config_bytes()).revision


def test_template_is_empty_when_there_is_none(filled: TokenizerStore) -> None:
    assert filled.template("other") == ""
    assert filled.template("../encodings/tiny") == ""


def test_empty_store_has_nothing(tmp_path: Path) -> None:
    assert TokenizerStore(tmp_path / "nowhere").installed() == ()


@pytest.mark.parametrize("name", ["absent", "../tiny", ""])
def test_encoding_is_unavailable_when_not_installed(filled: TokenizerStore, name: str) -> None:
    with pytest.raises(TokenizerUnavailable, match="not installed"):
        filled.encoding(name)


def test_fetch_while_running_is_seen(filled: TokenizerStore, writer: StoreWriter) -> None:
    assert filled.installed() == ("tiny",)
    writer.install("other", from_tokenizer_json(document_bytes()), family="", specials=True, source="test")
    assert filled.installed() == ("other", "tiny")


def test_damaged_core_is_refused(filled: TokenizerStore) -> None:
    path = filled.core_path(filled.encoding("tiny").core)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DamagedStore, match="tollgate tokenizers fetch --again"):
        filled.document("tiny")


def test_exchanged_core_is_refused(filled: TokenizerStore, writer: StoreWriter) -> None:
    other = document_bytes().replace(b'"ld"', b'"dl"').replace(b'"l d"', b'"d l"')
    writer.install("other", from_tokenizer_json(other), family="", specials=True, source="test")
    mine, its = (filled.core_path(filled.encoding(name).core) for name in ("tiny", "other"))
    assert mine != its
    mine.write_bytes(its.read_bytes())
    with pytest.raises(DamagedStore, match="does not match"):
        filled.document("tiny")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data["frame"]["added_tokens"].clear(), "revision"),
        (lambda data: data.update(format=99), "form is 99"),
        (lambda data: data.pop("core"), "missing"),
    ],
)
def test_changed_record_is_refused(filled: TokenizerStore, change: object, words: str) -> None:
    path = filled.root / "encodings" / "tiny.json"
    data = json.loads(path.read_text())
    change(data)  # type: ignore[operator]
    path.write_text(json.dumps(data))
    with pytest.raises(DamagedStore, match=words):
        TokenizerStore(filled.root).encoding("tiny")


def test_changed_template_is_refused(filled: TokenizerStore) -> None:
    path = filled.root / "templates" / "tiny.json"
    path.write_text(path.read_text().replace("{{ 1 }}", "{{ 2 }}"))
    with pytest.raises(DamagedStore, match="template"):
        filled.template("tiny")
