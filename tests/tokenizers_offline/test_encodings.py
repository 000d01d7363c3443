"""The shipped list of sources: everything named, everything pinned."""

from __future__ import annotations

import re

import pytest

from tokenizers_offline.catalog import Catalog
from tokenizers_offline.encodings import Encoding, UnknownFamily, load_encodings, read_encodings

KNOWN = load_encodings()
FETCHED = [encoding for encoding in KNOWN.encodings.values() if encoding.by_default]


def test_every_encoding_of_the_catalog_can_be_fetched() -> None:
    assert set(Catalog.load().encodings()) <= KNOWN.encodings.keys()


@pytest.mark.parametrize("encoding", FETCHED, ids=lambda encoding: encoding.name)
def test_registry_source_is_pinned(encoding: Encoding) -> None:
    assert re.fullmatch("[0-9a-f]{64}", encoding.revision)
    for source in encoding.sources:
        assert re.fullmatch("[0-9a-f]{64}", source.sha256)
        assert source.package.version


def test_registry_template_is_pinned() -> None:
    assert all(re.fullmatch("[0-9a-f]{64}", source.sha256) for source in KNOWN.templates.values())


def test_openai_family_needs_no_npm() -> None:
    for name in ("cl100k_base", "o200k_base", "o200k_harmony"):
        assert KNOWN.encodings[name].sources[0].package.registry == "pypi"


def test_hub_only_encodings_are_named_but_not_fetched_unasked() -> None:
    hub_only = {name for name, encoding in KNOWN.encodings.items() if not encoding.by_default}
    assert hub_only == {"baichuan", "chatglm", "chatglm2", "internlm", "llama-4"}


def test_family_is_all_that_begins_with_it_and_what_comes_in_the_same_packages() -> None:
    qwen = KNOWN.of_families(["qwen"])
    assert {"qwen", "qwen2.5", "qwen3", "qwq"} <= set(qwen)
    assert "deepseek-v3" not in qwen
    assert "qwen3.6" in qwen, "a chat template of its own"
    assert KNOWN.of_families(["OpenAI"]) == ("cl100k_base", "o200k_base", "o200k_harmony")
    assert KNOWN.of_families([]) == ()


@pytest.mark.parametrize("family", ["", "q", "internlm 1"])
def test_family_is_refused_when_no_registry_has_any_of_it(family: str) -> None:
    with pytest.raises(UnknownFamily, match="qwen"):
        KNOWN.of_families([family])


def test_numbered_tokens_are_spelt_out() -> None:
    known = read_encodings(
        """
        packages: {p: {from: pypi, version: 1, root: r}}
        encodings: {e: {family: E, added: {"<a>": 7, "<x_2-4>": 10}, sources: [{package: p, folder: f}]}}
        """
    )
    assert known.encodings["e"].added == (("<a>", 7), ("<x_2>", 10), ("<x_3>", 11), ("<x_4>", 12))
    assert known.encodings["e"].sources[0].path == "r/f/tokenizer.json.zip"


def test_harmony_has_all_its_ids() -> None:
    added = KNOWN.encodings["o200k_harmony"].added
    assert added is not None
    assert sorted(token_id for _, token_id in added) == list(range(199998, 201088))


def test_digest_is_refused_when_yaml_reads_it_as_a_number() -> None:
    digits = "1" * 64
    text = "packages: {p: {from: pypi, version: 1}}\nencodings: {e: {family: E, sources: [{package: p, sha256: %s}]}}"
    with pytest.raises(ValueError, match="in quotes"):
        read_encodings(text % digits)
    assert read_encodings(text % f"'{digits}'").encodings["e"].sources[0].sha256 == digits
