"""Claude's layout: constants by generation, and what each part of a prompt adds."""

from __future__ import annotations

from typing import Any

import pytest

from tokenizers_offline.layouts.anthropic import AnthropicLayout
from tokenizers_offline.layouts.base import ModelSpec, Rendered
from tokenizers_offline.layouts.claude_generations import GENERATIONS, generation_of
from tokenizers_offline.prompt import (
    Accuracy,
    ChatPrompt,
    Dialect,
    MediaPart,
    Message,
    OpaquePart,
    OutputSchema,
    TextPart,
    TextPrompt,
    ThinkingPart,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
    ToolSpec,
)

LOOK = ToolSpec("look", "Looks at it.", {"type": "object", "properties": {"at": {"type": "string"}}})


def user(text: str) -> Message:
    return Message("user", (TextPart(text),))


def render(*messages: Message, family: str = "claude-4.5", name: str = "claude-sonnet-4-5", **fields: Any) -> Rendered:
    prompt = ChatPrompt(fields.pop("dialect", Dialect.ANTHROPIC), messages or (user("Say hello"),), **fields)
    return AnthropicLayout().render(prompt, ModelSpec(name, family, "o200k_base", "anthropic"))


def texts(rendered: Rendered) -> list[str]:
    return [piece.text for piece in rendered.pieces]


def test_one_message_costs_seven_tokens_beside_its_text() -> None:
    rendered = render()
    assert (texts(rendered), rendered.tokens, rendered.scale) == (["Say hello"], 7, 1.0)
    assert rendered.accuracy is Accuracy.ESTIMATE
    assert rendered.notes


def test_system_costs_its_text_only() -> None:
    assert render(Message("system", (TextPart("Be kind"),)), user("Say hello")).tokens == 7


def test_follow_ups_cost_three_each_and_a_prefill_none() -> None:
    answer = Message("assistant", (TextPart("hello"),))
    assert render(user("hi"), answer, user("bye")).tokens == 13
    assert render(user("hi"), answer).tokens == 7
    assert render(answer, user("bye")).tokens == 22


@pytest.mark.parametrize(
    ("family", "name", "expected"),
    [
        ("claude-4.5", "claude-haiku-4-5", "claude-4.5"),
        ("claude-3", "anthropic/claude-3-opus-20240229", "claude-3-opus"),
        ("claude-3.5", "claude-3-5-haiku-latest", "claude-3.5-haiku"),
        ("claude-6", "claude-nova-6", "claude-5"),
    ],
)
def test_generation_follows_family_and_tier(family: str, name: str, expected: str) -> None:
    assert generation_of(family, name) is GENERATIONS[expected]


def test_tools_bring_their_json_and_a_prompt_that_depends_on_the_choice() -> None:
    auto = render(tools=(LOOK,))
    forced = render(tools=(LOOK,), tool_choice=ToolChoice("named", "look"))
    assert texts(auto)[1].startswith('{"name":"look","description":"Looks at it.","input_schema":{"type":"object"')
    generation = GENERATIONS["claude-4.5"]
    assert forced.tokens - auto.tokens == generation.tools_forced - generation.tools_auto
    assert auto.tokens > generation.tools_auto
    assert auto.features == ("tools",)


def test_deferred_tools_are_not_in_the_prompt() -> None:
    deferred = ToolSpec("later", "Later.", {"type": "object"}, raw={"defer_loading": True})
    assert render(tools=(deferred,)).tokens == 7


def test_arguments_count_alike_as_text_and_as_object() -> None:
    results = (ToolResultPart((TextPart("seen"),), call_id="1"),)
    rendered = [
        render(user("hi"), Message("assistant", (ToolCallPart("look", given, "1"),)), Message("user", results))
        for given in ({"at": "it"}, '{"at": "it"}')
    ]
    assert rendered[0] == rendered[1]
    assert texts(rendered[0]) == ["hi", "look", '{"at":"it"}', "seen"]


def test_broken_arguments_are_counted_as_they_came() -> None:
    call = Message("assistant", (ToolCallPart("look", '{"at": '),))
    assert '{"at": ' in texts(render(user("hi"), call))


def test_parallel_calls_cost_more_than_calls_in_turn() -> None:
    def calls(count: int) -> Message:
        return Message("assistant", tuple(ToolCallPart("look", {}, str(at)) for at in range(count)))

    one, two, three = (render(user("hi"), calls(count), user("so")).tokens for count in (1, 2, 3))
    assert three - two == two - one > 42


@pytest.mark.parametrize(
    ("fields", "extra"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, 29),
        ({"options": {"reasoning_effort": "low"}}, 29),
        ({"options": {"reasoning": {"effort": "none"}}}, 0),
        ({"thinking": {"type": "adaptive"}}, 0),
        ({"thinking": {"type": "adaptive"}, "family": "claude-4.6", "name": "claude-opus-4-6"}, 17),
        ({"name": "anthropic/claude-3.7-sonnet:thinking"}, 29),
    ],
)
def test_thinking_costs_its_own_prompt(fields: dict[str, Any], extra: int) -> None:
    assert render(**fields).tokens == 7 + extra


def test_thoughts_count_in_the_current_turn_only() -> None:
    thought = Message("assistant", (ThinkingPart("deep thought"), ToolCallPart("look", {}, "1")))
    result = Message("user", (ToolResultPart((TextPart("seen"),), call_id="1"),))
    assert "deep thought" in texts(render(user("hi"), thought, result))
    assert "deep thought" not in texts(render(user("hi"), thought, result, user("and now?")))


@pytest.mark.parametrize(
    ("size", "tokens"),
    [((28, 28), 4), ((280, 56), 23), ((1568, 784), 1571), ((4000, 4000), 1571), ((None, None), 1571)],
)
def test_image_costs_its_patches_after_scaling(size: tuple[int | None, int | None], tokens: int) -> None:
    image = Message("user", (MediaPart("image", "image/png", width=size[0], height=size[1]),))
    assert render(image).tokens - 7 <= tokens
    assert render(image).tokens - 7 >= tokens * 0.97
    assert render(image).upper_extra > 0


def test_documents_cost_by_the_page_and_say_so() -> None:
    rendered = render(Message("user", (MediaPart("document", "application/pdf", pages=3),)))
    assert rendered.tokens == 7 + 3 * 1575
    assert any("per page" in note for note in rendered.notes)
    plain = render(Message("user", (MediaPart("document", "text/plain", text="body", name="T"),)))
    assert texts(plain) == ["T", "body"]


def test_output_schema_is_counted_as_object_or_json_text() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    as_object = render(output_schema=OutputSchema(schema))
    as_text = render(output_schema=OutputSchema({"json": '{"type":"object","properties":{"a":{"type":"string"}}}'}))
    assert as_object == as_text
    assert as_object.tokens > 7 + 87


def test_what_cannot_be_known_is_labelled_and_held_generously() -> None:
    rendered = render(
        Message("user", (OpaquePart("web_search_tool_result", {"x": "y" * 400}),)),
        server_tools=("web_search_20250305", "unheard_of"),
        unknowable=("file",),
    )
    assert {"server_tools", "file", "web_search_tool_result"} <= set(rendered.features)
    assert sum("known" in note for note in rendered.notes) == 3
    assert rendered.upper_extra > 5000


def test_foreign_scripts_widen_the_bound() -> None:
    assert render(user("\u4f60\u597d\u4e16\u754c")).upper_extra >= render(user("abcd")).upper_extra + 4


def test_plain_text_is_an_estimate_without_a_conversation() -> None:
    rendered = AnthropicLayout().render(
        TextPrompt(("one two", (1, 2, 3))), ModelSpec("claude-3-haiku", "claude-3", "o200k_base", "anthropic")
    )
    assert (texts(rendered), rendered.tokens, rendered.accuracy) == (["one two"], 3, Accuracy.ESTIMATE)


def test_documents_of_other_kinds_cost_by_size() -> None:
    rendered = render(Message("user", (MediaPart("document", "text/csv", data="x" * 1000),)))
    assert rendered.tokens == 7 + 190
    assert rendered.upper_extra > 800


def test_a_pdf_whose_text_is_known_costs_both() -> None:
    rendered = render(Message("user", (MediaPart("document", "application/pdf", text="body", pages=1),)))
    assert (texts(rendered), rendered.tokens) == (["body"], 7 + 1575)


def test_interleaved_thinking_which_a_header_asks_for_is_held() -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    for family, held in (("claude-4.5", 150), ("claude-3.7", 0)):
        with_tools = render(tools=(LOOK,), thinking=thinking, family=family, name=family)
        assert with_tools.upper_extra == render(tools=(LOOK,), family=family, name=family).upper_extra + held
    alone = render(thinking=thinking)
    assert alone.upper_extra == render(thinking=thinking, family="claude-3.7", name="claude-3-7").upper_extra
