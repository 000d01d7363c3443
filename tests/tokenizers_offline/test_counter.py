"""A prompt's count: the layout's pieces, the cache, the label and the figure to hold."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import pytest

from tokenizers_offline.catalog import Catalog
from tokenizers_offline.counter import TokenCounter
from tokenizers_offline.encoders import Encoders
from tokenizers_offline.layouts.base import ModelSpec, Piece, Rendered
from tokenizers_offline.prompt import (
    Accuracy,
    ChatPrompt,
    CountingError,
    Dialect,
    Message,
    Prompt,
    TextPart,
    TextPrompt,
    TokenizerUnavailable,
    UnknownModel,
)
from tokenizers_offline.store import TokenizerStore


class FixedLayout:
    """Renders every prompt as it was told."""

    def __init__(self, rendered: Rendered) -> None:
        self.rendered = rendered

    def render(self, prompt: Prompt, model: ModelSpec, *, platform: str = "", template: str = "") -> Rendered:
        return self.rendered


class TellTaleCatalog:
    """One model, `m`, with the encoding and accuracy it was made with."""

    def __init__(self, *, encoding: str = "deepseek-coder", accuracy: Accuracy = Accuracy.EXACT) -> None:
        self.spec = ModelSpec(name="m", family="m", encoding=encoding, layout="fixed", accuracy=accuracy, notes=("n",))

    def resolve(self, model: str) -> ModelSpec:
        if model != "m":
            raise UnknownModel(model, ("m",))
        return self.spec

    def models(self) -> tuple[ModelSpec, ...]:
        return (self.spec,)


class HiddenPrompt:
    """A host that adds tokens to prompts with tools."""

    def tokens(self, platform: str, model: str, features: Sequence[str]) -> int:
        return 199 if platform == "groq" and "tools" in features else 0

    def may_add(self, platform: str, model: str) -> int:
        return 500 if platform == "router" else 0


def fixed(store: TokenizerStore, encoders: Encoders, rendered: Rendered, **catalog: object) -> TokenCounter:
    layouts = {"fixed": FixedLayout(rendered), "plain": FixedLayout(rendered)}
    return TokenCounter(TellTaleCatalog(**catalog), encoders, store, layouts=layouts, overheads=HiddenPrompt())  # type: ignore[arg-type]


def chat(*texts: str) -> ChatPrompt:
    return ChatPrompt(Dialect.OPENAI_CHAT, tuple(Message("user", (TextPart(text),)) for text in texts))


@pytest.fixture
def counter(installed_store: TokenizerStore, encoders: Encoders) -> TokenCounter:
    return TokenCounter(Catalog.load(), encoders, installed_store)


def test_text_is_counted_as_the_model_does(counter: TokenCounter) -> None:
    count = counter.count("gpt-3.5-turbo", TextPrompt(("Hello, 世界！",)))
    assert (count.input_tokens, count.encoding, count.accuracy) == (7, "cl100k_base", Accuracy.EXACT)
    assert count.revision


def test_batch_of_texts_is_counted_each_by_itself(counter: TokenCounter) -> None:
    assert counter.count_texts("deepseek-coder", ["Hello", "你好", "def hello(): pass"]) == [1, 2, 5]


def test_special_looking_text_follows_the_encoding_in_a_text_prompt(counter: TokenCounter) -> None:
    for model, text in (("gpt-4", "<|endoftext|>"), ("gpt-4o", "<|endoftext|>")):
        assert counter.count(model, TextPrompt((text,))).input_tokens == counter.count_texts(model, [text])[0] > 1
    assert counter.count("qwen3", TextPrompt(("<|im_end|>",))).input_tokens == 1


def test_count_is_scaled_rounded_and_added_to(installed_store: TokenizerStore, encoders: Encoders) -> None:
    pieces = (Piece("Hello"), Piece("Hello"), Piece("你好"))
    counter = fixed(installed_store, encoders, Rendered(pieces=pieces, tokens=10, scale=1.5, features=("text",)))
    assert counter.count("m", chat("x")).input_tokens == round(1.5 * 4) + 10


def test_upper_bound_is_the_layouts_and_never_below_the_count(
    installed_store: TokenizerStore, encoders: Encoders
) -> None:
    rendered = Rendered(pieces=(), tokens=100, accuracy=Accuracy.BOUNDED, upper_factor=1.21, upper_extra=7)
    assert fixed(installed_store, encoders, rendered).count("m", chat("x")).upper == 128
    low = Rendered(pieces=(), tokens=100, upper_factor=0.5, accuracy=Accuracy.BOUNDED)
    assert fixed(installed_store, encoders, low).count("m", chat("x")).upper == 100


@pytest.mark.parametrize(
    ("catalog", "layout", "upper"),
    [
        (Accuracy.EXACT, Accuracy.EXACT, 100),
        (Accuracy.EXACT, Accuracy.BOUNDED, 126),
        (Accuracy.ESTIMATE, Accuracy.EXACT, 450),
    ],
)
def test_accuracy_is_the_worse_of_catalog_and_layout_and_widens_the_bound(
    installed_store: TokenizerStore, encoders: Encoders, catalog: Accuracy, layout: Accuracy, upper: int
) -> None:
    counter = fixed(installed_store, encoders, Rendered(pieces=(), tokens=100, accuracy=layout), accuracy=catalog)
    count = counter.count("m", chat("x"))
    assert count.upper == upper
    assert (count.accuracy is Accuracy.EXACT) == (catalog is layout is Accuracy.EXACT)
    assert count.notes == ("n",)


def test_hidden_prompt_is_added_and_labelled(installed_store: TokenizerStore, encoders: Encoders) -> None:
    counter = fixed(installed_store, encoders, Rendered(pieces=(), tokens=10, features=("tools",)))
    assert counter.count("m", chat("x")).input_tokens == 10
    hidden = counter.count("m", chat("x"), platform="groq")
    assert (hidden.input_tokens, hidden.accuracy) == (209, Accuracy.BOUNDED)


def test_unknown_model_is_refused_with_the_nearest_names(counter: TokenCounter) -> None:
    with pytest.raises(UnknownModel) as error:
        counter.count("gpt-4oh", TextPrompt(("x",)))
    assert "gpt-4o" in error.value.nearest


def test_unknown_model_is_a_labelled_estimate_when_configured(
    installed_store: TokenizerStore, encoders: Encoders
) -> None:
    counter = TokenCounter(Catalog.load(), encoders, installed_store, unknown_model="estimate")
    count = counter.count("made-up-model", TextPrompt(("Hello world",)))
    assert (count.input_tokens, count.accuracy, count.encoding) == (2, Accuracy.ESTIMATE, "o200k_base")
    assert count.upper > 2 * count.input_tokens
    assert any("not in the catalog" in note for note in count.notes)


def test_missing_tokenizer_names_the_model_and_the_remedy(installed_store: TokenizerStore, encoders: Encoders) -> None:
    counter = fixed(installed_store, encoders, Rendered(pieces=()), encoding="llama-4")
    for call in (
        lambda: counter.count("m", chat("x")),
        lambda: counter.try_count("m", chat("x"), max_new_characters=9),
        lambda: counter.count_texts("m", ["x"]),
    ):
        with pytest.raises(TokenizerUnavailable, match=r"llama-4.*'m'.*fetch llama-4"):
            call()


def test_unknown_layout_is_an_error_that_lists_the_known(installed_store: TokenizerStore, encoders: Encoders) -> None:
    counter = TokenCounter(TellTaleCatalog(), encoders, installed_store, layouts={})
    with pytest.raises(CountingError, match="'fixed'"):
        counter.count("m", chat("x"))


def test_try_count_answers_when_little_is_new_and_declines_when_much_is(counter: TokenCounter) -> None:
    counter.warm(["deepseek-coder"])
    prompt = TextPrompt(("word " * 1_000,))
    assert counter.try_count("deepseek-coder", prompt, max_new_characters=999) is None
    whole = counter.count("deepseek-coder", prompt)
    assert counter.try_count("deepseek-coder", prompt, max_new_characters=0) == whole
    longer = TextPrompt((*prompt.items, "a little more"))
    found = counter.try_count("deepseek-coder", longer, max_new_characters=20)
    assert found == counter.count("deepseek-coder", longer)


def test_counting_in_steps_equals_counting_at_once(counter: TokenCounter) -> None:
    texts = [f"One line of text, number {number}.\n" * 400 for number in range(6)]
    prompt = ChatPrompt(Dialect.OPENAI_CHAT, tuple(Message("user", (TextPart(text),)) for text in texts))
    counter.warm(["deepseek-coder"])
    begun = counter.begin("deepseek-coder", prompt)
    assert begun is not None
    assert begun.new_characters >= sum(map(len, texts))
    assert begun.longest < begun.new_characters
    steps, turns = begun.steps(10_000), 0
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            found = ended.value
            break
        turns += 1
    assert turns > 1
    assert found == counter.count("deepseek-coder", prompt)
    again = counter.begin("deepseek-coder", prompt)
    assert again is not None
    assert again.new_characters == 0


def test_try_count_declines_when_the_tokenizer_must_be_loaded_first(installed_store: TokenizerStore) -> None:
    counter = TokenCounter(Catalog.load(), Encoders(installed_store), installed_store)
    prompt = TextPrompt(("Hello",))
    assert not counter.is_ready("deepseek-coder")
    assert counter.try_count("deepseek-coder", prompt, max_new_characters=100) is None
    counter.warm(["deepseek-coder"])
    assert counter.is_ready("deepseek-coder")
    found = counter.try_count("deepseek-coder", prompt, max_new_characters=100)
    assert found is not None
    assert found.input_tokens == 1


def test_warm_loads_what_is_there_before_it_complains(installed_store: TokenizerStore) -> None:
    counter = TokenCounter(Catalog.load(), Encoders(installed_store), installed_store)
    with pytest.raises(TokenizerUnavailable, match="llama-4"):
        counter.warm(["llama-4", "deepseek-coder"])
    assert counter.is_ready("deepseek-coder")


def test_lone_surrogates_and_nuls_are_counted(counter: TokenCounter) -> None:
    assert counter.count("gpt-4o", TextPrompt(("\ud800\x00",))).input_tokens > 0


def test_token_ids_count_as_their_number(counter: TokenCounter) -> None:
    assert counter.count("text-embedding-3-small", TextPrompt(((1, 2, 3), (4,)), purpose="embedding")).input_tokens == 4


def test_growing_conversation_costs_its_new_message(installed_store: TokenizerStore) -> None:
    rng = random.Random(1)
    words = ("quick", "brown", "foxes", "jump", "over", "lazy", "dogs", "while", "wizards", "brew", "potions")
    texts = [" ".join(rng.choice(words) + str(rng.randrange(9)) for _ in range(250)) for _ in range(200)]
    counter = TokenCounter(Catalog.load(), Encoders(installed_store, engine="reference"), installed_store)
    counter.warm(["o200k_base"])
    began = time.perf_counter()
    first = counter.count("gpt-4o", chat(*texts))
    scratch = time.perf_counter() - began
    again = []
    for number in range(5):  # the quickest of five: what else runs on the machine does not count
        fresh = [(text + " ")[:-1] for text in texts]  # as a new request has them: equal, not the same objects
        prompt = chat(*fresh, f"and new message {number}")
        began = time.perf_counter()
        second = counter.count("gpt-4o", prompt)
        again.append(time.perf_counter() - began)
        assert second.input_tokens == first.input_tokens + 9
    assert scratch > 30 * min(again)


def test_try_count_leaves_what_is_long_to_lay_out_to_a_thread(counter: TokenCounter) -> None:
    prompt = chat(*(["hi"] * 10_000))
    whole = counter.count("gpt-4o", prompt)
    assert counter.try_count("gpt-4o", prompt, max_new_characters=10**9) is None
    assert whole.input_tokens == 10_000 * 5 + 3


def test_what_a_host_may_add_is_held_but_not_counted(installed_store: TokenizerStore, encoders: Encoders) -> None:
    counter = fixed(installed_store, encoders, Rendered(pieces=(), tokens=100))
    count = counter.count("m", chat("x"), platform="router")
    assert (count.input_tokens, count.upper, count.accuracy) == (100, 626, Accuracy.BOUNDED)
