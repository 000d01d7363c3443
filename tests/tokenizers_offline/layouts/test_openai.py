import pytest

from tokenizers_offline.layouts.base import ModelSpec, Rendered
from tokenizers_offline.layouts.openai import OpenAILayout
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

TOOL = ToolSpec("f", "Does it.", None)
NAMESPACE = "namespace functions {\n\n// Does it.\ntype f = () => any;\n\n} // namespace functions"
TOOLS = f"# Tools\n\n## functions\n\n{NAMESPACE}"
SCHEMA = OutputSchema(
    {"type": "object", "properties": {"ä": {"type": "string", "minLength": 1}}, "required": ["ä"]}, name="out"
)
SCHEMA_TEXT = '# Response Formats\n\n## out\n\n{"type":"object","properties":{"\\u00e4":{"type":"string"}}}'


def say(role: str, text: str, name: str = "") -> Message:
    return Message(role, (TextPart(text),) if text else (), name=name)


def call(name: str, arguments: str, call_id: str = "c", item_id: str = "") -> ToolCallPart:
    return ToolCallPart(name, arguments, call_id=call_id, item_id=item_id)


def result(text: str, call_id: str = "c") -> Message:
    return Message("tool", (ToolResultPart((TextPart(text),), call_id=call_id),))


def render(
    *messages: Message,
    model: str = "gpt-4o",
    dialect: Dialect = Dialect.OPENAI_CHAT,
    platform: str = "",
    **rest: object,
) -> Rendered:
    prompt = ChatPrompt(dialect, messages, **rest)  # type: ignore[arg-type]
    spec = ModelSpec(model, family=model, encoding="o200k_base", layout="openai")
    return OpenAILayout().render(prompt, spec, platform=platform)


def texts(rendered: Rendered) -> list[str]:
    assert not any(piece.specials for piece in rendered.pieces)
    return [piece.text for piece in rendered.pieces]


def test_messages_cost_four_tokens_each_and_the_reply_three() -> None:
    rendered = render(say("system", "Be brief."), say("user", "hi"), say("user", "yo", name="ann"))
    assert texts(rendered) == ["Be brief.", "hi", "ann", "yo"]
    assert rendered.tokens == 3 * 4 + 1 + 3
    assert (rendered.accuracy, rendered.features) == (Accuracy.EXACT, ("text",))
    assert (rendered.upper_factor, rendered.upper_extra) == (1.0, 0)


@pytest.mark.parametrize(
    ("model", "reply"),
    [
        ("gpt-3.5-turbo", 3),
        ("gpt-4.1-mini", 3),
        ("o3-mini", 2),
        ("gpt-5", 2),
        ("openai/gpt-5.4-nano", 2),
        ("gpt-5-chat", 3),
    ],
)
def test_the_reply_differs_by_generation(model: str, reply: int) -> None:
    assert render(say("user", "hi"), model=model).tokens == 4 + reply


def test_parts_of_a_list_are_read_as_one_text() -> None:
    message = Message("user", (TextPart("ab"), TextPart("cd")), as_list=True)
    assert texts(render(message)) == ["abcd"]


def test_an_unknown_role_is_counted_by_its_text() -> None:
    rendered = render(say("narrator", "x"))
    assert texts(rendered) == ["narrator", "x"]
    assert rendered.tokens == 3 + 3


def test_tools_follow_the_first_system_message() -> None:
    rendered = render(say("user", "hi"), say("developer", "Be brief."), say("system", "x"), tools=(TOOL,))
    assert texts(rendered) == ["hi", f"Be brief.\n\n{TOOLS}", "x"]
    assert rendered.tokens == 3 * 4 + 3 - 1
    assert rendered.accuracy is Accuracy.BOUNDED
    assert "tools" in rendered.features


def test_tools_are_a_message_of_their_own_when_there_is_no_system_message() -> None:
    rendered = render(say("user", "hi"), tools=(TOOL,))
    assert texts(rendered) == ["hi", TOOLS]
    assert rendered.tokens == 2 * 4 + 3 - 1


def test_tools_of_gpt_5_follow_headed_instructions() -> None:
    rendered = render(say("system", "Be brief."), say("user", "hi"), tools=(TOOL,), model="gpt-5")
    assert texts(rendered) == [f"# Instructions\n\nBe brief.\n\n{TOOLS}", "hi"]
    assert rendered.tokens == 2 * 4 + 2 + 81


def test_a_named_tool_costs_its_name() -> None:
    choice = ToolChoice("named", "f")
    plain = render(say("user", "hi"), tools=(TOOL,))
    named = render(say("user", "hi"), tools=(TOOL,), tool_choice=choice)
    assert sorted(texts(named)) == sorted([*texts(plain), "f"])
    assert named.tokens == plain.tokens + 7
    assert render(say("user", "hi"), tools=(TOOL,), tool_choice=ToolChoice("required")).tokens == plain.tokens
    reasoning = render(say("user", "hi"), tools=(TOOL,), tool_choice=choice, model="o3")
    assert "f" not in texts(reasoning)


def test_a_call_names_its_tool_twice() -> None:
    rendered = render(say("user", "hi"), Message("assistant", (call("f", '{"a": 1}'),)), result("4"))
    assert texts(rendered) == ["hi", "f", '{"a":1}', ".f", "4"]
    assert rendered.tokens == 4 + (4 + 4) + 5 + 3


def test_arguments_that_are_no_json_stay_as_they_are() -> None:
    for arguments in ("{a", "[" * 5000, '"x"', ""):
        assert (arguments in texts(render(Message("assistant", (call("f", arguments),))))) is bool(arguments)


def test_parallel_calls_are_one_call_with_one_array_of_results() -> None:
    calls = Message("assistant", (call("f", "{}", "1"), call("g", '{"a": "é"}', "2")))
    rendered = render(say("user", "hi"), calls, result("x", "1"), result('{"b": 2}', "2"), say("user", "so?"))
    assert texts(rendered) == [
        "hi",
        (
            '{"tool_uses":[{"recipient_name":"functions.f","parameters":{}},'
            '{"recipient_name":"functions.g","parameters":{"a":"é"}}]}'
        ),
        '["x", {"b": 2}]',
        "so?",
    ]
    assert rendered.tokens == 4 + 20 + 4 + 3


def test_a_schema_is_shown_without_what_only_constrains_and_names_the_answer() -> None:
    rendered = render(say("system", "Be brief."), say("assistant", "{}"), say("user", "hi"), output_schema=SCHEMA)
    assert texts(rendered) == [f"Be brief.\n\n{SCHEMA_TEXT}", "{}", "out", "hi", "out"]
    assert rendered.tokens == 3 * 4 + 2 * 2 + 3


def test_a_schema_beside_tools_does_not_name_the_answer() -> None:
    rendered = render(say("user", "hi"), tools=(TOOL,), output_schema=SCHEMA)
    assert texts(rendered) == ["hi", f"{TOOLS}\n\n{SCHEMA_TEXT}"]
    assert rendered.tokens == 2 * 4 - 1 + 3


def test_any_json_object_costs_nothing() -> None:
    assert render(say("user", "hi"), output_schema=OutputSchema(None)) == render(say("user", "hi"))


def responses(*messages: Message, **rest: object) -> Rendered:
    return render(*messages, dialect=Dialect.OPENAI_RESPONSES, **rest)  # type: ignore[arg-type]


def test_responses_keep_tools_and_schema_apart() -> None:
    rendered = responses(say("system", "Be brief."), say("user", "hi"), tools=(TOOL,), output_schema=SCHEMA)
    assert texts(rendered) == ["Be brief.", "hi", TOOLS, SCHEMA_TEXT]
    assert rendered.tokens == 2 * 4 - 3 + 3 + 3


def test_responses_take_arguments_as_they_came() -> None:
    sent = Message("assistant", (call("f", '{"a": 1}'),))
    rendered = responses(say("user", "hi"), sent, result("4"))
    assert texts(rendered) == ["hi", "f", '{"a": 1}', "f", "4"]
    assert rendered.tokens == 4 + 11 + 3


def test_responses_add_three_for_a_lone_call_that_is_known_by_id() -> None:
    lone = Message("assistant", (call("f", "{}", item_id="fc"),))
    assert responses(lone, result("4")).tokens == responses(lone, lone, result("4")).tokens - 11 + 3


def test_reasoning_counts_in_the_current_turn_only() -> None:
    thought = Message("assistant", (ThinkingPart(opaque="x" * 2140),))
    assert responses(say("user", "hi"), thought).tokens == 4 + 200 + 3
    assert responses(thought, say("user", "hi")).tokens == 4 + 3


def test_openrouter_sends_newer_models_to_responses() -> None:
    system = say("system", "Be brief.")
    for model, apart in (("openai/gpt-4o", False), ("openai/gpt-4.1", True), ("openai/gpt-5", True)):
        rendered = render(system, tools=(TOOL,), model=model, platform="openrouter")
        assert (TOOLS in texts(rendered)) is apart


def test_images_are_measured_and_remote_ones_assumed() -> None:
    known = render(Message("user", (MediaPart("image", data="", width=1024, height=1024),)))
    assert known.tokens == 4 + 765 + 3
    assert known.accuracy is Accuracy.BOUNDED
    remote = render(Message("user", (MediaPart("image", url="https://e/x"),)))
    assert remote.accuracy is Accuracy.ESTIMATE
    assert remote.tokens + remote.upper_extra >= 4 + 85 + 8 * 170 + 3
    assert "remote_image" in remote.features


def test_sounds_and_documents_are_labelled_estimates() -> None:
    sound = render(Message("user", (MediaPart("audio", data="", seconds=2.64),)))
    assert (sound.tokens, sound.accuracy) == (4 + 26 + 4 + 3, Accuracy.ESTIMATE)
    paper = responses(Message("user", (MediaPart("document", data="", pages=2, text="two pages"),)))
    assert texts(paper) == ["two pages"]
    assert (paper.tokens, paper.accuracy) == (4 + 14 + 3, Accuracy.ESTIMATE)
    stored = responses(Message("user", (MediaPart("document", file_id="file-1"),)))
    assert stored.upper_extra >= 20_000
    plain = responses(Message("user", (MediaPart("document", media_type="text/plain", data="aGVsbG8="),)))
    assert texts(plain) == ["hello"]


def test_what_cannot_be_known_is_said_and_held() -> None:
    rendered = responses(
        say("user", "hi"),
        Message("assistant", (OpaquePart("web_search_call"),)),
        server_tools=("web_search",),
        unknowable=("previous_response_id",),
    )
    assert rendered.accuracy is Accuracy.ESTIMATE
    assert rendered.upper_extra > 16_000
    assert {"web_search_call", "server_tools", "previous_response_id"} <= set(rendered.features)
    assert any("previous_response_id" in note for note in rendered.notes)


def test_late_tools_are_shown_in_a_message_of_their_own() -> None:
    raw = {"tools": [{"name": "f", "description": "Does it."}, {"type": "broken"}]}
    assert texts(responses(Message("assistant", (OpaquePart("additional_tools", raw),)))) == [TOOLS]
    assert responses(Message("assistant", (OpaquePart("additional_tools"),))).accuracy is Accuracy.BOUNDED


def test_texts_are_counted_one_by_one() -> None:
    spec = ModelSpec("text-embedding-3-small", "text-embedding-3", "cl100k_base", "openai")
    rendered = OpenAILayout().render(TextPrompt(("a", (1, 2, 3)), purpose="embedding"), spec)
    assert (texts(rendered), rendered.tokens, rendered.accuracy) == (["a"], 3, Accuracy.EXACT)
    suffixed = OpenAILayout().render(TextPrompt(("a",), purpose="completion", suffix="z"), spec)
    assert (texts(suffixed), suffixed.accuracy) == (["a", "z"], Accuracy.BOUNDED)


def test_a_name_made_up_in_the_config_follows_its_family() -> None:
    spec = ModelSpec("my-deployment", "gpt-5", "o200k_base", "openai")
    prompt = ChatPrompt(Dialect.OPENAI_CHAT, (say("user", "hi"),))
    assert OpenAILayout().render(prompt, spec).tokens == 4 + 2


@pytest.mark.parametrize(
    ("model", "dialect", "accuracy"),
    [
        ("gpt-4", Dialect.OPENAI_CHAT, Accuracy.EXACT),
        ("gpt-4", Dialect.OPENAI_RESPONSES, Accuracy.BOUNDED),
        ("gpt-4.1", Dialect.OPENAI_RESPONSES, Accuracy.EXACT),
        ("o1-mini", Dialect.OPENAI_CHAT, Accuracy.BOUNDED),
        ("o1", Dialect.OPENAI_CHAT, Accuracy.EXACT),
    ],
)
def test_models_of_few_bills_are_not_called_exact(model: str, dialect: Dialect, accuracy: Accuracy) -> None:
    assert render(say("user", "hi"), model=model, dialect=dialect).accuracy is accuracy


def test_empty_instructions_are_not_called_exact() -> None:
    rendered = render(say("user", "hi"), dialect=Dialect.OPENAI_RESPONSES, options={"instructions": ""})
    assert (rendered.accuracy, rendered.upper_extra) == (Accuracy.BOUNDED, 64)
