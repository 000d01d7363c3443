"""Counting by segments is counting whole; the cache stays within its bound and never mixes encodings up."""

from __future__ import annotations

import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenizers_offline.conftest import MODELS_DIR
from tests.tokenizers_offline.vocabularies import document_bytes
from tokenizers_offline.encoders import Encoders
from tokenizers_offline.engine_check import ATOMS, hostile_texts
from tokenizers_offline.segments import NEWLINES, SPECIALS, CountCache, Splitter, splits_of
from tokenizers_offline.store import TokenizerStore
from tokenizers_offline.vocabulary import from_tokenizer_json

STORE = TokenizerStore(MODELS_DIR)
ENCODERS = Encoders(STORE, engine="reference")
SMALL = ("deepseek-coder", "llama-2", "claude-legacy", "mistral-v1", "chatglm3", "yi")
"""Encodings that load in a moment; all others are held to the same law on every installation."""

TEXTS = st.lists(
    st.one_of(
        st.sampled_from(ATOMS),
        st.text(max_size=12),
        st.sampled_from(["\n", " ", "<|im_start|>", "<s>", "</s>", "<｜User｜>", "[INST]", "\n\n", "/", "a\nb", "¨"]),
    ),
    max_size=60,
).map("".join)


def segments_of(encoding: str, text: str, *, specials: bool) -> tuple[list[str], int, int]:
    record, encoder = STORE.encoding(encoding), ENCODERS.get(encoding)
    splitter = Splitter(record.frame, record.splits, specials=specials, longest=1)
    parts = splitter.split(text)
    whole = encoder.count(text, specials=specials)
    return parts, sum(encoder.count(part, specials=specials) for part in parts), whole


@pytest.mark.parametrize("encoding", SMALL)
@settings(max_examples=60, deadline=None)
@given(text=TEXTS, specials=st.booleans())
def test_counting_by_segments_equals_counting_whole(encoding: str, text: str, specials: bool) -> None:
    parts, by_segments, whole = segments_of(encoding, text, specials=specials)
    assert "".join(parts) == text
    assert by_segments == whole


@pytest.mark.parametrize("encoding", ["o200k_base", "qwen3", "deepseek-v3"])
def test_counting_a_long_hostile_text_by_segments_equals_counting_whole(encoders: Encoders, encoding: str) -> None:
    rng = random.Random(3)
    record, encoder = STORE.encoding(encoding), encoders.get(encoding)
    tokens = [token["content"] for token in record.frame["added_tokens"]][:20]
    lines = hostile_texts(tokens=tokens, seed=5, count=300)
    rng.shuffle(lines)
    text = "\n".join(lines)
    for specials in (True, False):
        splitter = Splitter(record.frame, record.splits, specials=specials, longest=400)
        parts = splitter.split(text)
        assert len(parts) > 20
        assert "".join(parts) == text
        assert sum(encoder.count(part, specials=specials) for part in parts) == encoder.count(text, specials=specials)


def test_every_installed_encoding_has_a_place_to_split_or_a_reason() -> None:
    without = {name for name in STORE.installed() if not STORE.encoding(name).splits}
    assert without <= {"llama-2", "mistral-v1", "chatglm3"}  # their normaliser marks each segment's start


def test_prepending_normaliser_forbids_splitting_at_line_feeds() -> None:
    assert NEWLINES not in STORE.encoding("llama-2").splits


def test_vocabulary_token_across_a_line_feed_forbids_splitting_there() -> None:
    frame = {**from_tokenizer_json(document_bytes()).frame, "pre_tokenizer": None}
    assert NEWLINES in splits_of(frame, '"vocab":{"a":0,".\\n":1,"\\n\\n":2},"merges":[]')
    assert NEWLINES not in splits_of(frame, '"vocab":{"a":0,"\\nb":1},"merges":[]')


def test_overlapping_token_is_no_place_to_split() -> None:
    vocabulary = from_tokenizer_json(document_bytes(added=("<|user|>", "x<|user|>")))
    assert SPECIALS not in splits_of(vocabulary.frame, vocabulary.core)


def test_special_tokens_split_only_where_they_are_recognised() -> None:
    vocabulary = from_tokenizer_json(document_bytes())
    text = "<|user|>hello<|user|>world"
    kinds = splits_of(vocabulary.frame, vocabulary.core)
    assert Splitter(vocabulary.frame, kinds, specials=True, longest=1).split(text) == [text[:13], text[13:]]
    assert Splitter(vocabulary.frame, kinds, specials=False, longest=1).split(text) == [text]


def test_appending_to_a_long_text_keeps_its_first_segments() -> None:
    vocabulary = from_tokenizer_json(document_bytes())
    splitter = Splitter(vocabulary.frame, (NEWLINES,), specials=False, longest=100)
    text = "hello world\nand more\n" * 100
    before, after = splitter.split(text), splitter.split(text + "one line more")
    assert before[:-1] == after[: len(before) - 1]


def test_short_text_is_one_segment_and_empty_text_none() -> None:
    splitter = Splitter(from_tokenizer_json(document_bytes()).frame, (NEWLINES,), specials=False)
    assert splitter.split("a\nb") == ["a\nb"]
    assert splitter.split("") == []


def test_cache_stays_within_its_bound_and_keeps_what_is_used() -> None:
    cache = CountCache(100_000)
    space = ("e", False)
    cache.put(space, "kept", 7)
    for number in range(5_000):
        cache.put(space, f"text number {number}", number)
        assert cache.get(space, "kept") == 7
    assert len(cache) < 100_000 // 120
    assert cache.get(space, "text number 4999") == 4999
    assert cache.get(space, "text number 0") is None


def test_cache_does_not_take_a_text_that_would_fill_it() -> None:
    cache = CountCache(10_000)
    cache.put(("e", False), "x" * 5_000, 1)
    assert len(cache) == 0


def test_cache_keeps_encodings_and_modes_apart() -> None:
    cache = CountCache(10_000)
    cache.put(("one", False), "text", 1)
    cache.put(("one", True), "text", 2)
    assert cache.get(("one", False), "text") == 1
    assert cache.get(("one", True), "text") == 2
    assert cache.get(("two", False), "text") is None


def test_cache_is_right_when_many_threads_use_it() -> None:
    cache = CountCache(50_000)
    wrong: list[str] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(3_000):
            number = rng.randrange(500)
            text = f"some text {number}"
            count = cache.get(("e", False), text)
            if count is None:
                cache.put(("e", False), text, number)
            elif count != number:
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
