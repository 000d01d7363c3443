"""What is loaded at start: the only encoding in the fast engine, several in the light one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.app import load_tokenizers, preload
from gateway.settings import ServerSettings, Settings, TokenizerSettings
from policies.policy import Policy
from tests.tokenizers_offline.vocabularies import document_bytes
from tokenizers_offline.installing import StoreWriter
from tokenizers_offline.vocabulary import from_tokenizer_json


def install(folder: Path, names: Sequence[str]) -> None:
    writer = StoreWriter(folder)
    for name in names:
        vocabulary = from_tokenizer_json(document_bytes(added=(f"<|{name}|>",)))
        writer.install(name, vocabulary, family="", specials=True, source="test")


@pytest.mark.parametrize(
    ("names", "workers", "engine"),
    [
        (("one",), 1, "fastokens"),
        (("one", "two"), 1, "splintr"),
        (("one",), 2, "fastokens"),
        (("one", "two"), 2, "splintr"),
    ],
)
def test_engine_follows_from_what_is_preloaded(
    tmp_path: Path, names: tuple[str, ...], workers: int, engine: str
) -> None:
    install(tmp_path, names)
    settings = Settings(
        policy=Policy(),
        server=ServerSettings(workers=workers),
        tokenizers=TokenizerSettings(dir=tmp_path, preload=names),
    )
    counter = load_tokenizers(settings)
    assert list(preload(counter, settings)) == [None] * len(names)
    assert {encoder.name: encoder.engine for encoder in counter.encoders.loaded()} == dict.fromkeys(names, engine)


@pytest.mark.parametrize(("workers", "fast"), [(1, 3), (2, 2), (3, 1), (8, 1)])
def test_more_workers_have_fewer_encodings_in_the_fast_engine(tmp_path: Path, workers: int, fast: int) -> None:
    names = ("one", "two", "three")
    install(tmp_path, names)
    server, tokenizers = ServerSettings(workers=workers), TokenizerSettings(dir=tmp_path)
    encoders = load_tokenizers(Settings(policy=Policy(), server=server, tokenizers=tokenizers)).encoders
    engines = [encoders.get(name, fast=True).engine for name in names]
    assert engines == ["fastokens"] * fast + ["splintr"] * (3 - fast)
