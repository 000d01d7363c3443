"""Gemini's layout: who counts what, by generation and by who serves the model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenizers_offline.layouts.base import ModelSpec, Rendered
from tokenizers_offline.layouts.gemini import GeminiLayout
from tokenizers_offline.prompt import (
    Accuracy,
    ChatPrompt,
    Dialect,
    MediaPart,
    Message,
    OutputSchema,
    TextPart,
    TextPrompt,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
    ToolSpec,
)

PARAMETERS = {"type": "OBJECT", "properties": {"at": {"type": "STRING", "description": "Where"}}, "required": ["at"]}
LOOK = ToolSpec("look", "Looks.", PARAMETERS, raw={"parameters": PARAMETERS})


def user(*parts: Any) -> Message:
    return Message("user", tuple(TextPart(part) if isinstance(part, str) else part for part in parts))


def render(*messages: Message, family: str = "gemini-2.5", platform: str = "", **fields: Any) -> Rendered:
    dialect = fields.pop("dialect", Dialect.GEMINI)
    prompt = ChatPrompt(dialect, messages or (user("Say hello"),), **fields)
    name = fields.get("name", f"{family}-flash")
    return GeminiLayout().render(prompt, ModelSpec(name, family, "gemma3", "gemini"), platform=platform)


def texts(rendered: Rendered) -> list[str]:
    return [piece.text for piece in rendered.pieces]


@pytest.mark.parametrize(
    ("family", "platform", "turns"),
    [("gemini-2.0", "", 0), ("gemini-2.5", "", 3), ("gemini-3", "ai_studio", 3), ("gemini-2.5", "vertex", 0)],
)
def test_turns_cost_a_token_each_in_ai_studio_since_2_5(family: str, platform: str, turns: int) -> None:
    rendered = render(user("a"), Message("model", (TextPart("b"),)), user("c"), family=family, platform=platform)
    assert (texts(rendered), rendered.tokens) == (["a", "b", "c"], turns)
    proven = family != "gemini-2.0"  # its rule missed 3 of 29 recorded texts, by a token each
    label = (Accuracy.EXACT, 1.0, 0) if proven else (Accuracy.BOUNDED, 1.03, 2)
    assert (rendered.accuracy, rendered.upper_factor, rendered.upper_extra) == label


def test_vertex_is_known_by_the_path_too() -> None:
    assert render(options={"vertex": True}).tokens == 0


def test_system_counts_as_a_turn_when_it_has_a_role() -> None:
    system = (TextPart("Be kind"),)
    assert render(Message("system", system), user("a")).tokens == 1
    assert render(Message("system", system, extra={"role": "user"}), user("a")).tokens == 2


def test_tools_are_python_in_ai_studio_2_5() -> None:
    assert texts(render(tools=(LOOK,)))[1].startswith("def look(\n    at: str,\n) -> dict:")


def test_tools_are_declarations_in_ai_studio_3() -> None:
    rendered = render(tools=(LOOK,), family="gemini-3")
    assert texts(rendered)[1] == "declaration:look{description:"
    assert rendered.tokens == 1 + 2 + 10  # the turn, the two ends, and a marker on each side of the five strings


@pytest.mark.parametrize(("family", "platform"), [("gemini-2.0", ""), ("gemini-2.5", "vertex")])
def test_tools_are_walked_fields_elsewhere(family: str, platform: str) -> None:
    rendered = render(tools=(LOOK,), family=family, platform=platform)
    assert texts(rendered) == ["Say hello", "look", "Looks.", "at", "at", "Where"]
    assert rendered.tokens == 2
    assert rendered.accuracy is Accuracy.BOUNDED


def test_json_schema_parameters_are_not_counted_where_fields_are_walked() -> None:
    tool = ToolSpec("look", "Looks.", PARAMETERS, raw={"parametersJsonSchema": PARAMETERS})
    assert texts(render(tools=(tool,), family="gemini-2.0")) == ["Say hello", "look", "Looks."]


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("gemini-2.5", ["print(default_api.look(at = 'it'))", "{'look_response': {'seen': 'yes'}}"]),
        ("gemini-3", ["call:look{at:", "it", "}", "response:look{seen:", "yes", "}"]),
        ("gemini-2.0", ["look", "at", "it", "look", "seen", "yes"]),
    ],
)
def test_calls_and_results_follow_the_tools_form(family: str, expected: list[str]) -> None:
    call = Message("model", (ToolCallPart("look", {"at": "it"}),))
    result = user(ToolResultPart((), name="look", response={"seen": "yes"}))
    assert texts(render(user("a"), call, result, family=family)) == ["a", *expected]


def test_results_of_other_apis_find_their_call_by_id() -> None:
    call = Message("assistant", (ToolCallPart("look", '{"at":"it"}', call_id="1"),))
    result = Message("tool", (ToolResultPart((TextPart("yes"),), call_id="1"),))
    rendered = render(user("a"), call, result, dialect=Dialect.OPENAI_CHAT, platform="openrouter")
    assert texts(rendered) == ["a", "look", "at", "it", "name", "content", "look", "yes"]
    assert rendered.accuracy is Accuracy.ESTIMATE


def test_thought_text_counts_and_a_signature_is_guessed() -> None:
    called = Message("model", (ThinkingPart("deep", "s" * 1140), ToolCallPart("look", {})))
    answered = user(ToolResultPart((), name="look", response={}))
    now = render(user("a"), called, answered, family="gemini-3")
    assert "deep" in texts(now)
    later = render(user("a"), called, answered, user("b"), family="gemini-3")
    assert now.tokens - (later.tokens - 1) == 210
    assert now.accuracy is Accuracy.ESTIMATE
    assert later.upper_extra >= 250


def test_dummy_signatures_cost_nothing() -> None:
    called = Message("model", (ThinkingPart(opaque="s" * 44), ToolCallPart("look", {})))
    assert render(user("a"), called, family="gemini-3").notes == ()


@pytest.mark.parametrize(
    ("part", "family", "platform", "tokens"),
    [
        (MediaPart("image", "image/png", width=3000, height=2000), "gemini-2.5", "vertex", 258),
        (MediaPart("image", "image/png", width=640, height=480), "gemini-2.0", "", 258 * 5),
        (MediaPart("image", "image/png", width=300, height=300), "gemini-2.0", "", 258),
        (MediaPart("image", "image/png"), "gemini-3", "vertex", 1095),
        (MediaPart("audio", "audio/mpeg", seconds=4.0), "gemini-2.5", "vertex", 100),
        (MediaPart("document", "application/pdf", pages=2), "gemini-2.0", "", 516),
    ],
)
def test_media_cost_by_their_formula_and_say_so(part: MediaPart, family: str, platform: str, tokens: int) -> None:
    rendered = render(user(part), family=family, platform=platform)
    assert rendered.tokens == tokens
    assert rendered.accuracy is Accuracy.ESTIMATE
    assert rendered.upper_extra >= 16


@pytest.mark.parametrize(
    ("family", "platform", "json_schema", "counted"),
    [
        ("gemini-2.0", "", False, True),
        ("gemini-2.0", "", True, False),
        ("gemini-2.5", "", False, False),
        ("gemini-2.5", "vertex", False, True),
    ],
)
def test_response_schema_counts_where_the_api_counts_it(
    family: str, platform: str, json_schema: bool, counted: bool
) -> None:
    options = {"response_json_schema": True} if json_schema else {}
    plain = render(family=family, platform=platform)
    rendered = render(family=family, platform=platform, output_schema=OutputSchema(PARAMETERS), options=options)
    assert (texts(rendered) != texts(plain)) is counted


def test_server_tools_are_labelled_and_held_generously() -> None:
    rendered = render(server_tools=("googleSearch",), unknowable=("file",))
    assert rendered.upper_extra >= 4000
    assert len(rendered.notes) == 2


def test_embeddings_cost_their_texts_and_258_an_image() -> None:
    spec = ModelSpec("gemini-embedding-2", "gemini-embedding", "gemma3", "gemini", accuracy=Accuracy.ESTIMATE)
    rendered = GeminiLayout().render(TextPrompt(("a", "b"), purpose="embedding", unknowable=("image",)), spec)
    assert (texts(rendered), rendered.tokens, rendered.accuracy) == (["a", "b"], 258, Accuracy.ESTIMATE)


NAMES = st.sampled_from(
    (
        "type",
        "properties",
        "required",
        "enum",
        "items",
        "anyOf",
        "$ref",
        "$defs",
        "default",
        "description",
        "title",
        "a",
    )
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just("#/$defs/a"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(NAMES, JSON), JSON, st.sampled_from(("gemini-2.0", "gemini-2.5", "gemini-3")))
def test_hostile_schemas_and_values_are_laid_out_without_an_error(
    schema: dict[str, Any], value: Any, family: str
) -> None:
    tool = ToolSpec("f", "", schema, raw={"parameters": schema})
    call = Message("model", (ToolCallPart("f", {"a": value}),))
    result = user(ToolResultPart((), name="f", response=value))
    assert render(user("a"), call, result, tools=(tool,), output_schema=OutputSchema(schema), family=family).pieces
