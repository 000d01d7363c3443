from tests.tokenizers_offline.layouts.conversations import WEATHER, answer, call, chat, said
from tokenizers_offline.layouts.conversation import (
    arguments_object,
    arguments_text,
    function_of,
    spaced,
    tool_object,
    turns,
)
from tokenizers_offline.prompt import MediaPart, ThinkingPart, ToolCallPart, ToolResultPart, ToolSpec


def test_turns_name_roles_as_templates_do() -> None:
    conversation = turns(chat(said("developer", "a"), said("model", "b"), said("human", "c")))
    assert [(turn.role, turn.content) for turn in conversation] == [("system", "a"), ("assistant", "b"), ("user", "c")]


def test_turns_keep_developers_when_asked() -> None:
    assert turns(chat(said("developer", "a")), keep_developer=True)[0].role == "developer"


def test_turns_part_tool_results_from_the_text_beside_them() -> None:
    results = (
        ToolResultPart((), call_id="1", response={"ok": True}),
        ToolResultPart((), call_id="2", response="plain"),
    )
    conversation = turns(chat(said("assistant", call(call_id="1")), said("user", *results, "and now?")))
    assert [(turn.role, turn.content, turn.name) for turn in conversation] == [
        ("assistant", "", ""),
        ("tool", '{"ok":true}', "weather"),
        ("tool", "plain", ""),
        ("user", "and now?", ""),
    ]


def test_turns_keep_a_message_that_says_nothing() -> None:
    assert [turn.content for turn in turns(chat(said("user")))] == [""]


def test_turns_part_reasoning_and_media_from_text() -> None:
    (turn,) = turns(chat(said("assistant", ThinkingPart("hm"), "a", MediaPart("image"), "b")))
    assert (turn.reasoning, turn.content, turn.has_media, len(turn.parts)) == ("hm", "ab", True, 3)


def test_turns_find_the_name_of_a_tool_by_its_call() -> None:
    assert [turn.name for turn in turns(chat(said("assistant", call()), answer("sunny")))] == ["", "weather"]


def test_tool_object_prints_name_description_parameters_in_order() -> None:
    assert list(function_of(WEATHER)) == ["name", "description", "parameters"]
    assert tool_object(ToolSpec("f", None, None)) == {"type": "function", "function": {"name": "f"}}


def test_arguments_read_as_object_only_when_they_are_one() -> None:
    assert arguments_object(call()) == {"city": "Rome"}
    assert arguments_object(call(arguments="")) == {}
    assert arguments_object(call(arguments="[1]")) == "[1]"
    assert arguments_object(call(arguments="{broken")) == "{broken"
    assert arguments_object(call(arguments={"a": 1})) == {"a": 1}
    assert arguments_object(call(arguments="[" * 100_000)) == "[" * 100_000


def test_arguments_text_stays_as_sent() -> None:
    assert arguments_text(ToolCallPart("f", '{"a":1}')) == '{"a":1}'
    assert arguments_text(ToolCallPart("f", {"a": "é"})) == '{"a": "é"}'


def test_spaced_never_fails() -> None:
    assert spaced({"a": object}) == str({"a": object})
