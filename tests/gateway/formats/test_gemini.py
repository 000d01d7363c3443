"""Gemini's API: what is read from a body, from both kinds of stream, and how refusals look to google-genai."""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import web
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, BudgetRefused, GatewayError, ModelNotFound, NotFound, Unauthorized, Unavailable
from gateway.formats.base import Call
from gateway.formats.gemini import Gemini
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
    ToolChoice,
    ToolResultPart,
)

# google-genai subclasses aiohttp's session, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

FORMAT = Gemini()
GENERATE = "/v1beta/models/gemini-2.5-flash:generateContent"
STREAM = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"
HELLO: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "Name a river."}]}]}


def parse(body: dict[str, Any], *, path: str = GENERATE) -> Call:
    for route in FORMAT.routes:
        found = route.pattern.search(path)
        if found is not None:
            groups = {name: value for name, value in found.groupdict().items() if value is not None}
            return FORMAT.parse(route, groups, json.dumps(body).encode())
    raise AssertionError(f"no route for {path}")


def prompt_of(body: dict[str, Any], *, path: str = GENERATE) -> ChatPrompt:
    prompt = parse(body, path=path).prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


@pytest.mark.parametrize(
    ("path", "model", "vertex"),
    [
        (GENERATE, "gemini-2.5-flash", None),
        ("/v1/models/gemini-3-pro:generateContent", "gemini-3-pro", None),
        ("/google/v1beta/tunedModels/mine-1:generateContent", "mine-1", None),
        (
            "/v1/projects/p/locations/europe-west4/publishers/google/models/gemini-2.0-flash:generateContent",
            "gemini-2.0-flash",
            True,
        ),
    ],
)
def test_parse_takes_model_and_place_from_the_path(path: str, model: str, vertex: bool | None) -> None:
    call = parse(HELLO, path=path)
    assert call.model == model
    assert isinstance(call.prompt, ChatPrompt)
    assert call.prompt.options.get("vertex") is vertex


@pytest.mark.parametrize("snake", [False, True])
def test_parse_reads_cap_and_candidates_in_both_spellings(snake: bool) -> None:
    config = (
        {"generation_config": {"max_output_tokens": 70, "candidate_count": 3}}
        if snake
        else {"generationConfig": {"maxOutputTokens": 70, "candidateCount": 3}}
    )
    call = parse(HELLO | config, path=STREAM)
    assert (call.output_cap, call.choices, call.stream) == (70, 3, True)


def test_parse_reads_system_text_calls_results_and_thoughts() -> None:
    prompt = prompt_of(
        {
            "systemInstruction": {"role": "user", "parts": {"text": "Be brief."}},
            "contents": [
                {"parts": [{"text": "Look."}]},
                {
                    "role": "model",
                    "parts": [
                        {"text": "hm", "thought": True},
                        {"functionCall": {"name": "look", "args": {"at": "it"}}, "thoughtSignature": "c2ln"},
                    ],
                },
                {"role": "user", "parts": [{"function_response": {"name": "look", "response": {"seen": "yes"}}}]},
            ],
        }
    )
    system, asked, called, answered = prompt.messages
    assert (system.role, system.text, dict(system.extra)) == ("system", "Be brief.", {"role": "user"})
    assert asked.role == "user"
    assert called.parts == (ThinkingPart("hm"), ToolCallPart("look", {"at": "it"}), ThinkingPart(opaque="c2ln"))
    assert answered.parts == (ToolResultPart((), name="look", response={"seen": "yes"}),)


def test_parse_reads_tools_and_choice() -> None:
    prompt = prompt_of(
        HELLO
        | {
            "tools": [
                {
                    "functionDeclarations": [
                        {"name": "a", "description": "A.", "parameters": {"type": "OBJECT"}},
                        {"name": "b", "parametersJsonSchema": {"type": "object", "title": "B"}},
                    ]
                },
                {"googleSearch": {}},
            ],
            "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["a"]}},
        }
    )
    assert [(tool.name, tool.description, tool.parameters) for tool in prompt.tools] == [
        ("a", "A.", {"type": "OBJECT"}),
        ("b", None, {"type": "object", "title": "B"}),
    ]
    assert prompt.server_tools == ("googleSearch",)
    assert prompt.tool_choice == ToolChoice("named", "a")


def test_parse_reads_media_and_labels_files() -> None:
    prompt = prompt_of(
        {
            "cachedContent": "cachedContents/1",
            "contents": [
                {
                    "parts": [
                        {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
                        {"inline_data": {"mime_type": "application/pdf", "data": "aGk="}},
                        {"fileData": {"mimeType": "audio/mpeg", "fileUri": "gs://x/y"}},
                        {"executableCode": {"code": "1"}},
                    ]
                }
            ],
        }
    )
    kinds = [part.kind for part in prompt.messages[0].parts if isinstance(part, MediaPart)]
    assert kinds == ["image", "document", "audio"]
    assert set(prompt.unknowable) == {"cached_content", "file", "code_execution"}


@pytest.mark.parametrize(
    ("config", "schema"),
    [
        ({"responseJsonSchema": {"type": "object"}}, OutputSchema({"type": "object"})),
        ({"response_schema": {"type": "OBJECT"}}, OutputSchema({"type": "OBJECT"})),
        ({"responseMimeType": "application/json"}, OutputSchema(None)),
        ({"responseMimeType": "text/plain"}, None),
    ],
)
def test_parse_reads_response_schema(config: dict[str, Any], schema: OutputSchema | None) -> None:
    assert prompt_of(HELLO | {"generationConfig": config}).output_schema == schema


def test_parse_reads_count_requests_whole_or_wrapped() -> None:
    path = "/v1beta/models/gemini-2.5-flash:countTokens"
    wrapped = parse({"generateContentRequest": HELLO | {"model": "models/gemini-2.5-flash"}}, path=path)
    assert wrapped.kind == "count"
    assert wrapped.prompt == parse(HELLO, path=path).prompt


def test_parse_reads_embeddings() -> None:
    one = parse({"content": {"parts": [{"text": "a"}, {"text": "b"}]}}, path="/v1beta/models/e:embedContent")
    assert one.prompt == TextPrompt(("ab",), purpose="embedding")
    many = {"requests": [{"model": "models/e", "content": {"parts": [{"text": text}]}} for text in ("a", "b")]}
    call = parse(many, path="/v1beta/models/e:batchEmbedContents")
    assert isinstance(call.prompt, TextPrompt)
    assert (call.prompt.items, call.choices, call.output_cap, call.kind) == (("a", "b"), 2, 0, "embed")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"contents": None}, "contents"),
        ({"contents": "hi"}, "contents"),
        ({"contents": [5]}, "contents[0]"),
        ({"contents": [{"parts": [{"text": 5}]}]}, "contents[0].parts[0].text"),
        ({"contents": [{"parts": [{"functionCall": {}}]}]}, "contents[0].parts[0].functionCall.name"),
        ({"tools": [{"functionDeclarations": [{}]}]}, "tools[0].functionDeclarations[0].name"),
        ({"generationConfig": {"maxOutputTokens": "x"}}, "generationConfig.maxOutputTokens"),
        ({"generationConfig": {"responseSchema": []}}, "generationConfig.responseSchema"),
        (
            {"toolConfig": {"functionCallingConfig": {"mode": "MAYBE"}}},
            "toolConfig.functionCallingConfig.mode",
        ),
    ],
)
def test_parse_names_the_wrong_field(change: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(HELLO | change)
    assert caught.value.param == param


NAMES = st.sampled_from(("parts", "text", "role", "functionCall", "inline_data", "functionResponse", "name", "x"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(("contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "cachedContent"))


@given(st.dictionaries(FIELDS, JSON))
def test_hostile_bodies_only_raise_bad_request(body: dict[str, Any]) -> None:
    with suppress(BadRequest):
        parse(HELLO | body)


CHUNKS: list[dict[str, Any]] = [
    {"candidates": [{"content": {"parts": [{"text": 'Rh\u00f4ne "{['}]}}], "usageMetadata": {"promptTokenCount": 9}},
    {"candidates": [{"content": {"parts": [{"functionCall": {"name": "look", "args": {"a": "\\"}}}]}}]},
    {
        "candidates": [{"content": {"parts": [{"text": "!"}]}, "finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": 9,
            "toolUsePromptTokenCount": 4,
            "candidatesTokenCount": 6,
            "thoughtsTokenCount": 5,
            "cachedContentTokenCount": 2,
            "totalTokenCount": 24,
        },
    },
]
AS_EVENTS = b"".join(b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in CHUNKS)
AS_ARRAY = b"[" + b"\n,\r\n".join(json.dumps(chunk, indent=2).encode() for chunk in CHUNKS) + b"\n]\n"
TEXT = 'Rh\u00f4ne "{[look{"a":"\\\\"}!'


def read(answer: bytes, *, content_type: str, cuts: list[int] | None = None, stream: bool = True) -> Any:
    call = parse(HELLO, path=STREAM if stream else GENERATE)
    reader = FORMAT.usage_reader(call, status=200, content_type=content_type)
    edges = [0, *sorted(cut % (len(answer) + 1) for cut in cuts or ()), len(answer)]
    relayed = b"".join(reader.feed(answer[a:b]) for a, b in itertools.pairwise(edges)) + reader.finish()
    assert relayed == answer
    return reader


@pytest.mark.parametrize(
    ("answer", "content_type"), [(AS_EVENTS, "text/event-stream"), (AS_ARRAY, "application/json; charset=UTF-8")]
)
@given(cuts=st.lists(st.integers(0, 5000), max_size=8))
def test_splitting_the_stream_anywhere_changes_nothing(answer: bytes, content_type: str, cuts: list[int]) -> None:
    reader = read(answer, content_type=content_type, cuts=cuts)
    usage = reader.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens) == (13, 11, 2, 5)
    assert reader.complete
    assert reader.output_text == TEXT


def test_cut_stream_is_not_complete() -> None:
    reader = read(AS_ARRAY[: AS_ARRAY.index(b"finishReason")], content_type="application/json")
    assert (reader.usage.input_tokens, reader.complete) == (9, False)
    assert reader.output_text == 'Rh\u00f4ne "{[look{"a":"\\\\"}'


def test_usage_of_a_whole_answer() -> None:
    reader = read(json.dumps(CHUNKS[2]).encode(), content_type="application/json", stream=False)
    assert (reader.usage.input_tokens, reader.usage.output_tokens, reader.complete) == (13, 11, True)


def test_output_is_never_less_than_the_total_tells() -> None:
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 40}
    reader = read(json.dumps({"usageMetadata": usage}).encode(), content_type="application/json", stream=False)
    assert reader.usage.output_tokens == 30


@given(st.binary(max_size=200))
def test_garbage_answers_are_relayed_and_not_read(garbage: bytes) -> None:
    for content_type in ("text/event-stream", "application/json"):
        assert read(garbage, content_type=content_type).usage is None


async def sdk_error(error: GatewayError, aiohttp_server: Any) -> genai_errors.APIError:
    """What the SDK raises when a server answers with the bytes we render."""
    status, headers, body = FORMAT.render_error(error)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers, body=body)

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    server = await aiohttp_server(app)
    options = genai_types.HttpOptions(base_url=str(server.make_url("")))
    client = await asyncio.to_thread(genai.Client, api_key="k", http_options=options)
    try:
        with pytest.raises(genai_errors.APIError) as caught:
            await client.aio.models.generate_content(model="gemini-2.5-flash", contents="x")
    finally:
        await client.aio.aclose()
    return caught.value


@pytest.mark.parametrize(
    ("error", "raised", "code", "status"),
    [
        (BudgetRefused("Spent.", retry_after_s=2.5), genai_errors.ClientError, 429, "RESOURCE_EXHAUSTED"),
        (BudgetRefused("Never fits.", status=413), genai_errors.ClientError, 413, "INVALID_ARGUMENT"),
        (BadRequest("Wrong.", param="contents"), genai_errors.ClientError, 400, "INVALID_ARGUMENT"),
        (Unauthorized("No key."), genai_errors.ClientError, 401, "UNAUTHENTICATED"),
        (ModelNotFound("No model."), genai_errors.ClientError, 404, "NOT_FOUND"),
        (Unavailable("Later."), genai_errors.ServerError, 503, "UNAVAILABLE"),
    ],
)
async def test_sdk_raises_its_own_error_for_ours(
    error: GatewayError, raised: type[Exception], code: int, status: str, aiohttp_server: Any
) -> None:
    caught = await sdk_error(error, aiohttp_server)
    assert isinstance(caught, raised)
    assert (caught.code, caught.status, caught.message) == (code, status, error.message)


def test_refusal_explains_quota_and_wait() -> None:
    error = BudgetRefused("Spent.", retry_after_s=2.5, details={"budget": "month", "scope": "key alice"})
    status, headers, body = FORMAT.render_error(error)
    details = {detail["@type"].rpartition(".")[2]: detail for detail in json.loads(body)["error"]["details"]}
    assert (status, headers["Retry-After"]) == (429, "3")
    assert details["QuotaFailure"]["violations"][0] == {
        "subject": "key alice",
        "description": "Spent.",
        "quotaId": "month",
    }
    assert details["RetryInfo"]["retryDelay"] == "2.5s"
    assert details["ErrorInfo"]["metadata"]["budget"] == "month"


def test_credential_reads_header_query_or_bearer() -> None:
    assert FORMAT.credential({"x-goog-api-key": "a"}, {"key": "b"}) == "a"
    assert FORMAT.credential({"Authorization": "Bearer c"}, {"key": "b"}) == "b"
    assert FORMAT.credential({"Authorization": "Bearer c"}, {}) == "c"
    assert FORMAT.credential({}, {}) is None


def test_render_count_tells_the_modality_of_plain_text_only() -> None:
    count = TokenCount(12, Accuracy.EXACT, 12, "gemma3")
    assert json.loads(FORMAT.render_count(parse(HELLO), count)) == {
        "totalTokens": 12,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 12}],
    }
    image = {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "aGk="}}]}]}
    assert json.loads(FORMAT.render_count(parse(image), count)) == {"totalTokens": 12}


def test_embeddings_have_no_count_of_their_own() -> None:
    call = parse({"content": {"parts": [{"text": "a"}]}}, path="/v1beta/models/e:embedContent")
    with pytest.raises(NotFound):
        FORMAT.render_count(call, TokenCount(1, Accuracy.EXACT, 1, "gemma3"))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {"generationConfig": {"maxOutputTokens": 50}}),
        (
            {"generationConfig": {"maxOutputTokens": 20, "topK": 1}},
            {"generationConfig": {"maxOutputTokens": 20, "topK": 1}},
        ),
        ({"generation_config": {"max_output_tokens": 90}}, {"generation_config": {"max_output_tokens": 50}}),
    ],
)
def test_output_cap_goes_where_the_caller_keeps_it(body: dict[str, Any], expected: dict[str, Any]) -> None:
    assert json.loads(FORMAT.with_output_cap(parse(HELLO | body), 50)) == HELLO | expected


def test_parts_of_every_shape_become_text_or_a_label() -> None:
    prompt = prompt_of({"contents": {"role": "user", "parts": {"text": "one"}}})
    assert prompt.messages[0].parts == (TextPart("one"),)
    assert prompt_of({"contents": [{"parts": [{"somethingNew": {}}]}]}).unknowable == ("somethingNew",)
