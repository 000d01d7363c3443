"""The store on disk: shared cores, whole files only."""

from __future__ import annotations

import pytest

from tests.tokenizers_offline.vocabularies import config_bytes, document_bytes
from tokenizers_offline.installing import StoreWriter
from tokenizers_offline.prompt import CountingError
from tokenizers_offline.store import TokenizerStore
from tokenizers_offline.verdicts import recorded
from tokenizers_offline.vocabulary import from_tokenizer_json


def install(writer: StoreWriter, name: str, **options: tuple[str, ...]) -> None:
    vocabulary = from_tokenizer_json(document_bytes(**options), config=config_bytes())
    writer.install(name, vocabulary, family="Tiny", specials=True, source="test")


def files(writer: StoreWriter, kind: str) -> list[str]:
    return sorted(path.name for path in (writer.root / kind).iterdir())


def test_core_is_kept_once_when_two_encodings_share_it(writer: StoreWriter) -> None:
    install(writer, "one")
    install(writer, "two", added=("<|user|>",))
    assert files(writer, "encodings") == ["one.json", "two.json"]
    assert len(files(writer, "cores")) == 1


def test_nothing_half_written_is_left(writer: StoreWriter) -> None:
    install(writer, "one")
    assert not list(writer.root.rglob(".*"))


def test_verdict_on_the_engines_is_recorded(writer: StoreWriter) -> None:
    install(writer, "one")
    assert recorded(writer.store.encoding("one").engines) == {"fastokens": True, "splintr": True}


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a b"])
def test_name_is_refused_when_it_could_leave_the_store(writer: StoreWriter, name: str) -> None:
    with pytest.raises(CountingError, match="cannot name"):
        install(writer, name)


def test_recheck_restores_the_verdict(writer: StoreWriter) -> None:
    install(writer, "one")
    before = writer.store.encoding("one")
    found = writer.recheck("one")
    assert found.name == "one"
    assert TokenizerStore(writer.root).encoding("one") == before
