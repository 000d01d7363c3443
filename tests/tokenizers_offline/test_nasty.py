"""Texts that break counters: counted as the provider would, in both engines and by segments, or labelled."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tokenizers_offline.conftest import MODELS_DIR
from tokenizers_offline.catalog import Catalog
from tokenizers_offline.counter import TokenCounter
from tokenizers_offline.encoders import Encoders
from tokenizers_offline.engines import Encoder, FastEncoder, LightEncoder, ReferenceEncoder
from tokenizers_offline.prompt import Accuracy, ChatPrompt, Dialect, Message, TextPart, TextPrompt
from tokenizers_offline.segments import SEGMENT_CHARACTERS, Splitter
from tokenizers_offline.store import TokenizerStore

NASTY = {
    "control characters": "".join(map(chr, range(32))) + "\x7f\x80\x85\x9f bell\x07 back\x08 escape\x1b[31m",
    "zwj emoji": "👩‍👩‍👧‍👦 and 🏴‍☠️ and 👍🏽 and 🇩🇪🇫🇷 and 1️⃣",
    "broken emoji": "👩\u200d \u200d👧 🏽 \ufe0f",
    "right to left": "\u202eسلام עולם\u202c مرحبا \u200f(abc)\u200e ١٢٣",
    "stacked marks": "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324" * 40,
    "special tokens": "<|im_start|>system\nobey<|im_end|><|endoftext|><|eot_id|></s><s>[INST]<start_of_turn><|user|>",
    "half special tokens": "<|im_start <|im_end|<|end oftext|> |>< <｜User <|fim_prefix|>",
    "nul": "a\x00b\x00\x00\nc\x00",
    "mixed newlines": "a\r\nb\n\rc\r\rd\n\n\n \n\t\ne\u2028f\u2029g\x0bh\x0ci\x85j\r",
    "byte order marks": "\ufeffa\ufeff\ufeff b\ufffe\uffff",
    "private and unassigned": "\ue000\U000f0000\U0010fffd\u0378\U000e0001",
    "lone surrogates": "a\ud800b\udc00c\ud83d\ude00",
    "blanks": " \t\u00a0\u2003\u3000\u200b\u2060 " * 50,
    "digits": "0123456789" * 60 + " ٠١٢٣ ①② Ⅻ ½",
    "one long word": "a" * 200_000,
    "one long line of a wide script": "中" * 50_000,
    "long run of newlines": "\n" * 20_000,
    "unbroken base64": "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=" * 2_000,
}
ENCODINGS = ("cl100k_base", "o200k_base", "qwen3", "llama-3", "deepseek-v3", "llama-2")
LONG = 20_000
MODELS = (
    "gpt-4o",
    "gpt-3.5-turbo",
    "claude-sonnet-4-5",
    "qwen3-8b",
    "llama-3-8b-instruct",
    "deepseek-v3",
    "gpt-oss-20b",
    "mistral-nemo",
    "llama-2-7b-chat",
)

nasty_texts = pytest.mark.parametrize("text", NASTY.values(), ids=NASTY.keys())


@pytest.fixture(scope="module")
def engines(installed_store: TokenizerStore) -> dict[str, tuple[Encoder, ...]]:
    """All engines of each encoding, the reference first, without regard for what was recorded of their agreement."""
    found: dict[str, tuple[Encoder, ...]] = {}
    for name in ENCODINGS:
        record = installed_store.encoding(name)
        core = installed_store.core(record.core)
        found[name] = (ReferenceEncoder(record, core), FastEncoder(record, core), LightEncoder(record, core))
    return found


@pytest.fixture(scope="module")
def counter(installed_store: TokenizerStore, encoders: Encoders) -> TokenCounter:
    return TokenCounter(Catalog.load(), encoders, installed_store)


def chat(text: str, *, dialect: Dialect = Dialect.OPENAI_CHAT) -> ChatPrompt:
    return ChatPrompt(dialect, (Message("system", (TextPart(text),)), Message("user", (TextPart(text),))))


@nasty_texts
def test_engines_count_alike(engines: dict[str, tuple[Encoder, ...]], text: str) -> None:
    shortened = text[:LONG]  # the reference takes a second for each of the longest
    for of_encoding in engines.values():
        for specials in (True, False):
            assert len({engine.count(shortened, specials=specials) for engine in of_encoding}) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=80), st.booleans())
def test_engines_count_any_text_alike(engines: dict[str, tuple[Encoder, ...]], text: str, specials: bool) -> None:
    for of_encoding in engines.values():
        assert len({engine.count(text, specials=specials) for engine in of_encoding}) == 1


@nasty_texts
def test_segments_add_up_to_the_whole(encoders: Encoders, text: str) -> None:
    store = TokenizerStore(MODELS_DIR)
    long = "\n".join([text, "and so on", text] * (2 * SEGMENT_CHARACTERS // (2 * len(text)) + 1))
    for name in ENCODINGS:
        record, encoder = store.encoding(name), encoders.get(name)
        for specials in (True, False):
            segments = Splitter(record.frame, record.splits, specials=specials).split(long)
            assert "".join(segments) == long
            assert sum(_counts(encoder, segments, specials)) == encoder.count(long, specials=specials)


def _counts(encoder: Encoder, segments: list[str], specials: bool) -> list[int]:
    return [encoder.count(segment, specials=specials) for segment in segments]


@nasty_texts
def test_openai_bills_user_text_as_plain_text(counter: TokenCounter, encoders: Encoders, text: str) -> None:
    count = counter.count("gpt-4o", chat(text))
    plain = encoders.get("o200k_base").count(text, specials=False)
    assert count.input_tokens == 2 * (plain + 4) + 3
    assert (count.accuracy, count.upper) == (Accuracy.EXACT, count.input_tokens)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("<|im_start|>", 6),
        ("<|endoftext|>", 7),
        ("a\x00b", 3),
        ("\r\n", 1),
        ("\n\r\n", 2),
        ("👩‍👩‍👧‍👦", 18),
        ("\ud800", 1),
    ],
)
def test_cl100k_counts_are_the_known_ones(counter: TokenCounter, text: str, tokens: int) -> None:
    assert counter.count("gpt-4", TextPrompt((text,))).input_tokens == tokens


@pytest.mark.parametrize("model", ["qwen3-8b", "llama-3-8b-instruct", "deepseek-v3", "mistral-nemo", "gpt-oss-20b"])
@pytest.mark.parametrize("text", ["<|im_end|>", "</s>[INST]", "<|eot_id|>", "<｜User｜>", "<think></think>"])
def test_what_looks_special_is_labelled_and_held_either_way(
    counter: TokenCounter, encoders: Encoders, model: str, text: str
) -> None:
    harmless = counter.count(model, chat("x"))
    found = counter.count(model, chat(text))
    encoder = encoders.get(found.encoding)
    # Read as plain text or as tokens, in both messages: the difference is inside the bound.
    as_plain = max(encoder.count(text, specials=specials) for specials in (True, False))
    assert found.accuracy is not Accuracy.EXACT
    assert any("special token" in note for note in found.notes)
    assert found.upper >= harmless.input_tokens + 2 * (as_plain - 1)


@pytest.mark.parametrize("model", MODELS)
def test_every_layout_takes_every_text(counter: TokenCounter, model: str) -> None:
    for name, text in NASTY.items():
        count = counter.count(model, chat(text[:LONG]))
        assert 0 < count.input_tokens <= count.upper, name
        assert count.accuracy is Accuracy.EXACT or count.upper > count.input_tokens, name


@pytest.mark.parametrize("dialect", [Dialect.ANTHROPIC, Dialect.GEMINI, Dialect.BEDROCK, Dialect.OPENAI_RESPONSES])
def test_every_dialect_takes_every_text(counter: TokenCounter, dialect: Dialect) -> None:
    model = "claude-sonnet-4-5" if dialect is not Dialect.OPENAI_RESPONSES else "gpt-5"
    for name, text in NASTY.items():
        count = counter.count(model, chat(text[:LONG], dialect=dialect))
        assert 0 < count.input_tokens <= count.upper, name


def test_empty_and_blank_texts_cost_their_frame_only(counter: TokenCounter) -> None:
    assert counter.count("gpt-4o", TextPrompt(("",))).input_tokens == 0
    assert counter.count("gpt-4o", chat("")).input_tokens == 2 * 4 + 3
