import itertools
import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, BudgetRefused, NotFound
from gateway.formats.base import Call
from gateway.formats.cohere import Cohere
from policies.usage import Usage
from tokenizers_offline.prompt import (
    Accuracy,
    ChatPrompt,
    OutputSchema,
    TextPart,
    TextPrompt,
    ThinkingPart,
    TokenCount,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)

COHERE = Cohere()
EVENTS = (
    b'event: message-start\ndata: {"type":"message-start","id":"x"}\n\n'
    b'data: {"type":"tool-plan-delta","delta":{"message":{"tool_plan":"I will. "}}}\n\n'
    b'data: {"type":"content-delta","delta":{"message":{"content":{"text":"Hello"}}}}\n\n'
    b'data: {"type":"tool-call-start","delta":{"message":{"tool_calls":{"function":{"name":"f","arguments":""}}}}}\n\n'
    b'data: {"type":"message-end","delta":{"usage":{"billed_units":{"input_tokens":3,"output_tokens":2},'
    b'"tokens":{"input_tokens":500,"output_tokens":4},"cached_tokens":480}}}\n\n'
)
LINES = (
    b'{"event_type":"stream-start"}\n{"event_type":"text-generation","text":"Hello"}\n'
    b'{"event_type":"stream-end","response":{"text":"Hello","meta":{"tokens":{"input_tokens":60,"output_tokens":2}}}}\n'
)


def parse(path: str = "/v2/chat", **body: object) -> Call:
    for route in COHERE.routes:
        found = route.pattern.search(path)
        if found is not None:
            groups = {name: value for name, value in found.groupdict().items() if value is not None}
            return COHERE.parse(route, groups, orjson.dumps({"model": "command-a-03-2025", **body}))
    raise AssertionError(path)


def ask(**body: object) -> Call:
    return parse(messages=[{"role": "user", "content": "hi"}], **body)


def chat_of(call: Call) -> ChatPrompt:
    assert isinstance(call.prompt, ChatPrompt)
    return call.prompt


def test_parse_reads_version_2() -> None:
    document = {"type": "document", "document": {"data": {"t": "sunny"}}}
    call = parse(
        messages=[
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {
                "role": "assistant",
                "tool_plan": "I will.",
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "1", "content": [document]},
            {
                "role": "assistant",
                "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Yes."}],
            },
        ],
        tools=[{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}],
        tool_choice="REQUIRED",
        response_format={"type": "json_object", "schema": {"type": "object"}},
        documents=["facts", {"id": "d", "data": {"text": "more"}}],
        max_tokens=50,
        stream=True,
    )
    prompt = chat_of(call)
    assert [message.parts for message in prompt.messages] == [
        (TextPart("be brief"),),
        (TextPart("hi"),),
        (TextPart("I will."), ToolCallPart("f", "{}", call_id="1")),
        (ToolResultPart((TextPart('{"t":"sunny"}'),), call_id="1"),),
        (ThinkingPart("hm"), TextPart("Yes.")),
        (
            ToolResultPart((TextPart("facts"),), name="search"),
            ToolResultPart((TextPart('{"text":"more"}'),), name="search"),
        ),
    ]
    assert (prompt.tool_choice, prompt.output_schema) == (ToolChoice("required"), OutputSchema({"type": "object"}))
    assert (call.output_cap, call.stream, prompt.tools[0].name) == (50, True, "f")


def test_parse_reads_version_1() -> None:
    prompt = chat_of(
        parse(
            "/v1/chat",
            message="and now?",
            preamble="be brief",
            chat_history=[
                {"role": "USER", "message": "hi"},
                {"role": "CHATBOT", "message": "yo", "tool_calls": [{"name": "f", "parameters": {"a": 1}}]},
            ],
            tools=[{"name": "f", "description": "d", "parameter_definitions": {"a": {"type": "int"}}}],
            tool_results=[{"call": {"name": "f"}, "outputs": [{"t": 1}]}],
            connectors=[{"id": "web-search"}],
            conversation_id="c",
        )
    )
    assert [(message.role, message.parts) for message in prompt.messages] == [
        ("system", (TextPart("be brief"),)),
        ("user", (TextPart("hi"),)),
        ("assistant", (TextPart("yo"), ToolCallPart("f", {"a": 1}))),
        ("tool", (ToolResultPart((TextPart('{"t":1}'),), name="f"),)),
        ("user", (TextPart("and now?"),)),
    ]
    assert prompt.tools[0].parameters == {"type": "object", "properties": {"a": {"type": "int"}}}
    assert (prompt.server_tools, prompt.unknowable) == (("web-search",), ("conversation",))


def test_parse_reads_texts() -> None:
    generate = parse("/v1/generate", prompt="hi", num_generations=3)
    assert (generate.prompt, generate.choices) == (TextPrompt(("hi",), purpose="completion"), 3)
    assert parse("/v2/embed", texts=["a", "b"]).prompt == TextPrompt(("a", "b"), purpose="embedding")
    inputs = [{"content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:x,"}}]}]
    assert parse("/v2/embed", inputs=inputs).prompt == TextPrompt(("a",), purpose="embedding", unknowable=("image",))


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v2/chat", {}, "messages"),
        ("/v2/chat", {"messages": []}, "messages"),
        ("/v2/chat", {"messages": [{"content": "hi"}]}, "messages[0].role"),
        ("/v2/chat", {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ("/v1/chat", {"chat_history": [{"message": "hi"}]}, "chat_history[0].role"),
        ("/v1/generate", {}, "prompt"),
        ("/v2/embed", {"texts": [5]}, "texts"),
    ],
)
def test_parse_names_the_field_when_a_body_is_wrong(path: str, body: dict[str, object], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(path, **body)
    assert caught.value.param == param


KEYS = [
    "messages",
    "role",
    "content",
    "tools",
    "function",
    "documents",
    "chat_history",
    "message",
    "tool_results",
    "type",
]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner),
    )
)
def test_parse_only_ever_refuses_hostile_bodies(value: object) -> None:
    for route in COHERE.routes:
        for path in ({}, {"v1": "v1"}):
            for body in (value, {"model": "m", "messages": [value], "chat_history": [value], "documents": value}):
                try:
                    COHERE.parse(route, path, json.dumps(body).encode())
                except BadRequest:
                    continue


@pytest.mark.parametrize(
    ("stream", "content_type", "usage", "text"),
    [
        (EVENTS, "text/event-stream", Usage(500, 4, cached_tokens=480), "I will. Hellof"),
        (LINES, "application/stream+json", Usage(60, 2), "Hello"),
    ],
)
@given(cuts=st.lists(st.integers(0, min(len(EVENTS), len(LINES))), max_size=6))
def test_reader_hears_the_same_wherever_the_stream_is_cut(
    stream: bytes, content_type: str, usage: Usage, text: str, cuts: list[int]
) -> None:
    edges = [0, *sorted(cuts), len(stream)]
    reader = COHERE.usage_reader(ask(stream=True), status=200, content_type=content_type)
    relayed = b"".join(reader.feed(stream[a:b]) for a, b in itertools.pairwise(edges)) + reader.finish()
    assert relayed == stream
    assert (reader.usage, reader.complete, reader.output_text) == (usage, True, text)


@pytest.mark.parametrize(
    ("answer", "usage", "text"),
    [
        (
            {
                "id": "x",
                "message": {"content": [{"text": "Hi"}]},
                "usage": {"tokens": {"input_tokens": 9, "output_tokens": 1}},
            },
            Usage(9, 1),
            "Hi",
        ),
        ({"text": "Hi", "meta": {"billed_units": {"input_tokens": 7, "output_tokens": 1}}}, Usage(7, 1), "Hi"),
        ({"embeddings": {}, "meta": {"billed_units": {"input_tokens": 7, "image_tokens": 2}}}, Usage(9, 0), ""),
        ({"generations": [{"text": "a"}, {"text": "b"}], "id": "x"}, None, "ab"),
    ],
)
def test_reader_reads_a_whole_answer(answer: dict[str, object], usage: Usage | None, text: str) -> None:
    reader = COHERE.usage_reader(ask(), status=200, content_type="application/json")
    reader.feed(orjson.dumps(answer))
    reader.finish()
    assert (reader.usage, reader.complete, reader.output_text) == (usage, True, text)


def test_with_output_cap_lowers_max_tokens() -> None:
    assert orjson.loads(COHERE.with_output_cap(ask(max_tokens=9), 5))["max_tokens"] == 5
    assert orjson.loads(COHERE.with_output_cap(ask(), 5))["max_tokens"] == 5
    assert COHERE.with_usage_requested(ask()) is None


def test_render_error_is_cohere_s_shape() -> None:
    status, headers, body = COHERE.render_error(BudgetRefused("spent", retry_after_s=1.5))
    assert (status, headers["Retry-After"]) == (429, "2")
    assert orjson.loads(body)["message"] == "spent"


def test_render_count_is_refused() -> None:
    with pytest.raises(NotFound):
        COHERE.render_count(ask(), TokenCount(1, Accuracy.EXACT, 1, "e"))
