"""Bedrock: Converse and the bodies of InvokeModel, and usage in JSON and in AWS's binary event stream."""

from __future__ import annotations

import base64
import itertools
import json
import struct
from contextlib import suppress
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, BudgetRefused
from gateway.formats.base import Call
from gateway.formats.bedrock import Bedrock
from tokenizers_offline.prompt import (
    Accuracy,
    ChatPrompt,
    MediaPart,
    TextPart,
    TextPrompt,
    ThinkingPart,
    TokenCount,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)

FORMAT = Bedrock()
MODEL = "/model/us.anthropic.claude-sonnet-4-5-20250929-v1:0"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": [{"text": "Name a river."}]}]}
CLAUDE = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 90,
    "messages": [{"role": "user", "content": "Name a river."}],
}


def parse(body: dict[str, Any], *, path: str = MODEL + "/converse") -> Call:
    for route in FORMAT.routes:
        found = route.pattern.search(path)
        if found is not None:
            groups = {name: value for name, value in found.groupdict().items() if value is not None}
            return FORMAT.parse(route, groups, json.dumps(body).encode())
    raise AssertionError(f"no route for {path}")


def test_parse_takes_an_arn_for_a_model() -> None:
    arn = "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-haiku-4-5-v1:0"
    call = parse(HELLO, path=f"/model/{arn}/converse-stream")
    assert (call.model, call.stream) == (arn, True)


def test_parse_reads_converse_blocks() -> None:
    prompt = parse(
        {
            "system": [{"text": "Be brief."}, {"cachePoint": {"type": "default"}}],
            "inferenceConfig": {"maxTokens": 70},
            "additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            "toolConfig": {
                "tools": [{"toolSpec": {"name": "look", "inputSchema": {"json": {"type": "object"}}}}],
                "toolChoice": {"any": {}},
            },
            "messages": [
                {
                    "role": "assistant",
                    "content": [
                        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}},
                        {"toolUse": {"toolUseId": "t1", "name": "look", "input": {"at": "it"}}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"toolResult": {"toolUseId": "t1", "content": [{"json": {"a": 1}}], "status": "error"}},
                        {"document": {"format": "pdf", "name": "d", "source": {"bytes": "aGk="}}},
                        {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://x"}}}},
                    ],
                },
            ],
        }
    ).prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[0].parts == (TextPart("Be brief."),)
    assert prompt.messages[1].parts == (ThinkingPart("hm", "s"), ToolCallPart("look", {"at": "it"}, call_id="t1"))
    result, document, image = prompt.messages[2].parts
    assert result == ToolResultPart((TextPart('{"a":1}'),), call_id="t1", is_error=True)
    assert document == MediaPart("document", "application/pdf", data="aGk=", name="d")
    assert image == MediaPart("image", "image/png", file_id="s3://x")
    assert (prompt.tool_choice, prompt.unknowable) == (ToolChoice("required"), ("file",))
    assert prompt.thinking == {"type": "enabled", "budget_tokens": 2000}


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        ({"inputText": "a"}, TextPrompt(("a",), purpose="embedding")),
        ({"prompt": "a", "max_gen_len": 5}, TextPrompt(("a",), purpose="completion")),
        ({"texts": ["a", "b"]}, TextPrompt(("a", "b"), purpose="embedding")),
        ({"unheard": "of"}, TextPrompt(('{"unheard":"of"}',), unknowable=("request_shape",))),
    ],
)
def test_parse_reads_what_each_family_speaks(body: dict[str, Any], prompt: TextPrompt) -> None:
    assert parse(body, path="/model/x/invoke").prompt == prompt


def test_parse_reads_claude_through_invoke() -> None:
    call = parse(CLAUDE, path=MODEL + "/invoke-with-response-stream")
    assert (call.output_cap, call.stream) == (90, True)
    assert isinstance(call.prompt, ChatPrompt)
    assert call.prompt.messages[0].text == "Name a river."


@pytest.mark.parametrize(
    "asked",
    [{"converse": HELLO}, {"invokeModel": {"body": base64.b64encode(json.dumps(CLAUDE).encode()).decode()}}],
)
def test_parse_reads_both_kinds_of_count_request(asked: dict[str, Any]) -> None:
    call = parse({"input": asked}, path=MODEL + "/count-tokens")
    assert call.kind == "count"
    assert isinstance(call.prompt, ChatPrompt)
    assert call.prompt.messages[0].text == "Name a river."


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/converse", {"messages": "x"}, "messages"),
        ("/converse", {"messages": [{"content": []}]}, "messages[0].role"),
        (
            "/converse",
            {"messages": [{"role": "user", "content": [{"toolUse": {}}]}]},
            "messages[0].content[0].toolUse.name",
        ),
        ("/invoke", CLAUDE | {"max_tokens": "x"}, "max_tokens"),
        ("/count-tokens", {"input": {"invokeModel": {"body": "?"}}}, "input.invokeModel.body"),
    ],
)
def test_parse_names_the_wrong_field(path: str, body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(body, path=MODEL + path)
    assert caught.value.param == param


NAMES = st.sampled_from(
    ("role", "content", "text", "json", "toolUse", "toolResult", "image", "source", "function", "x")
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ("messages", "system", "toolConfig", "tools", "prompt", "texts", "schemaVersion", "outputConfig")
)


@given(st.dictionaries(FIELDS, JSON), st.sampled_from(("/converse", "/invoke", "/count-tokens")))
def test_hostile_bodies_only_raise_bad_request(body: dict[str, Any], path: str) -> None:
    with suppress(BadRequest):
        parse(body, path=MODEL + path)


def frame(payload: dict[str, Any]) -> bytes:
    body = json.dumps(payload).encode()
    headers = b"\x0b:event-type\x07\x00\x05chunk"
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    head = prelude + struct.pack(">I", crc32(prelude)) + headers + body
    return head + struct.pack(">I", crc32(head))


CONVERSED = b"".join(
    frame(payload)
    for payload in (
        {"role": "assistant"},
        {"delta": {"text": "Rh\u00f4ne"}, "contentBlockIndex": 0},
        {"start": {"toolUse": {"name": "look"}}},
        {"delta": {"toolUse": {"input": "{}"}}},
        {"stopReason": "end_turn"},
        {
            "usage": {"inputTokens": 8, "outputTokens": 5, "cacheReadInputTokens": 30, "cacheWriteInputTokens": 2},
            "metrics": {"latencyMs": 1},
        },
    )
)
INVOKED = b"".join(
    frame({"bytes": base64.b64encode(json.dumps(event).encode()).decode()})
    for event in (
        {"type": "message_start", "message": {"usage": {"input_tokens": 40, "output_tokens": 1}}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Rh\u00f4ne"}},
        {"type": "message_delta", "usage": {"output_tokens": 5}},
        {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 40, "outputTokenCount": 5}},
    )
)


def read(answer: bytes, *, path: str, body: dict[str, Any], cuts: list[int] | None = None) -> Any:
    reader = FORMAT.usage_reader(parse(body, path=MODEL + path), status=200, content_type="")
    edges = [0, *sorted(cut % (len(answer) + 1) for cut in cuts or ()), len(answer)]
    relayed = b"".join(reader.feed(answer[a:b]) for a, b in itertools.pairwise(edges)) + reader.finish()
    assert relayed == answer
    return reader


@pytest.mark.parametrize(
    ("answer", "path", "body", "text"),
    [
        (CONVERSED, "/converse-stream", HELLO, "Rh\u00f4nelook{}"),
        (INVOKED, "/invoke-with-response-stream", CLAUDE, "Rh\u00f4ne"),
    ],
)
@given(cuts=st.lists(st.integers(0, 5000), max_size=8))
def test_splitting_the_stream_anywhere_changes_nothing(
    answer: bytes, path: str, body: dict[str, Any], text: str, cuts: list[int]
) -> None:
    reader = read(answer, path=path, body=body, cuts=cuts)
    assert (reader.usage.input_tokens, reader.usage.output_tokens, reader.complete) == (40, 5, True)
    assert reader.output_text == text


@pytest.mark.parametrize(
    ("answer", "used"),
    [
        ({"usage": {"inputTokens": 8, "outputTokens": 5, "cacheReadInputTokens": 30}}, (38, 5)),
        ({"inputTextTokenCount": 4, "embedding": [0.1]}, (4, 0)),
        ({"inputTextTokenCount": 4, "results": [{"tokenCount": 6, "outputText": "x"}]}, (4, 6)),
        ({"prompt_token_count": 3, "generation_token_count": 2, "generation": "x"}, (3, 2)),
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 2}}, (3, 2)),
    ],
)
def test_usage_is_read_in_each_familys_words(answer: dict[str, Any], used: tuple[int, int]) -> None:
    usage = read(json.dumps(answer).encode(), path="/invoke", body={"prompt": "x"}).usage
    assert (usage.input_tokens, usage.output_tokens) == used


@given(st.binary(max_size=200))
def test_garbage_answers_are_relayed_and_not_read(garbage: bytes) -> None:
    for path in ("/converse", "/converse-stream"):
        assert read(garbage, path=path, body=HELLO).usage is None


def test_refusal_is_named_as_aws_names_it() -> None:
    status, headers, body = FORMAT.render_error(BudgetRefused("Spent.", retry_after_s=1))
    assert (status, headers["x-amzn-ErrorType"], headers["Retry-After"]) == (429, "ThrottlingException", "1")
    assert json.loads(body) == {"message": "Spent."}


def test_render_count_is_the_apis_own_shape() -> None:
    call = parse({"input": {"converse": HELLO}}, path=MODEL + "/count-tokens")
    assert json.loads(FORMAT.render_count(call, TokenCount(9, Accuracy.ESTIMATE, 9, "x"))) == {"inputTokens": 9}


@pytest.mark.parametrize(
    ("path", "body", "changed"),
    [
        ("/converse", HELLO, {"inferenceConfig": {"maxTokens": 50}}),
        ("/converse", HELLO | {"inferenceConfig": {"maxTokens": 20}}, {"inferenceConfig": {"maxTokens": 20}}),
        ("/invoke", CLAUDE, {"max_tokens": 50}),
        ("/invoke", {"inputText": "x"}, {"textGenerationConfig": {"maxTokenCount": 50}}),
        ("/invoke", {"prompt": "x", "max_tokens": 80}, {"max_tokens": 50}),
        ("/invoke", {"messages": [{"role": "user", "content": "x"}]}, {"max_tokens": 50}),
    ],
)
def test_output_cap_goes_where_the_family_keeps_it(path: str, body: dict[str, Any], changed: dict[str, Any]) -> None:
    assert json.loads(FORMAT.with_output_cap(parse(body, path=MODEL + path), 50)) == body | changed


def test_llama_gets_its_own_cap_field() -> None:
    call = parse({"prompt": "x"}, path="/model/meta.llama3-8b-instruct-v1:0/invoke")
    assert json.loads(FORMAT.with_output_cap(call, 50)) == {"prompt": "x", "max_gen_len": 50}
