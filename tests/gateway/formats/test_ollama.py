import itertools
import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, BudgetRefused, NotFound
from gateway.formats.base import Call
from gateway.formats.ollama import Ollama
from policies.usage import Usage
from tokenizers_offline.prompt import (
    Accuracy,
    ChatPrompt,
    MediaPart,
    OutputSchema,
    TextPart,
    TextPrompt,
    ThinkingPart,
    TokenCount,
    ToolCallPart,
    ToolResultPart,
)

OLLAMA = Ollama()
LINES = (
    b'{"model":"m","message":{"role":"assistant","content":"Hel"},"done":false}\n'
    b'{"model":"m","message":{"role":"assistant","content":"lo","thinking":"hm"},"done":false}\n'
    b'{"model":"m","message":{"role":"assistant","content":"","tool_calls":'
    b'[{"function":{"name":"f","arguments":{"a":1}}}]},"done":false}\n'
    b'{"model":"m","done":true,"prompt_eval_count":26,"eval_count":7}\n'
)


def parse(path: str = "/api/chat", **body: object) -> Call:
    for route in OLLAMA.routes:
        found = route.pattern.search(path)
        if found is not None:
            groups = {name: value for name, value in found.groupdict().items() if value is not None}
            return OLLAMA.parse(route, groups, orjson.dumps({"model": "llama3", **body}))
    raise AssertionError(path)


def chat_of(call: Call) -> ChatPrompt:
    assert isinstance(call.prompt, ChatPrompt)
    return call.prompt


def test_parse_reads_a_conversation() -> None:
    call = parse(
        messages=[
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "see", "images": ["aGk="]},
            {"role": "assistant", "thinking": "hm", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
            {"role": "tool", "content": "ok", "tool_name": "f"},
        ],
        tools=[{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}],
        options={"num_predict": 9},
        think=False,
    )
    assert [message.parts for message in chat_of(call).messages] == [
        (TextPart("be brief"),),
        (TextPart("see"), MediaPart("image", data="aGk=")),
        (ThinkingPart("hm"), ToolCallPart("f", {"a": 1})),
        (ToolResultPart((TextPart("ok"),), name="f"),),
    ]
    assert (call.output_cap, call.stream, chat_of(call).tools[0].name) == (9, True, "f")
    assert chat_of(call).options == {"enable_thinking": False}


def test_parse_reads_a_prompt_as_one_turn() -> None:
    call = parse(
        "/api/generate", prompt="hi", system="be brief", stream=False, format="json", options={"num_predict": -1}
    )
    assert [(m.role, m.text) for m in chat_of(call).messages] == [("system", "be brief"), ("user", "hi")]
    assert (call.output_cap, call.stream) == (None, False)
    assert chat_of(call).output_schema == OutputSchema(schema=None)


def test_parse_leaves_a_raw_prompt_alone() -> None:
    assert parse("/api/generate", prompt="hi", raw=True).prompt == TextPrompt(("hi",), purpose="completion")


def test_parse_labels_a_stored_context() -> None:
    assert chat_of(parse("/api/generate", prompt="hi", context=[1, 2])).unknowable == ("context",)
    assert chat_of(parse("/api/generate", prompt="hi", context=[])).unknowable == ()


@pytest.mark.parametrize(
    ("path", "body", "items"),
    [
        ("/api/embed", {"input": "a"}, ("a",)),
        ("/api/embed", {"input": ["a", "b"]}, ("a", "b")),
        ("/api/embeddings", {"prompt": "a"}, ("a",)),
    ],
)
def test_parse_reads_texts_to_embed(path: str, body: dict[str, object], items: tuple[str, ...]) -> None:
    call = parse(path, **body)
    assert call.prompt == TextPrompt(items, purpose="embedding")
    assert (call.kind, call.stream) == ("embed", False)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "images": [5]}]}, "messages[0].images"),
        ({"messages": [], "options": {"num_predict": "x"}}, "options.num_predict"),
        ({"messages": [], "tools": [{}]}, "tools[0].function"),
        ({"model": 5}, "model"),
    ],
)
def test_parse_names_the_field_when_a_body_is_wrong(body: dict[str, object], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(**body)
    assert caught.value.param == param


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    ["model", "messages", "role", "content", "tools", "function", "options", "images", "format"]
                ),
                inner,
            )
        ),
    )
)
def test_parse_only_ever_refuses_hostile_bodies(value: object) -> None:
    for route in OLLAMA.routes:
        for body in (value, {"model": "m", "messages": value}, {"model": "m", "messages": [value], "tools": value}):
            try:
                OLLAMA.parse(route, {}, json.dumps(body).encode())
            except BadRequest:
                continue


@given(st.lists(st.integers(0, len(LINES)), max_size=6))
def test_reader_hears_the_same_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(LINES)]
    reader = OLLAMA.usage_reader(parse(messages=[]), status=200, content_type="application/x-ndjson")
    relayed = b"".join(reader.feed(LINES[a:b]) for a, b in itertools.pairwise(edges)) + reader.finish()
    assert relayed == LINES
    assert (reader.usage, reader.complete) == (Usage(26, 7), True)
    assert reader.output_text == 'Hellohmf{"a":1}'


def test_reader_reads_a_whole_answer() -> None:
    call = parse("/api/generate", prompt="hi", stream=False)
    reader = OLLAMA.usage_reader(call, status=200, content_type="application/json; charset=utf-8")
    reader.feed(b'{"response":"Hello","done":true,"prompt_eval_count":3,"eval_count":2}')
    reader.finish()
    assert (reader.usage, reader.complete, reader.output_text) == (Usage(3, 2), True, "Hello")


def test_reader_knows_a_cut_stream() -> None:
    reader = OLLAMA.usage_reader(parse(messages=[]), status=200, content_type="application/x-ndjson")
    reader.feed(LINES[:100])
    reader.finish()
    assert (reader.usage, reader.complete, reader.output_text) == (None, False, "Hel")


def test_reader_reads_nothing_from_an_error() -> None:
    reader = OLLAMA.usage_reader(parse(messages=[]), status=500, content_type="application/json")
    assert reader.feed(b'{"error":"no","eval_count":5}') == b'{"error":"no","eval_count":5}'
    assert (reader.finish(), reader.usage) == (b"", None)


def test_with_output_cap_lowers_num_predict() -> None:
    assert orjson.loads(OLLAMA.with_output_cap(parse(messages=[]), 5))["options"] == {"num_predict": 5}
    capped = OLLAMA.with_output_cap(parse(messages=[], options={"num_predict": 3, "seed": 1}), 5)
    assert orjson.loads(capped)["options"] == {"num_predict": 3, "seed": 1}
    assert OLLAMA.with_usage_requested(parse(messages=[])) is None


def test_render_error_is_ollama_s_shape() -> None:
    status, headers, body = OLLAMA.render_error(BudgetRefused("spent", retry_after_s=1.5, should_retry=True))
    assert (status, headers["Retry-After"]) == (429, "2")
    assert orjson.loads(body)["error"] == "spent"


def test_render_count_is_refused() -> None:
    with pytest.raises(NotFound):
        OLLAMA.render_count(parse(messages=[]), TokenCount(1, Accuracy.EXACT, 1, "e"))
