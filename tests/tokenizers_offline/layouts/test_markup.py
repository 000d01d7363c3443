import pytest

from tests.tokenizers_offline.layouts.conversations import WEATHER, call, chat, said
from tokenizers_offline.layouts import LAYOUTS
from tokenizers_offline.layouts.base import ModelSpec, Rendered
from tokenizers_offline.layouts.markup import MARKUPS, MarkupLayout
from tokenizers_offline.prompt import Accuracy, ChatPrompt, TextPrompt

TALK = chat(said("system", "be brief"), said("user", "hi"), said("assistant", "yo"), said("user", "bye"))


def render(layout: str, prompt: ChatPrompt, **options: object) -> Rendered:
    return LAYOUTS[layout].render(prompt, ModelSpec("m", "m", "e", layout, options=dict(options)))


def text(rendered: Rendered) -> str:
    return "".join(piece.text for piece in rendered.pieces)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (
            "chatml",
            (
                "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
                "<|im_start|>assistant\nyo<|im_end|>\n<|im_start|>user\nbye<|im_end|>\n<|im_start|>assistant\n"
            ),
        ),
        ("llama-2", "<s>[INST] <<SYS>>\nbe brief\n<</SYS>>\n\nhi [/INST] yo </s><s>[INST] bye [/INST]"),
        ("mistral-v1", "<s> [INST] be brief\n\nhi [/INST] yo</s> [INST] bye [/INST]"),
        (
            "gemma",
            (
                "<bos><start_of_turn>user\nbe brief\n\nhi<end_of_turn>\n<start_of_turn>model\nyo<end_of_turn>\n"
                "<start_of_turn>user\nbye<end_of_turn>\n<start_of_turn>model\n"
            ),
        ),
        (
            "deepseek-llm",
            "<｜begin▁of▁sentence｜>be brief\n\nUser: hi\n\nAssistant: yo<｜end▁of▁sentence｜>User: bye\n\nAssistant:",
        ),
    ],
)
def test_render_writes_the_family_s_markup(layout: str, expected: str) -> None:
    assert text(render(layout, TALK)) == expected


def test_render_encodes_stretches_apart_when_the_maker_does() -> None:
    rendered = render("chatglm3", chat(said("user", "hi")))
    assert [piece.text for piece in rendered.pieces] == ["\n", "hi"]
    assert rendered.tokens == 4  # [gMASK] sop, <|user|>, <|assistant|>
    rendered = render("baichuan2", TALK)
    assert [piece.text for piece in rendered.pieces] == ["be brief", "hi", "yo", "bye"]
    assert rendered.tokens == 4  # three roles and the answer's; the system text has none


def test_render_adds_the_default_system_text_only_when_there_is_none() -> None:
    assert "helpful" in text(render("chatml", chat(said("user", "hi")), default_system="Be helpful."))
    assert "helpful" not in text(render("chatml", TALK, default_system="Be helpful."))
    assert render("deepseek-coder", chat(said("user", "hi"))).tokens == 57
    assert render("deepseek-coder", TALK).tokens == 0


def test_render_keeps_a_system_text_that_stands_alone() -> None:
    assert text(render("llama-2", chat(said("system", "be brief")))) == "<s>[INST] <<SYS>>\nbe brief [/INST]"


def test_render_shows_tools_where_the_family_has_a_place_for_them() -> None:
    rendered = render("kimi", chat(said("user", "hi"), tools=(WEATHER,)))
    assert "tool_declare" in text(rendered)
    assert rendered.accuracy is Accuracy.BOUNDED


def test_render_estimates_tools_where_the_family_has_no_place_for_them() -> None:
    rendered = render("chatml", chat(said("user", "hi"), said("assistant", call()), tools=(WEATHER,)))
    assert rendered.accuracy is Accuracy.ESTIMATE
    assert rendered.features == ("tools", "calls")


def test_render_counts_markers_that_the_vocabulary_lacks_as_one_token_each() -> None:
    rendered = render("chatml", chat(said("user", "hi")), markers=r"<\|im_[a-z]+\|>")
    assert (text(rendered), rendered.tokens) == ("user\nhi\nassistant\n", 3)


@pytest.mark.parametrize("name", MARKUPS)
def test_render_takes_any_conversation(name: str) -> None:
    layout = MarkupLayout(MARKUPS[name])
    model = ModelSpec("m", "m", "e", name)
    for prompt in (chat(), chat(said("weird", "hello")), chat(said("assistant", "hello")), TextPrompt(("hello",))):
        rendered = layout.render(prompt, model)
        if not isinstance(prompt, ChatPrompt) or prompt.messages:
            assert "hello" in text(rendered)
