import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, NotFound
from gateway.formats import match
from gateway.formats.base import Call
from gateway.formats.openai_chat import OpenAIChat
from tokenizers_offline.prompt import (
    ChatPrompt,
    MediaPart,
    OpaquePart,
    OutputSchema,
    TextPart,
    ThinkingPart,
    TokenCount,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)

CHAT = OpenAIChat()


def parse(path: str = "/v1/chat/completions", **body: object) -> Call:
    found = match("POST", path)
    assert found is not None
    fmt, route, groups = found
    return fmt.parse(route, groups, orjson.dumps({"model": "gpt-4o", "messages": [user("hi")], **body}))


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


def prompt_of(call: Call) -> ChatPrompt:
    assert isinstance(call.prompt, ChatPrompt)
    return call.prompt


def test_parse_reads_a_plain_conversation() -> None:
    call = parse(messages=[{"role": "system", "content": "Be brief."}, user("hi"), {**user("yo"), "name": "ann"}])
    assert [(m.role, m.text, m.name) for m in prompt_of(call).messages] == [
        ("system", "Be brief.", ""),
        ("user", "hi", ""),
        ("user", "yo", "ann"),
    ]
    assert (call.model, call.output_cap, call.choices, call.stream, call.wants_usage) == (
        "gpt-4o",
        None,
        1,
        False,
        True,
    )


def test_parse_reads_parts_of_every_kind() -> None:
    content = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}},
        {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "mp3"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,CCCC", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "hologram", "x": 1},
    ]
    (message,) = prompt_of(parse(messages=[user(content)])).messages
    assert message.as_list
    assert message.parts == (
        TextPart("see"),
        MediaPart("image", media_type="image/png", data="AAAA", detail="low"),
        MediaPart("image", url="https://example.com/x.png"),
        MediaPart("audio", media_type="audio/mpeg", data="BBBB"),
        MediaPart("document", media_type="application/pdf", data="CCCC", name="a.pdf"),
        MediaPart("document", file_id="file-1"),
        OpaquePart("hologram", {"type": "hologram", "x": 1}),
    )


def test_parse_reads_calls_results_and_reasoning() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    assistant = {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]}
    legacy = {"role": "assistant", "content": "", "function_call": {"name": "g", "arguments": {"b": 2}}}
    results = [
        {"role": "tool", "tool_call_id": "c1", "content": "4"},
        {"role": "function", "name": "g", "content": "5"},
    ]
    messages = prompt_of(parse(messages=[user("x"), assistant, legacy, *results])).messages
    assert messages[1].parts == (ThinkingPart("hm"), ToolCallPart("f", '{"a":1}', call_id="c1"))
    assert messages[1].extra == {"reasoning_content": "hm"}
    assert messages[2].parts == (ToolCallPart("g", {"b": 2}),)
    assert messages[3].parts == (ToolResultPart((TextPart("4"),), call_id="c1"),)
    assert messages[4].parts == (ToolResultPart((TextPart("5"),), name="g"),)


def test_parse_reads_tools_old_and_new() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    call = parse(
        tools=[
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema, "strict": True}},
            {"type": "web_search"},
        ],
        functions=[{"name": "g"}],
        tool_choice={"type": "function", "function": {"name": "f"}},
    )
    prompt = prompt_of(call)
    assert [(t.name, t.description, t.parameters, t.strict) for t in prompt.tools] == [
        ("f", "d", schema, True),
        ("g", None, None, None),
    ]
    assert prompt.server_tools == ("web_search",)
    assert prompt.tool_choice == ToolChoice("named", "f")


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}}, ToolChoice("required")),
        (None, None),
    ],
)
def test_parse_reads_a_tool_choice(choice: object, expected: ToolChoice | None) -> None:
    assert prompt_of(parse(tool_choice=choice)).tool_choice == expected


def test_parse_reads_response_formats() -> None:
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True, "description": "d"}
    assert prompt_of(parse(response_format={"type": "json_schema", "json_schema": schema})).output_schema == (
        OutputSchema({"type": "object"}, name="n", description="d", strict=True)
    )
    assert prompt_of(parse(response_format={"type": "json_object"})).output_schema == OutputSchema(None)
    assert prompt_of(parse(response_format={"type": "text"})).output_schema is None


def test_parse_takes_the_larger_cap_and_every_choice() -> None:
    call = parse(max_tokens=1, max_completion_tokens=900, n=3)
    assert (call.output_cap, call.choices) == (900, 3)


@pytest.mark.parametrize("cap", [0, -1])
def test_parse_takes_a_cap_that_means_no_limit_for_none(cap: int) -> None:
    call = parse(max_tokens=cap)
    assert call.output_cap is None
    assert orjson.loads(CHAT.with_output_cap(call, 7))["max_tokens"] == 7


def test_parse_takes_the_deployment_in_the_path_for_the_model() -> None:
    assert parse("/openai/deployments/mine/chat/completions").model == "mine"


def test_parse_refuses_with_the_field_when_bodies_are_wrong() -> None:
    wrong: list[tuple[dict[str, object], str]] = [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [user(5)]}, "messages[0].content"),
        ({"messages": [user([7])]}, "messages[0].content[0]"),
        ({"messages": [user([{"type": "text", "text": 5}])]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": 5}}]}]}, "messages[0]"),
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"n": 0}, "n"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": {}}, "tools"),
    ]
    for fields, param in wrong:
        with pytest.raises(BadRequest) as caught:
            parse(**fields)
        assert (caught.value.param or "").startswith(param), fields


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
names = st.sampled_from(
    ["messages", "tools", "tool_choice", "response_format", "stream", "stream_options", "max_tokens", "n", "functions"]
)
messages = st.lists(
    st.dictionaries(
        st.sampled_from(["role", "content", "tool_calls", "name", "function_call", "reasoning", "reasoning_details"]),
        st.one_of(st.sampled_from(["user", "assistant", "tool"]), json_values),
    )
)


@given(st.dictionaries(names, json_values), messages)
def test_parse_only_ever_refuses_hostile_bodies(fields: dict[str, object], sent: list[dict[str, object]]) -> None:
    body = {"messages": sent, **fields}
    try:
        call = parse(**body)
    except BadRequest:
        return
    assert orjson.loads(CHAT.with_output_cap(call, 5))
    CHAT.with_usage_requested(call)


def test_with_output_cap_lowers_what_is_named_and_names_what_the_model_takes() -> None:
    both = CHAT.with_output_cap(parse(max_tokens=3, max_completion_tokens=900), 50)
    assert {k: v for k, v in orjson.loads(both).items() if k.startswith("max")} == {
        "max_tokens": 3,
        "max_completion_tokens": 50,
    }
    assert orjson.loads(CHAT.with_output_cap(parse(), 50))["max_tokens"] == 50
    for model in ("o3-mini", "gpt-5", "openai/gpt-5.1"):
        assert orjson.loads(CHAT.with_output_cap(parse(model=model), 50))["max_completion_tokens"] == 50


def test_with_usage_requested_keeps_other_stream_options() -> None:
    call = parse(stream=True, stream_options={"include_obfuscation": False})
    assert not call.wants_usage
    asked = CHAT.with_usage_requested(call)
    assert asked is not None
    assert orjson.loads(asked)["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert CHAT.with_usage_requested(parse(stream=True, stream_options={"include_usage": True})) is None
    assert CHAT.with_usage_requested(parse()) is None


def test_render_count_is_not_found() -> None:
    with pytest.raises(NotFound, match="/calculate"):
        CHAT.render_count(parse(), TokenCount(1, "exact", 1, "o200k_base"))


def test_credential_is_read_where_openai_and_azure_put_it() -> None:
    assert CHAT.credential({"Authorization": "Bearer sk-1"}, {}) == "sk-1"
    assert CHAT.credential({"Authorization": "bearer  sk-1 "}, {}) == "sk-1"
    assert CHAT.credential({"api-key": "k"}, {}) == "k"
    assert CHAT.credential({"Authorization": "Basic eDp5"}, {}) is None
    assert CHAT.credential({}, {}) is None
