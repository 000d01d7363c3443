"""The documented nginx.conf and njs script in a real nginx."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.conftest import KEY, RunningGateway, StartGateway, config_for
from tests.fakes import FakeUpstream, chat, chat_events, end, plain, stream
from tests.plugins.nginx_server import NGINX, serving

pytestmark = pytest.mark.skipif(
    NGINX is None, reason="there is no nginx here (Debian: apt-get install nginx libnginx-mod-http-js)"
)

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
    """What is used once nothing is held: nginx tells the answer after its caller has it."""
    async with asyncio.timeout(10):
        while (budget := await gateway.budget())["held"]:
            await asyncio.sleep(0.02)
    return int(budget["used"])


async def test_nginx_forwards_what_was_held_and_settles_by_the_answer(
    gateway: RunningGateway, upstream: FakeUpstream, url: str
) -> None:
    response, body = await post(gateway, url)
    assert (response.status, body["usage"]["total_tokens"]) == (200, 12)
    assert response.headers["x-tollgate-input-tokens"] == "8"
    assert response.headers["x-ratelimit-remaining-tokens"] == "42"
    assert upstream.requests[0].json == CHAT
    assert await settled(gateway) == 12


async def test_nginx_answers_a_refusal_itself(gateway: RunningGateway, upstream: FakeUpstream, url: str) -> None:
    upstream.enqueue(plain(chat(prompt_tokens=90, completion_tokens=10)))
    await post(gateway, url)
    assert await settled(gateway) == 100
    response, body = await post(gateway, url)
    assert (response.status, body["error"]["code"]) == (429, "insufficient_quota")
    assert response.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == 1


async def test_nginx_releases_what_the_provider_declined(
    gateway: RunningGateway, upstream: FakeUpstream, url: str
) -> None:
    upstream.enqueue(plain({"error": {"message": "out of order"}}, status=503))
    response, _ = await post(gateway, url)
    assert response.status == 503
    upstream.enqueue(end("close"))
    async with gateway.client.post(url, json=CHAT, headers=AUTHORIZED) as response:
        assert response.status == 502
    assert await settled(gateway) == 0


async def test_a_callers_headers_do_not_keep_its_answer_from_being_told(
    gateway: RunningGateway, upstream: FakeUpstream, url: str
) -> None:
    """Neither another key beside the right one, nor what they say of the request's own body."""
    body = gzip.compress(json.dumps(CHAT).encode())
    headers = {**AUTHORIZED, "x-api-key": "sk-nobody", "Content-Encoding": "gzip", "Content-Type": "application/json"}
    async with gateway.client.post(url, data=body, headers=headers) as response:
        assert response.status == 200
    assert upstream.requests[0].body == body
    assert await settled(gateway) == 12


async def test_nginx_forwards_long_bodies_whole(gateway: RunningGateway, upstream: FakeUpstream, url: str) -> None:
    body = json.dumps({**CHAT, "metadata": {"padding": "x" * 8_000_000}}).encode()
    headers = {**AUTHORIZED, "Content-Type": "application/json"}
    async with gateway.client.post(url, data=io.BytesIO(body), headers=headers) as response:
        assert response.status == 200
    assert upstream.requests[0].body == body
    assert await settled(gateway) == 12


async def test_nginx_streams_and_settles_by_the_last_event(
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


async def test_nginx_charges_what_was_relayed_when_the_caller_leaves(
    gateway: RunningGateway, upstream: FakeUpstream, url: str
) -> None:
    upstream.enqueue(stream(*chat_events("Hello", " you")[:2], then=end("hang")))
    async with gateway.client.post(url, json={**CHAT, "stream": True}, headers=AUTHORIZED) as response:
        read = b""
        while b" you" not in read:
            read += await response.content.readany()
        response.close()
    assert await settled(gateway) == 8 + 2


async def test_nginx_sends_the_cap_that_a_budget_lowered(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    budgets = [{"name": "main", "limits": [{"tokens": 100, "per": "day"}], "output_hold": "clamp"}]
    gateway = await start_gateway(config_for(budgets=budgets))
    uncapped = {"model": "gpt-4o", "messages": CHAT["messages"]}
    async with serving(tollgate_url=gateway.url, provider_url=upstream.url) as url:
        response, _ = await post(gateway, url + "/v1/chat/completions", uncapped)
        assert response.status == 200
        assert upstream.requests[0].json == {**uncapped, "max_tokens": 92}
        assert await settled(gateway) == 12


async def test_auth_request_lets_pass_while_something_is_left(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    upstream.enqueue(plain(chat(prompt_tokens=90, completion_tokens=10)))
    async with serving(tollgate_url=gateway.url, provider_url=upstream.url, config="auth_request.conf") as address:
        url = address + "/v1/chat/completions"
        response, body = await post(gateway, url)
        assert (response.status, body["usage"]["total_tokens"]) == (200, 100)
        assert upstream.requests[0].json == CHAT
        assert await settled(gateway) == 100
        response, body = await post(gateway, url)
        assert (response.status, body["error"]["code"]) == (429, "insufficient_quota")
        assert response.headers["x-should-retry"] == "false"
        async with gateway.client.post(url, json=CHAT, headers={"Authorization": "Bearer sk-nobody"}) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (401, "invalid_api_key")
    assert len(upstream.requests) == 1
