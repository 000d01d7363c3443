"""What the SDK tests do not see of the echo upstream."""

from __future__ import annotations

import json

import pytest

from tests.conftest import RunningGateway, StartGateway

GENERATE = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"
CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "Hello there"}]}]}


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    return await start_gateway()


async def test_a_gemini_stream_without_sse_is_one_json_array(gateway: RunningGateway) -> None:
    response, chunks = await gateway.post(GENERATE, CONTENTS)
    assert response.content_type == "application/json"
    assert "".join(part["text"] for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]) == (
        "Hello there"
    )
    total = chunks[-1]["usageMetadata"]["totalTokenCount"]
    assert (await gateway.budget())["used"] == total


async def test_a_gemini_stream_with_sse_is_events(gateway: RunningGateway) -> None:
    response, body = await gateway.post(GENERATE + "?alt=sse", CONTENTS)
    assert response.content_type == "text/event-stream"
    assert [json.loads(line[6:])["responseId"] for line in body.split(b"\n\n") if line]


async def test_a_lone_surrogate_is_echoed(gateway: RunningGateway) -> None:
    for stream in (b"false", b"true"):
        body = b'{"model": "gpt-4o", "stream": %s, "messages": [{"role": "user", "content": "a\\ud800b"}]}' % stream
        response, answer = await gateway.post("/v1/chat/completions", body)
        assert response.status == 200
        assert b"\\ud800" in (answer if stream == b"true" else json.dumps(answer).encode())


async def test_an_empty_prompt_is_answered(gateway: RunningGateway) -> None:
    _, answer = await gateway.post(
        "/v1/chat/completions", {"model": "gpt-4o", "messages": [{"role": "user", "content": ""}]}
    )
    assert "echo" in answer["choices"][0]["message"]["content"]


async def test_json_mode_answers_with_an_object(gateway: RunningGateway) -> None:
    body = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "Hi"}],
        "response_format": {"type": "json_object"},
    }
    _, answer = await gateway.post("/v1/chat/completions", body)
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"echo": "Hi"}


async def test_a_cap_cuts_the_answer_at_so_many_tokens(gateway: RunningGateway) -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "one two three four"}], "max_tokens": 2}
    _, answer = await gateway.post("/v1/chat/completions", body)
    choice = answer["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("one two", "length")
    assert answer["usage"]["completion_tokens"] == 2


async def test_tools_are_left_alone_when_told_so(gateway: RunningGateway) -> None:
    body = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "Use the weather tool"}],
        "tools": [{"type": "function", "function": {"name": "get_weather"}}],
    }
    _, answer = await gateway.post("/v1/chat/completions", body)
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": "{}"}
    _, answer = await gateway.post("/v1/chat/completions", {**body, "tool_choice": "none"})
    assert answer["choices"][0]["message"]["content"] == "Use the weather tool"


async def test_an_unknown_path_is_a_404_of_the_upstream(gateway: RunningGateway) -> None:
    response, answer = await gateway.get("/v1/files")
    assert (response.status, answer["error"]["code"]) == (404, "not_found")
