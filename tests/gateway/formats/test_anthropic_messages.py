"""The Messages API: what is read from a body, from an answer, and how refusals look to the official SDK."""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import suppress
from typing import Any

import anthropic
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    BadRequest,
    BudgetRefused,
    Forbidden,
    GatewayError,
    PayloadTooLarge,
    Unauthorized,
    Unavailable,
)
from gateway.formats.anthropic_messages import AnthropicMessages
from gateway.formats.base import Call
from tokenizers_offline.prompt import (
    Accuracy,
    ChatPrompt,
    MediaPart,
    OpaquePart,
    TextPart,
    ThinkingPart,
    TokenCount,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)

FORMAT = AnthropicMessages()
BASE: dict[str, Any] = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 500,
    "messages": [{"role": "user", "content": "Name a river."}],
}


def parse(body: dict[str, Any], *, path: str = "/v1/messages") -> Call:
    for route in FORMAT.routes:
        found = route.pattern.search(path)
        if found is not None:
            groups = {name: value for name, value in found.groupdict().items() if value is not None}
            return FORMAT.parse(route, groups, json.dumps(body).encode())
    raise AssertionError(f"no route for {path}")


def prompt_of(**fields: Any) -> ChatPrompt:
    prompt = parse(BASE | fields).prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


def parts_of(*blocks: dict[str, Any]) -> tuple[Any, ...]:
    return prompt_of(messages=[{"role": "user", "content": list(blocks)}]).messages[0].parts


def test_parse_reads_model_cap_and_stream() -> None:
    call = parse(BASE | {"stream": True})
    assert (call.model, call.output_cap, call.choices, call.stream, call.kind) == (
        "claude-sonnet-4-5",
        500,
        1,
        True,
        "generate",
    )


@pytest.mark.parametrize("verb", ["rawPredict", "streamRawPredict"])
def test_parse_takes_model_from_vertex_path(verb: str) -> None:
    body = {name: value for name, value in BASE.items() if name != "model"} | {"anthropic_version": "vertex-2023-10-16"}
    call = parse(body, path=f"/v1/projects/p/locations/x/publishers/anthropic/models/claude-haiku-4-5@20251001:{verb}")
    assert call.model == "claude-haiku-4-5@20251001"
    assert call.stream is (verb == "streamRawPredict")


@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/publishers/anthropic/models/count-tokens:rawPredict"])
def test_parse_marks_count_requests(path: str) -> None:
    call = parse({"model": "claude-3-haiku", "messages": BASE["messages"]}, path=path)
    assert (call.kind, call.output_cap, call.stream) == ("count", 0, False)


def test_parse_reads_system_as_text_or_blocks() -> None:
    assert prompt_of(system="Be brief.").messages[0].text == "Be brief."
    blocks = [
        {"type": "text", "text": "Be ", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "kind."},
    ]
    first = prompt_of(system=blocks).messages[0]
    assert (first.role, first.text, first.as_list) == ("system", "Be kind.", True)


def test_parse_reads_tools_calls_and_results() -> None:
    prompt = prompt_of(
        tools=[{"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}],
        tool_choice={"type": "tool", "name": "look"},
        messages=[
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "it"}}]},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "seen", "is_error": True}],
            },
        ],
    )
    assert prompt.tools[0].name == "look"
    assert prompt.tool_choice == ToolChoice("named", "look")
    assert prompt.messages[1].parts == (ToolCallPart("look", {"at": "it"}, call_id="t1"),)
    assert prompt.messages[2].parts == (ToolResultPart((TextPart("seen"),), call_id="t1", is_error=True),)


def test_parse_reads_thinking_and_media() -> None:
    parts = parts_of(
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
        {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "body"}},
        {"type": "document", "source": {"type": "content", "content": "inner"}},
    )
    assert parts[:2] == (ThinkingPart("hm", "s"), ThinkingPart(opaque="x"))
    assert parts[2] == MediaPart("image", "image/png", data="aGk=")
    assert parts[3] == MediaPart("document", "text/plain", text="body", name="T")
    assert parts[-1] == TextPart("inner")


def test_parse_labels_what_cannot_be_known() -> None:
    prompt = prompt_of(
        tools=[{"type": "web_search_20250305", "name": "web_search"}],
        mcp_servers=[{"type": "url", "url": "https://x", "name": "x"}],
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                    {"type": "document", "source": {"type": "file", "file_id": "f1"}},
                    {"type": "container_upload", "file_id": "f2"},
                ],
            }
        ],
    )
    assert prompt.server_tools == ("web_search_20250305",)
    assert set(prompt.unknowable) == {"remote_image", "file", "container_upload", "mcp_servers"}
    assert isinstance(prompt.messages[0].parts[2], OpaquePart)


@pytest.mark.parametrize("spelling", ["output_format", "output_config"])
def test_parse_reads_output_schema_in_both_spellings(spelling: str) -> None:
    wanted = {"type": "json_schema", "schema": {"type": "object"}}
    prompt = prompt_of(**{spelling: wanted if spelling == "output_format" else {"format": wanted}})
    assert prompt.output_schema is not None
    assert prompt.output_schema.schema == {"type": "object"}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": 1, "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0].source"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tool_choice": {"type": "maybe"}}, "tool_choice.type"),
        ({"model": None}, "model"),
    ],
)
def test_parse_names_the_wrong_field(change: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(BASE | change)
    assert caught.value.param == param


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("type", "text", "content", "role", "source", "input", "x")), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "max_tokens")
        ),
        JSON,
    )
)
def test_hostile_bodies_only_raise_bad_request(body: dict[str, Any]) -> None:
    with suppress(BadRequest):
        parse({"model": "m", "messages": [{"role": "user", "content": "x"}]} | body)


STREAM = b"".join(
    b"event: %s\ndata: %s\n\n" % (event["type"].encode(), json.dumps(event).encode())
    for event in (
        {
            "type": "message_start",
            "message": {
                "usage": {
                    "input_tokens": 10,
                    "cache_creation_input_tokens": 3,
                    "cache_read_input_tokens": 20,
                    "output_tokens": 1,
                }
            },
        },
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Rh\u00f4ne"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "name": "look", "input": {}}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    )
)


def read(answer: bytes, *, cuts: list[int] | None = None, stream: bool = True, status: int = 200) -> Any:
    content_type = "text/event-stream" if stream else "application/json"
    reader = FORMAT.usage_reader(parse(BASE | {"stream": stream}), status=status, content_type=content_type)
    edges = [0, *sorted(cut % (len(answer) + 1) for cut in cuts or ()), len(answer)]
    relayed = b"".join(reader.feed(answer[a:b]) for a, b in itertools.pairwise(edges)) + reader.finish()
    assert relayed == answer
    return reader


@given(st.lists(st.integers(0, 5000), max_size=8))
def test_splitting_the_stream_anywhere_changes_nothing(cuts: list[int]) -> None:
    reader = read(STREAM, cuts=cuts)
    assert (reader.usage.input_tokens, reader.usage.output_tokens, reader.usage.cached_tokens) == (33, 7, 20)
    assert reader.complete
    assert reader.output_text == 'Rh\u00f4nelook{"a":1}'


def test_cut_stream_keeps_input_and_text_and_is_not_complete() -> None:
    reader = read(STREAM[: STREAM.index(b"event: message_delta")])
    assert reader.usage.input_tokens == 33
    assert reader.output_text == 'Rh\u00f4nelook{"a":1}'
    assert not reader.complete


def test_message_delta_may_correct_the_input() -> None:
    delta = {"type": "message_delta", "usage": {"input_tokens": 50, "output_tokens": 9}}
    reader = read(STREAM + b"event: message_delta\ndata: %s\n\n" % json.dumps(delta).encode())
    assert reader.usage.input_tokens == 73


def test_usage_of_a_whole_message_sums_the_cache() -> None:
    message = {
        "type": "message",
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "tool_use", "name": "f", "input": {"a": 1}}],
        "usage": {
            "input_tokens": 5,
            "cache_read_input_tokens": 6,
            "cache_creation_input_tokens": None,
            "output_tokens": 4,
            "output_tokens_details": {"thinking_tokens": 2},
        },
    }
    reader = read(json.dumps(message).encode(), stream=False)
    assert (reader.usage.input_tokens, reader.usage.output_tokens, reader.usage.reasoning_tokens) == (11, 4, 2)
    assert reader.complete
    assert reader.output_text == 'hmf{"a":1}'


def test_usage_of_a_compacted_turn_counts_every_pass() -> None:
    passes = [{"input_tokens": 900, "output_tokens": 50}, {"input_tokens": 60, "output_tokens": 8}]
    usage = {"input_tokens": 60, "output_tokens": 8, "iterations": passes}
    reader = read(json.dumps({"type": "message", "content": [], "usage": usage}).encode(), stream=False)
    assert (reader.usage.input_tokens, reader.usage.output_tokens) == (960, 58)


@given(st.binary(max_size=200))
def test_garbage_answers_are_relayed_and_not_read(garbage: bytes) -> None:
    for stream in (True, False):
        assert read(garbage, stream=stream).usage is None


async def sdk_error(error: GatewayError, aiohttp_server: Any) -> anthropic.APIStatusError:
    """What the SDK raises when a server answers with the bytes we render."""
    status, headers, body = FORMAT.render_error(error)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers, body=body)

    app = web.Application()
    app.router.add_post("/v1/messages", answer)
    server = await aiohttp_server(app)
    url = str(server.make_url(""))
    async with await asyncio.to_thread(anthropic.AsyncAnthropic, api_key="k", base_url=url, max_retries=0) as client:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await client.messages.create(
                model="claude-haiku-4-5", max_tokens=5, messages=[{"role": "user", "content": "x"}]
            )
    return caught.value


@pytest.mark.parametrize(
    ("error", "raised", "kind"),
    [
        (BudgetRefused("Budget 'a' is spent.", retry_after_s=2.5), anthropic.RateLimitError, "rate_limit_error"),
        (BadRequest("'x' is wrong."), anthropic.BadRequestError, "invalid_request_error"),
        (Unauthorized("No key."), anthropic.AuthenticationError, "authentication_error"),
        (Forbidden("Not this model."), anthropic.PermissionDeniedError, "permission_error"),
        (PayloadTooLarge("Too big."), anthropic.RequestTooLargeError, "request_too_large"),
        (Unavailable("Later."), anthropic.InternalServerError, "overloaded_error"),
    ],
)
async def test_sdk_raises_its_own_error_for_ours(
    error: GatewayError, raised: type[Exception], kind: str, aiohttp_server: Any
) -> None:
    caught = await sdk_error(error, aiohttp_server)
    assert isinstance(caught, raised)
    body = caught.body
    assert isinstance(body, dict)
    assert body["type"] == "error"
    assert body["error"]["type"] == kind
    assert body["error"]["message"] == error.message


async def test_refusal_carries_retry_headers_and_facts(aiohttp_server: Any) -> None:
    error = BudgetRefused("Spent.", retry_after_s=2.5, should_retry=False, details={"budget": "a", "remaining": 0})
    caught = await sdk_error(error, aiohttp_server)
    assert caught.response.headers["retry-after"] == "3"
    assert caught.response.headers["x-should-retry"] == "false"
    assert caught.body["error"]["details"] == {"budget": "a", "remaining": 0}


def test_credential_reads_either_header() -> None:
    assert FORMAT.credential({"x-api-key": "a", "Authorization": "Bearer b"}, {}) == "a"
    assert FORMAT.credential({"Authorization": "Bearer b"}, {}) == "b"
    assert FORMAT.credential({"Authorization": "Basic b"}, {}) is None


def test_render_count_is_the_apis_own_shape() -> None:
    count = TokenCount(12, Accuracy.ESTIMATE, 20, "o200k_base")
    assert json.loads(FORMAT.render_count(parse(BASE), count)) == {"input_tokens": 12}


@pytest.mark.parametrize(
    ("thinking", "cap", "expected"),
    [
        (None, 100, None),
        ({"type": "enabled", "budget_tokens": 300}, 400, {"type": "enabled", "budget_tokens": 300}),
        ({"type": "enabled", "budget_tokens": 4000}, 2000, {"type": "enabled", "budget_tokens": 1999}),
        ({"type": "enabled", "budget_tokens": 4000}, 1000, {"type": "disabled"}),
    ],
)
def test_output_cap_is_lowered_with_thinking_below_it(
    thinking: dict[str, Any] | None, cap: int, expected: dict[str, Any] | None
) -> None:
    body = BASE | {"max_tokens": 5000} | ({"thinking": thinking} if thinking else {})
    lowered = json.loads(FORMAT.with_output_cap(parse(body), cap))
    assert lowered["max_tokens"] == cap
    assert lowered.get("thinking") == expected


def test_output_cap_is_never_raised() -> None:
    assert json.loads(FORMAT.with_output_cap(parse(BASE), 9000))["max_tokens"] == 500


def test_usage_needs_no_asking() -> None:
    assert FORMAT.with_usage_requested(parse(BASE | {"stream": True})) is None
