"""The documented envoy.yaml and Lua filter in a real Envoy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.conftest import KEY, RunningGateway, StartGateway, config_for
from tests.fakes import FakeUpstream, chat, chat_events, end, plain, stream
from tests.plugins.envoy_server import ENVOY, NO_ENVOY, serving

pytestmark = pytest.mark.skipif(ENVOY is None, reason=NO_ENVOY)

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    return await start_gateway(config_for(budgets=[{"name": "main", "limits": [{"tokens": 100, "per": "day"}]}]))


@pytest.fixture
async def url(gateway: RunningGateway, upstream: FakeUpstream) -> AsyncIterator[str]:
    async with serving(tollgate_url=gateway.url, provider_url=upstream.url) as url:
        yield url + "/v1/chat/completions"


async def post(gateway: RunningGateway, url: str, body: Any = CHAT) -> tuple[aiohttp.ClientResponse, Any]:
    async with gateway.client.post(url, json=body, headers=AUTHORIZED) as response:
        return response, await response.json()


async def settled(gateway: RunningGateway) -> int:
    """What is used once nothing is held: Envoy tells the answer after its caller has it."""
    async with asyncio.timeout(10):
        while (budget := await gateway.budget())["held"]:
            await asyncio.sleep(0.02)
    return int(budget["used"])


async def test_envoy_forwards_what_was_held_and_settles_by_the_answer(
    gateway: RunningGateway, upstream: FakeUpstream, url: str
) -> None:
    response, body = await post(gateway, url)
    assert (response.status, body["usage"]["total_tokens"]) == (200, 12)
    assert response.headers["x-tollgate-input-tokens"] == "8"
    assert response.headers["x-ratelimit-remaining-tokens"] == "42"
    assert "x-tollgate-answer-to" not in response.headers
    (received,) = upstream.requests
    assert received.json == CHAT
    assert received.header("x-tollgate-answer-to") is None
    assert await settled(gateway) == 12


async def test_envoy_answers_a_refusal_itself(gateway: RunningGateway, upstream: FakeUpstream, url: str) -> None:
    upstream.enqueue(plain(chat(prompt_tokens=90, completion_tokens=10)))
    await post(gateway, url)
    assert await settled(gateway) == 100
    response, body = await post(gateway, url)
    assert (response.status, body["error"]["code"]) == (429, "insufficient_quota")
    assert response.headers["x-should-retry"] == "false"
    message = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": CHAT["messages"]}
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    messages = url.replace("/chat/completions", "/messages")
    async with gateway.client.post(messages, json=message, headers=headers) as response:
        assert (response.status, (await response.json())["error"]["type"]) == (429, "rate_limit_error")
    assert len(upstream.requests) == 1


async def test_envoy_releases_what_the_provider_declined(
    gateway: RunningGateway, upstream: FakeUpstream, url: str
) -> None:
    upstream.enqueue(plain({"error": {"message": "out of order"}}, status=503))
    response, _ = await post(gateway, url)
    assert response.status == 503
    upstream.enqueue(end("close"))
    async with gateway.client.post(url, json=CHAT, headers=AUTHORIZED) as response:
        assert response.status == 503
    assert await settled(gateway) == 0


async def test_envoy_streams_and_settles_by_the_last_event(
    gateway: RunningGateway, upstream: FakeUpstream, url: str
) -> None:
    read = asyncio.Event()

    async def wait_for_reader(number: int) -> None:
        if number == 1:
            await read.wait()

    usage = {"prompt_tokens": 9, "completion_tokens": 5}
    upstream.enqueue(stream(*chat_events("Hello", " you", usage=usage), between=wait_for_reader))
    async with gateway.client.post(url, json={**CHAT, "stream": True}, headers=AUTHORIZED) as response:
        assert b"Hello" in await response.content.readany()  # before the provider has sent the rest
        read.set()
        assert (await response.read()).endswith(b"data: [DONE]\n\n")
    assert await settled(gateway) == 14


@pytest.mark.parametrize("leaves", ["caller", "provider"])
async def test_envoy_leaves_the_hold_of_a_broken_stream_to_its_end(
    gateway: RunningGateway, upstream: FakeUpstream, url: str, clock: Any, leaves: str
) -> None:
    """Its filters are not told: the documentation says so, and nothing is free."""
    then = end("hang" if leaves == "caller" else "close")
    upstream.enqueue(stream(*chat_events("Hello", " you")[:2], then=then))
    with contextlib.suppress(aiohttp.ClientError):
        async with gateway.client.post(url, json={**CHAT, "stream": True}, headers=AUTHORIZED) as response:
            read = b""
            while b" you" not in read:
                read += await response.content.readany()
            if leaves == "caller":
                response.close()
            await response.read()
    async with asyncio.timeout(10):
        while not upstream.served:
            await asyncio.sleep(0.02)
    assert (await gateway.budget())["held"] == 58
    clock.advance(601)
    await gateway.runtime.engine.sweep(now=clock())
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (58, 0)


async def test_a_caller_cannot_tell_envoy_where_answers_go(
    gateway: RunningGateway, upstream: FakeUpstream, url: str
) -> None:
    _, other = await gateway.post("/v1/admissions", {"key": KEY, "request": {**CHAT, "max_tokens": 5}}, key=None)
    headers = {**AUTHORIZED, "x-tollgate-answer-to": other["answer_to"], "x-envoy-auth-partial-body": "false"}
    body = {**CHAT, "max_tokens": 20}
    async with gateway.client.post(url, json=body, headers=headers) as response:
        assert response.status == 200
    async with asyncio.timeout(10):
        while (budget := await gateway.budget())["held"] != 13:
            await asyncio.sleep(0.02)
    assert budget["used"] == 12


async def test_nothing_passes_envoy_while_tollgate_is_away(upstream: FakeUpstream, gateway: RunningGateway) -> None:
    async with (
        serving(tollgate_url="http://127.0.0.1:9", provider_url=upstream.url) as url,
        gateway.client.post(url + "/v1/chat/completions", json=CHAT, headers=AUTHORIZED) as response,
    ):
        assert response.status == 503
    assert upstream.requests == []


async def test_a_caller_cannot_make_envoy_send_a_request_twice(
    gateway: RunningGateway, upstream: FakeUpstream, url: str
) -> None:
    upstream.enqueue(plain({"error": {"message": "out of order"}}, status=503))
    headers = {**AUTHORIZED, "x-envoy-retry-on": "5xx", "x-envoy-max-retries": "3"}
    async with gateway.client.post(url, json=CHAT, headers=headers) as response:
        assert response.status == 503
    assert len(upstream.requests) == 1
