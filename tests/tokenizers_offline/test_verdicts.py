"""An engine counts an encoding only if it counts as the reference does, in the versions that were judged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.tokenizers_offline.vocabularies import document
from tokenizers_offline.store import InstalledEncoding
from tokenizers_offline.verdicts import best, judge, recorded, to_record
from tokenizers_offline.vocabulary import Vocabulary, from_tokenizer_json


def judged(data: dict[str, Any]) -> dict[str, str]:
    made = from_tokenizer_json(json.dumps(data).encode())
    return dict(judge(record_of(made), made.core).why_not)


def record_of(made: Vocabulary) -> InstalledEncoding:
    return InstalledEncoding("tiny", "", True, made.revision, "test", made.core_id, made.frame)


def test_all_engines_may_count_a_plain_vocabulary() -> None:
    assert judged(document()) == {}


def test_light_engine_is_refused_when_merges_are_not_in_the_order_of_ids() -> None:
    data = document()
    data["model"]["merges"].reverse()
    assert "merges" in judged(data)["splintr"]


def test_light_engine_is_refused_when_a_token_is_made_by_no_merge() -> None:
    data = document()
    vocab = data["model"]["vocab"]
    vocab["world"] = len(vocab)
    assert "merges" in judged(data)["splintr"]


def test_token_that_no_bytes_spell_does_not_matter() -> None:
    data = document()
    vocab = data["model"]["vocab"]
    vocab["<｜pad｜>"] = len(vocab)
    data["added_tokens"].append({**data["added_tokens"][0], "content": "<｜pad｜>", "id": vocab["<｜pad｜>"]})
    assert judged(data) == {}


def test_verdicts_of_other_versions_are_none() -> None:
    verdicts = {"fastokens": True, "splintr": False}
    kept = to_record(verdicts)
    assert recorded(kept) == verdicts
    assert recorded({name.replace("splintr ", "splintr 0.0."): equal for name, equal in kept.items()}) is None
    assert recorded({}) is None


@pytest.mark.parametrize(
    ("fast", "light", "engine"),
    [(True, True, "fastokens"), (False, True, "splintr"), (False, False, "tokenizers")],
)
def test_best_is_the_fastest_that_counts_right(fast: bool, light: bool, engine: str) -> None:
    assert best({"fastokens": fast, "splintr": light}) == engine
