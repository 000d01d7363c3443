"""Every installed encoding counts what its makers' tools count, in every engine, on any text."""

from __future__ import annotations

import re
import threading
import time

import pytest

from tests.tokenizers_offline.vocabularies import document_bytes
from tokenizers_offline.encoders import Encoders, EngineUnusable
from tokenizers_offline.engine_check import first_difference, hostile_texts
from tokenizers_offline.engines import FastEncoder, LightEncoder
from tokenizers_offline.installing import StoreWriter
from tokenizers_offline.prompt import TokenizerUnavailable
from tokenizers_offline.store import TokenizerStore
from tokenizers_offline.tiers import MUCH_TEXT, PLACES
from tokenizers_offline.verdicts import judge
from tokenizers_offline.vocabulary import from_tokenizer_json

KINDS = ("qwen3", "llama-2", "deepseek-coder", "claude-legacy")
"""One encoding for each kind of rules: byte-level with NFC, SentencePiece with a prefix, many patterns, NFKC.
The others were compared when they were installed (`tollgate tokenizers verify` does it again)."""


@pytest.mark.parametrize(
    ("encoding", "text", "tokens"),
    [
        ("cl100k_base", "Hello, 世界！", 7),
        ("cl100k_base", "tiktoken is great!", 6),
        ("o200k_base", "Hello, 世界！", 4),
        ("qwen3", "<|im_start|>user\n", 3),
        ("baichuan2", "你好吗", 2),
        ("llama-2", "Hello world", 2),
    ],
)
def test_count_is_the_published_one(encoders: Encoders, encoding: str, text: str, tokens: int) -> None:
    encoder = encoders.get(encoding)
    assert encoder.count(text, specials=encoder.specials) == tokens


@pytest.mark.parametrize("encoding", KINDS)
def test_engines_agree_on_texts_they_were_not_chosen_by(installed_store: TokenizerStore, encoding: str) -> None:
    record = installed_store.encoding(encoding)
    core = installed_store.core(record.core)
    judged = judge(record, core)
    assert judged.verdicts == dict.fromkeys(("fastokens", "splintr"), encoding != "claude-legacy")
    assert encoding != "claude-legacy" or "NFKC" in judged.why_not["fastokens"]
    tokens = [token["content"] for token in record.frame["added_tokens"]]
    for loader in (FastEncoder, LightEncoder):
        if loader.engine in judged.why_not:
            continue
        other = loader(record, core)
        for specials in (True, False):
            difference = first_difference(
                hostile_texts(tokens=tokens, seed=99, count=150),
                lambda text, s=specials: judged.reference.count(text, specials=s),
                lambda text, s=specials, other=other: other.count(text, specials=s),
            )
            assert difference is None


@pytest.mark.parametrize("encoding", ["cl100k_base", "o200k_base"])
def test_special_looking_text_is_ordinary_for_openai(encoders: Encoders, encoding: str) -> None:
    encoder = encoders.get(encoding)
    assert not encoder.specials
    assert encoder.count("<|endoftext|>", specials=encoder.specials) > 1
    assert encoder.count("<|endoftext|>", specials=True) == 1


def test_special_text_is_recognised_for_open_models(encoders: Encoders) -> None:
    encoder = encoders.get("qwen3")
    assert encoder.count("<|im_end|>", specials=encoder.specials) == 1


@pytest.mark.parametrize("encoding", ["o200k_base", "claude-legacy"])
def test_lone_surrogate_counts_as_replacement_character(encoders: Encoders, encoding: str) -> None:
    encoder = encoders.get(encoding)
    assert encoder.count("a\ud800b", specials=False) == encoder.count("a\ufffdb", specials=False)
    assert encoder.count("\ud83d\ude42", specials=False) == encoder.count("🙂", specials=False)


@pytest.mark.parametrize("encoding", ["o200k_base", "qwen3", "claude-legacy", "llama-2"])
@pytest.mark.parametrize("text", ["a" * 1_000_000, " " * 1_000_000, "é" * 500_000, "中" * 300_000, "a\u0301" * 300_000])
def test_one_huge_word_is_counted_in_bounded_time(encoders: Encoders, encoding: str, text: str) -> None:
    encoder = encoders.get(encoding)
    began = time.perf_counter()
    tokens = encoder.count(text, specials=False)
    assert time.perf_counter() - began < 5
    assert 0 < tokens <= 4 * len(text)


def test_one_encoder_is_shared_between_threads(encoders: Encoders) -> None:
    text = "The quick brown fox. " * 2_000
    expected = encoders.get("o200k_base").count(text, specials=False)
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(encoders.get("o200k_base").count(text, specials=False)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8


def test_encodings_of_one_revision_share_their_vocabulary_in_memory(encoders: Encoders) -> None:
    one, other = encoders.get("qwen2"), encoders.get("qwen2.5")
    assert (one.name, other.name) == ("qwen2", "qwen2.5")
    assert one.revision == other.revision
    assert vars(one)["_shared"] is vars(other)["_shared"]


def test_reference_engine_can_be_asked_for(installed_store: TokenizerStore) -> None:
    encoder = Encoders(installed_store, engine="reference").get("deepseek-coder")
    assert encoder.engine == "tokenizers"
    assert encoder.count("def hello(): pass", specials=True) == 5


def test_fast_engine_is_refused_when_it_cannot_count_an_encoding(installed_store: TokenizerStore) -> None:
    with pytest.raises(EngineUnusable, match="claude-legacy"):
        Encoders(installed_store, engine="fast").get("claude-legacy")


def test_encoder_is_checked_anew_when_the_recorded_verdict_is_of_other_versions(writer: StoreWriter) -> None:
    vocabulary = from_tokenizer_json(document_bytes())
    writer.install("tiny", vocabulary, family="", specials=True, source="test")
    path = writer.root / "encodings" / "tiny.json"
    path.write_text(path.read_text().replace("fastokens ", "fastokens 0.0.0-"))
    assert Encoders(TokenizerStore(writer.root)).get("tiny").count("hello world", specials=True) == 3


def test_an_engine_counts_only_where_the_record_says_that_it_counts_right(writer: StoreWriter) -> None:
    writer.install("tiny", from_tokenizer_json(document_bytes()), family="", specials=True, source="test")
    path = writer.root / "encodings" / "tiny.json"
    text = path.read_text()
    for fast, light, engine in (
        ("true", "false", "fastokens"),
        ("false", "true", "splintr"),
        ("false", "false", "tokenizers"),
    ):
        told = re.sub(r'("fastokens [^"]*":)\w+', rf"\1{fast}", re.sub(r'("splintr [^"]*":)\w+', rf"\1{light}", text))
        path.write_text(told)
        assert Encoders(TokenizerStore(writer.root)).get("tiny").engine == engine


def test_encoding_is_light_until_it_is_given_much_long_text(installed_store: TokenizerStore) -> None:
    encoder = Encoders(installed_store).get("deepseek-coder")
    assert encoder.engine == "splintr"
    text = "The quick brown fox.\n" * 3_000
    counts = {encoder.count(text, specials=True) for _ in range(MUCH_TEXT // len(text) + 1)}
    for thread in threading.enumerate():
        if thread.name == "tokenizer":
            thread.join()
    assert encoder.engine == "fastokens"
    assert counts == {encoder.count(text, specials=True)}


def test_fast_engine_is_had_at_once_while_there_is_a_place(writer: StoreWriter) -> None:
    for i in range(PLACES + 1):
        vocabulary = from_tokenizer_json(document_bytes(added=(f"<|{i}|>",)))
        writer.install(f"tiny{i}", vocabulary, family="", specials=True, source="test")
    encoders = Encoders(TokenizerStore(writer.root))
    engines = [encoders.get(f"tiny{i}", fast=True).engine for i in range(PLACES + 1)]
    assert engines == ["fastokens"] * PLACES + ["splintr"]


def test_missing_encoding_says_how_to_fetch_it(encoders: Encoders) -> None:
    with pytest.raises(TokenizerUnavailable, match="tollgate tokenizers fetch llama-4"):
        encoders.get("llama-4")


def test_loaded_encoders_are_known(installed_store: TokenizerStore) -> None:
    encoders = Encoders(installed_store)
    assert not encoders.is_loaded("deepseek-coder")
    encoders.get("deepseek-coder")
    assert encoders.is_loaded("deepseek-coder")
    assert [encoder.name for encoder in encoders.loaded()] == ["deepseek-coder"]
