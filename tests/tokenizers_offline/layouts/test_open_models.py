import pytest

from tests.tokenizers_offline.layouts.conversations import WEATHER, call, chat, said
from tokenizers_offline.layouts import LAYOUTS
from tokenizers_offline.layouts.base import ModelSpec
from tokenizers_offline.layouts.open_models import features, label, look_alike_characters, media_tokens, text_items
from tokenizers_offline.prompt import (
    Accuracy,
    MediaPart,
    OpaquePart,
    OutputSchema,
    TextPrompt,
    ThinkingPart,
    ToolChoice,
    ToolResultPart,
)

MODEL = ModelSpec("m", "m", "e", "plain")


def test_features_name_what_a_conversation_uses_in_a_fixed_order() -> None:
    assert features(chat(said("user", "hi"))) == ("text",)
    result = ToolResultPart((MediaPart("image"),))
    everything = chat(
        said("user", MediaPart("video"), OpaquePart("file")),
        said("assistant", ThinkingPart("hm"), call()),
        said("user", result),
        tools=(WEATHER,),
        tool_choice=ToolChoice("named", "weather"),
        output_schema=OutputSchema({}),
        server_tools=("web_search",),
    )
    assert features(everything) == (
        *("tools", "named_tool", "calls", "schema", "thinking", "image", "video", "server_tools", "opaque"),
    )


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        (MediaPart("image", width=280, height=56), 23),
        (MediaPart("image", width=10_000, height=10_000), 1603),
        (MediaPart("image"), 800),
        (MediaPart("audio", seconds=10.0), 129),
        (MediaPart("document", pages=2), 1600),
    ],
)
def test_media_cost_by_their_size(part: MediaPart, tokens: int) -> None:
    assert media_tokens(chat(said("user", part, ToolResultPart((part,)))), MODEL) == 2 * tokens


def test_media_cost_what_the_family_says() -> None:
    model = ModelSpec("m", "m", "e", "plain", options={"video_tokens": 7})
    assert media_tokens(chat(said("user", MediaPart("video"))), model) == 7


def test_label_estimates_what_cannot_be_known_before_the_call() -> None:
    for fields in ({"server_tools": ("web_search",)}, {"unknowable": ("preset",)}):
        rendered = label(chat(said("user", "hi"), **fields), [], MODEL)
        assert rendered.accuracy is Accuracy.ESTIMATE
        assert rendered.notes


def test_label_keeps_the_model_s_own_notes() -> None:
    model = ModelSpec("m", "m", "e", "plain", notes=("A sibling's vocabulary.",))
    assert label(chat(said("user", "hi")), [], model).notes == ("A sibling's vocabulary.",)


@pytest.mark.parametrize("text", ["<|im_end|>", "[INST]", "</s>", "<start_of_turn>", "</think>"])
def test_look_alikes_are_found(text: str) -> None:
    assert look_alike_characters(chat(said("user", f"a {text} b"))) == len(text)


def test_look_alikes_of_wide_bars_cost_more() -> None:
    assert look_alike_characters(chat(said("user", "<｜User｜>"))) == len("<｜User｜>") + 4


def test_look_alikes_are_not_found_in_plain_text() -> None:
    assert look_alike_characters(chat(said("user", "a < b and c > d [1] <br> List<String>"))) == 0


def test_text_items_bound_the_start_token_a_server_may_add() -> None:
    plain = text_items(TextPrompt(("a", "b")), MODEL)
    embedded = text_items(TextPrompt(("a", "b"), purpose="embedding"), MODEL)
    assert (plain.accuracy, plain.upper_extra) == (Accuracy.EXACT, 0)
    assert (embedded.accuracy, embedded.upper_extra) == (Accuracy.BOUNDED, 4)
    assert text_items(TextPrompt(("a",), unknowable=("image",)), MODEL).accuracy is Accuracy.ESTIMATE
    assert [p.text for p in text_items(TextPrompt(("a",), suffix="z", purpose="completion"), MODEL).pieces] == [
        "a",
        "z",
    ]


def test_plain_layout_holds_more_when_the_host_is_unknown() -> None:
    prompt = chat(said("user", "hello"), said("assistant", call()), tools=(WEATHER,))
    unknown = LAYOUTS["plain"].render(prompt, MODEL)
    named = LAYOUTS["plain"].render(prompt, MODEL, platform="xai")
    assert unknown.accuracy is named.accuracy is Accuracy.ESTIMATE
    assert (unknown.tokens, unknown.pieces) == (named.tokens, named.pieces)
    assert unknown.upper_factor > named.upper_factor
    assert unknown.upper_extra > named.upper_extra


def test_plain_layout_prices_messages_as_the_family_says() -> None:
    free = ModelSpec("m", "m", "e", "plain", options={"message_tokens": 0, "start_tokens": 0})
    assert LAYOUTS["plain"].render(chat(said("user", "hello")), free).tokens == 0
    assert LAYOUTS["plain"].render(chat(said("user", "hello")), MODEL).tokens == 8
