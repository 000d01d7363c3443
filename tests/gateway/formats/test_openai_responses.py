import orjson
import pytest

from gateway.errors import BadRequest
from gateway.formats import match
from gateway.formats.base import Call
from gateway.formats.openai_responses import OpenAIResponses
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

RESPONSES = OpenAIResponses()


def parse(path: str = "/v1/responses", **body: object) -> Call:
    found = match("POST", path)
    assert found is not None
    fmt, route, groups = found
    return fmt.parse(route, groups, orjson.dumps({"model": "gpt-5", "input": "hi", **body}))


def prompt_of(call: Call) -> ChatPrompt:
    assert isinstance(call.prompt, ChatPrompt)
    return call.prompt


def test_parse_reads_instructions_and_a_string() -> None:
    call = parse(instructions="Be brief.", max_output_tokens=9, stream=True)
    assert [(m.role, m.text) for m in prompt_of(call).messages] == [("system", "Be brief."), ("user", "hi")]
    assert (call.kind, call.output_cap, call.stream, call.wants_usage) == ("generate", 9, True, True)


def test_parse_reads_every_kind_of_item() -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "s"}], "encrypted_content": "x"},
        {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c", "id": "fc"},
        {"type": "function_call_output", "call_id": "c", "output": "4"},
        {
            "type": "function_call_output",
            "call_id": "d",
            "output": [{"type": "input_image", "image_url": "https://e/x"}],
        },
        {"type": "custom_tool_call", "name": "g", "input": "raw", "call_id": "e"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
        {"type": "item_reference", "id": "msg_1"},
    ]
    messages = prompt_of(parse(input=items)).messages
    assert [m.role for m in messages] == [
        "user", "assistant", "assistant", "tool", "tool", "assistant", "assistant", "assistant"
    ]  # fmt: skip
    assert [m.parts[0] for m in messages] == [
        TextPart("a"),
        ThinkingPart("s", "x"),
        ToolCallPart("f", "{}", call_id="c", item_id="fc"),
        ToolResultPart((TextPart("4"),), call_id="c"),
        ToolResultPart((MediaPart("image", url="https://e/x"),), call_id="d"),
        ToolCallPart("g", "raw", call_id="e"),
        TextPart("b"),
        OpaquePart("item_reference", items[-1]),
    ]


def test_parse_reads_tools_formats_and_stored_text() -> None:
    call = parse(
        tools=[{"type": "function", "name": "f", "parameters": {"type": "object"}}, {"type": "file_search"}],
        tool_choice={"type": "function", "name": "f"},
        text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
        previous_response_id="resp_1",
    )
    prompt = prompt_of(call)
    assert [tool.name for tool in prompt.tools] == ["f"]
    assert prompt.server_tools == ("file_search",)
    assert prompt.tool_choice == ToolChoice("named", "f")
    assert prompt.output_schema == OutputSchema({"type": "object"}, name="n")
    assert prompt.unknowable == ("previous_response_id",)


def test_parse_ignores_a_function_object_beside_a_name() -> None:
    tool = {"type": "function", "name": "f", "function": {"name": "f", "description": "d", "parameters": {}}}
    (spec,) = prompt_of(parse(tools=[tool])).tools
    assert (spec.description, spec.parameters) == (None, None)


@pytest.mark.parametrize("field", [{"input": None}, {"input": 5}, {"input": [5]}, {"instructions": 5}, {"model": None}])
def test_parse_refuses_wrong_bodies(field: dict[str, object]) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(**field)
    assert (caught.value.param or "").startswith(next(iter(field)))


def test_count_endpoint_answers_in_its_own_shape() -> None:
    call = parse("/v1/responses/input_tokens")
    assert (call.kind, call.output_cap) == ("count", 0)
    answer = RESPONSES.render_count(call, TokenCount(12, "exact", 12, "o200k_base"))
    assert orjson.loads(answer) == {"object": "response.input_tokens", "input_tokens": 12}


def test_with_output_cap_lowers_and_adds() -> None:
    assert orjson.loads(RESPONSES.with_output_cap(parse(max_output_tokens=900), 50))["max_output_tokens"] == 50
    assert orjson.loads(RESPONSES.with_output_cap(parse(), 50))["max_output_tokens"] == 50
    assert RESPONSES.with_usage_requested(parse(stream=True)) is None


def test_parse_tells_empty_instructions_from_none() -> None:
    assert prompt_of(parse(instructions="")).options["instructions"] == ""
    assert "instructions" not in prompt_of(parse()).options
    assert "instructions" not in prompt_of(parse(instructions="a")).options
