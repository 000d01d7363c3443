"""Streams that outgrow their hold when the budget has nothing left, ended in each API's own way."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from tests.conftest import KEY, StartGateway, config_for
from tests.fakes import Connection, FakeUpstream, Received, Script, chat_events, end, stream

# google-genai subclasses aiohttp's session, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

WORDS = [f" word{chr(97 + number % 26)}" for number in range(60)]
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "stream": True}


def cutting(upstream: FakeUpstream, *, limit: int, hold: int = 10, **more: Any) -> dict[str, Any]:
    budget = {"name": "main", "limits": [{"tokens": limit, "per": "day"}], "output_hold": hold, "on_exhausted": "cut"}
    return config_for(upstreams=[{"name": "up", "url": upstream.url}], budgets=[{**budget, **more}])


def endless(*chunks: bytes, content_type: str = "text/event-stream") -> tuple[Script, asyncio.Event]:
    """A stream that is never over, and an event that is set when whoever reads it hangs up."""
    left = asyncio.Event()

    async def script(connection: Connection, received: Received) -> None:
        try:
            await stream(*chunks, content_type=content_type, then=end("hang"))(connection, received)
        finally:
            left.set()

    return script, left


def events(data: bytes) -> list[Any]:
    found = [line.removeprefix(b"data: ") for line in data.splitlines() if line.startswith(b"data: ")]
    return [event if event == b"[DONE]" else json.loads(event) for event in found]


def said(data: bytes) -> str:
    deltas = [event["choices"][0]["delta"] for event in events(data) if event != b"[DONE]" and event["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


async def test_an_answer_is_ended_at_the_budgets_last_token_and_the_upstream_closed(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    gateway = await start_gateway(cutting(upstream, limit=48))
    script, left = endless(*chat_events(*WORDS)[:-2])
    upstream.enqueue(script)
    response, data = await gateway.post("/v1/chat/completions", CHAT)
    assert response.status == 200
    *_, last, done = events(data)
    assert done == b"[DONE]"
    assert (last["choices"][0]["finish_reason"], last["id"], last["object"]) == (
        "length",
        "c1",
        "chat.completion.chunk",
    )
    assert "".join(WORDS).startswith(said(data))
    await asyncio.wait_for(left.wait(), 2)
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (48, 0)
    counted = int(response.headers["x-tollgate-input-tokens"])
    _, whole = await gateway.post("/calculate", {"model": "gpt-4o", "text": said(data)})
    assert counted + whole["token_count"] == 48


async def test_more_is_held_in_steps_while_there_is_more(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    gateway = await start_gateway(cutting(upstream, limit=100_000))
    held: list[int] = []

    async def look(number: int) -> None:
        if number in (0, 40):
            held.append((await gateway.budget())["held"])

    upstream.enqueue(stream(*chat_events(*WORDS), between=look))
    _, data = await gateway.post("/v1/chat/completions", CHAT)
    assert said(data) == "".join(WORDS)
    assert events(data)[-2]["choices"][0]["finish_reason"] == "stop"
    assert held[1] == held[0] + 256
    budget = await gateway.budget()
    assert (budget["held"], budget["used"] > len(WORDS)) == (0, True)
    assert await gateway.runtime.engine.store.holds() == []


async def test_an_answer_finishes_and_leaves_a_debt_unless_its_budget_cuts(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    config = cutting(upstream, limit=48)
    del config["budgets"][0]["on_exhausted"]
    gateway = await start_gateway(config)
    upstream.enqueue(stream(*chat_events(*WORDS)))
    _, data = await gateway.post("/v1/chat/completions", CHAT)
    assert said(data) == "".join(WORDS)
    assert (await gateway.budget())["used"] > 48


async def test_the_server_decides_for_budgets_that_do_not(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    config = cutting(upstream, limit=48)
    del config["budgets"][0]["on_exhausted"]
    config["server"]["on_exhausted"] = "cut"
    gateway = await start_gateway(config)
    upstream.enqueue(stream(*chat_events(*WORDS)))
    _, data = await gateway.post("/v1/chat/completions", CHAT)
    assert events(data)[-2]["choices"][0]["finish_reason"] == "length"


async def test_a_shadow_budget_cuts_nothing(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    gateway = await start_gateway(cutting(upstream, limit=48, mode="shadow"))
    upstream.enqueue(stream(*chat_events(*WORDS)))
    _, data = await gateway.post("/v1/chat/completions", CHAT)
    assert said(data) == "".join(WORDS)


async def test_events_cut_anywhere_are_relayed_whole(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    gateway = await start_gateway(cutting(upstream, limit=48))
    whole = b"".join(chat_events(*WORDS))
    upstream.enqueue(stream(*(whole[start : start + 7] for start in range(0, len(whole), 7))))
    _, data = await gateway.post("/v1/chat/completions", CHAT)
    assert events(data)[-2]["choices"][0]["finish_reason"] == "length"
    assert (await gateway.budget())["used"] == 48


async def test_all_at_once_is_cut_where_it_no_longer_fits(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    gateway = await start_gateway(cutting(upstream, limit=48))
    upstream.enqueue(stream(b"".join(chat_events(*WORDS))))
    _, data = await gateway.post("/v1/chat/completions", CHAT)
    assert said(data)
    assert (await gateway.budget())["used"] == 48


async def test_usage_is_told_at_the_cut_to_a_caller_who_asked(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    gateway = await start_gateway(cutting(upstream, limit=48))
    upstream.enqueue(stream(*chat_events(*WORDS)))
    _, data = await gateway.post("/v1/chat/completions", {**CHAT, "stream_options": {"include_usage": True}})
    assert events(data)[-2]["usage"]["total_tokens"] == 48


async def test_output_only_limits_and_weights_are_kept_to(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    limits = {"limits": [{"output_tokens": 50, "per": "day"}], "weights": {"output": 2}}
    gateway = await start_gateway(cutting(upstream, limit=0, **limits))
    upstream.enqueue(stream(*chat_events(*WORDS)))
    _, data = await gateway.post("/v1/chat/completions", CHAT)
    assert events(data)[-2]["choices"][0]["finish_reason"] == "length"
    budget = await gateway.budget(unit="output_tokens")
    assert (budget["held"], 48 <= budget["used"] <= 50) == (0, True)


async def test_a_compressed_stream_is_left_alone(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    import gzip

    gateway = await start_gateway(cutting(upstream, limit=48))
    packed = gzip.compress(b"".join(chat_events(*WORDS)))
    upstream.enqueue(stream(packed, headers=[("Content-Encoding", "gzip")]))
    _, data = await gateway.post("/v1/chat/completions", CHAT)
    assert said(data) == "".join(WORDS)
    assert upstream.requests[0].header("Accept-Encoding") == "identity"
    assert (await gateway.budget())["used"] > 48


async def test_a_cut_is_written_down(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    gateway = await start_gateway(cutting(upstream, limit=48))
    upstream.enqueue(stream(*chat_events(*WORDS)))
    await gateway.post("/v1/chat/completions", CHAT)
    lines = [entry async for entry in gateway.runtime.engine.store.entries()]
    assert [(line.outcome, line.source, line.input_tokens + line.output_tokens) for line in lines] == [
        ("exhausted", "counted", 48)
    ]


async def test_a_hundred_streams_together_never_pass_the_limit(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    gateway = await start_gateway(cutting(upstream, limit=2000))
    upstream.default = stream(*chat_events(*WORDS))
    await asyncio.gather(*(gateway.post("/v1/chat/completions", CHAT) for _ in range(100)))
    budget = await gateway.budget()
    assert (budget["held"], budget["used"] <= 2000, budget["used"] > 1900) == (0, True, True)


# The official SDKs read a cut stream as one that came to its token limit.


async def client_of(kind: Any, url: str) -> Any:
    """A client of an SDK; making one reads certificates from disk."""
    return await asyncio.to_thread(kind, api_key=KEY, base_url=url, max_retries=0)


def sse(*documents: dict[str, Any], named: bool = True) -> list[bytes]:
    return [
        (f"event: {each['type']}\n".encode() if named else b"") + b"data: " + json.dumps(each).encode() + b"\n\n"
        for each in documents
    ]


async def test_the_openai_sdk_reads_a_cut_chat(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    gateway = await start_gateway(cutting(upstream, limit=48))
    upstream.enqueue(stream(*chat_events(*WORDS)))
    async with await client_of(openai.AsyncOpenAI, f"{gateway.url}/v1") as client:
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": "Hi"}], stream=True
            )
        ]
    assert chunks[-1].choices[0].finish_reason == "length"


async def test_the_openai_sdk_reads_a_cut_response(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    gateway = await start_gateway(cutting(upstream, limit=48))
    response = {
        "id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-4o", "status": "in_progress",
        "output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    }  # fmt: skip
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    begin = [
        {"type": "response.created", "sequence_number": 0, "response": response},
        {"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": item},
        {"type": "response.content_part.added", "sequence_number": 2, **at, "part": part},
    ]
    deltas = [
        {"type": "response.output_text.delta", "sequence_number": number, **at, "delta": word, "logprobs": []}
        for number, word in enumerate(WORDS, start=3)
    ]
    upstream.enqueue(stream(*sse(*begin, *deltas)))
    async with (
        await client_of(openai.AsyncOpenAI, f"{gateway.url}/v1") as client,
        client.responses.stream(model="gpt-4o", input="Hi") as answer,
    ):
        seen = [event async for event in answer]
    assert [event.type for event in seen][-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    final = seen[-1].response  # type: ignore[union-attr]
    assert (final.status, final.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert "".join(WORDS).startswith(final.output_text)
    assert (final.usage.total_tokens, len(final.output_text) > 20) == (48, True)
    assert (await gateway.budget())["used"] == 48


async def test_the_anthropic_sdk_reads_a_cut_message(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    gateway = await start_gateway(cutting(upstream, limit=70))
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-6", "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 1},
    }  # fmt: skip
    begin = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ]
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": w}} for w in WORDS * 3
    ]
    upstream.enqueue(stream(*sse(*begin, *deltas)))
    async with await client_of(anthropic.AsyncAnthropic, gateway.url) as client:
        answer = await client.messages.create(
            model="claude-sonnet-4-6",
            messages=[{"role": "user", "content": "Hi"}],
            max_tokens=1,
            extra_body={"max_tokens": None},  # with a cap the hold could not be outgrown
            stream=True,
        )
        seen = [event async for event in answer]
    assert [event.type for event in seen][-3:] == ["content_block_stop", "message_delta", "message_stop"]
    delta = seen[-2]
    assert delta.delta.stop_reason == "max_tokens"  # type: ignore[union-attr]
    budget = await gateway.budget()
    assert budget["used"] == 9 + delta.usage.output_tokens <= 70  # type: ignore[union-attr]


async def test_the_genai_sdk_reads_a_cut_stream(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    gateway = await start_gateway(cutting(upstream, limit=70))

    def piece(word: str) -> dict[str, Any]:
        return {"candidates": [{"content": {"parts": [{"text": word}], "role": "model"}, "index": 0}]}

    upstream.enqueue(stream(*sse(*map(piece, WORDS * 3), named=False)))
    options = types.HttpOptions(base_url=gateway.url)
    client = await asyncio.to_thread(genai.Client, api_key=KEY, http_options=options)
    answer = await client.aio.models.generate_content_stream(model="gpt-4o", contents="Hi")
    chunks = [chunk async for chunk in answer]
    await client.aio.aclose()
    await asyncio.to_thread(client.close)
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.MAX_TOKENS
    budget = await gateway.budget()
    assert (budget["held"], 60 < budget["used"] <= 70) == (0, True)


async def test_a_gemini_array_is_closed(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    gateway = await start_gateway(cutting(upstream, limit=70))
    pieces = [{"candidates": [{"content": {"parts": [{"text": word + '"}{'}]}, "index": 0}]} for word in WORDS * 3]
    whole = json.dumps(pieces, indent=1).encode()
    upstream.enqueue(
        stream(*(whole[start : start + 11] for start in range(0, len(whole), 11)), content_type="application/json")
    )
    body = {"contents": [{"parts": [{"text": "Hi"}]}]}
    response, data = await gateway.post("/v1beta/models/gpt-4o:streamGenerateContent", body)
    assert response.status == 200
    assert data[-1]["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert [element["candidates"][0]["content"]["parts"][0]["text"] for element in data[:-1]] == [
        word + '"}{' for word in (WORDS * 3)[: len(data) - 1]
    ]


@pytest.mark.parametrize(
    ("path", "piece", "content_type", "reason"),
    [
        (
            "/api/chat",
            lambda word: {"model": "gpt-4o", "message": {"role": "assistant", "content": word}, "done": False},
            "application/x-ndjson",
            lambda last: (last["done"], last["done_reason"], last["message"]["content"]),
        ),
        (
            "/api/generate",
            lambda word: {"model": "gpt-4o", "response": word, "done": False},
            "application/x-ndjson",
            lambda last: (last["done"], last["done_reason"], last["response"]),
        ),
    ],
)
async def test_ollamas_lines_end_with_done(
    start_gateway: StartGateway, upstream: FakeUpstream, path: str, piece: Any, content_type: str, reason: Any
) -> None:
    gateway = await start_gateway(cutting(upstream, limit=70))
    upstream.enqueue(
        stream(*(json.dumps(piece(word)).encode() + b"\n" for word in WORDS * 3), content_type=content_type)
    )
    body = {"model": "gpt-4o", "prompt": "Hi", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    if path == "/api/chat":
        del body["prompt"]
    _, data = await gateway.post(path, body)
    assert reason(json.loads(data.splitlines()[-1])) == (True, "length", "")
    assert (await gateway.budget())["used"] <= 70


async def test_coheres_events_end_with_message_end(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    gateway = await start_gateway(cutting(upstream, limit=70))
    start = {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}}
    deltas = [
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": word}}}} for word in WORDS * 3
    ]
    upstream.enqueue(stream(*sse(start, *deltas)))
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    _, data = await gateway.post("/v2/chat", body)
    assert [event["type"] for event in events(data)][-2:] == ["content-end", "message-end"]
    assert events(data)[-1]["delta"]["finish_reason"] == "MAX_TOKENS"
    assert (await gateway.budget())["used"] <= 70


async def test_a_completions_choices_are_all_ended(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    gateway = await start_gateway(cutting(upstream, limit=60))
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "gpt-4o"}
    pieces = [
        {**head, "choices": [{"index": number % 2, "text": word, "finish_reason": None}]}
        for number, word in enumerate(WORDS)
    ]
    upstream.enqueue(stream(*sse(*pieces, named=False)))
    body = {"model": "gpt-4o", "prompt": "Hi", "n": 2, "stream": True}
    _, data = await gateway.post("/v1/completions", body)
    ends = [event["choices"][0] for event in events(data)[-3:-1]]
    assert [(end["index"], end["finish_reason"], end["text"]) for end in ends] == [(0, "length", ""), (1, "length", "")]
    assert (await gateway.budget())["used"] <= 60
