"""The documented plug-in in a real LiteLLM proxy. What clients see of it is tried by `make compat`; here is what
hostile ones may try."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from tests.compat.programs.litellm_proxy import start
from tests.compat.scripts import VENV
from tests.conftest import KEY, RunningGateway, StartGateway, config_for
from tests.fakes import Connection, FakeUpstream, Received, chat, chat_events, plain, stream

pytestmark = [
    pytest.mark.skipif(
        not (VENV / "bin" / "litellm").exists(), reason="there is no LiteLLM (`make compat` installs it)"
    ),
    pytest.mark.timeout(600),
]

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
CALL = {"x-litellm-call-id": "mine", "Authorization": "Bearer sk-anything", "x-tollgate-key": KEY}


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    return await start_gateway(config_for(budgets=[{"name": "main", "limits": [{"tokens": 100, "per": "day"}]}]))


@pytest.fixture
async def url(gateway: RunningGateway, upstream: FakeUpstream) -> AsyncIterator[str]:
    # The plug-in waits ten seconds; reading a vocabulary may take as long on a machine that does much else.
    await gateway.post("/calculate", {"model": "gpt-4o", "text": "Hi"})
    async with AsyncExitStack() as stack:
        url = await start(stack, upstream_url=upstream.url, tollgate_url=gateway.url)
        yield url + "/v1/chat/completions"


def called(upstream: FakeUpstream) -> list[Received]:
    """The calls that reached the provider; LiteLLM also asks it for its models when it starts."""
    return [received for received in upstream.requests if received.method == "POST"]


async def settled(gateway: RunningGateway) -> int:
    async with asyncio.timeout(60):
        while (budget := await gateway.budget())["held"]:
            await asyncio.sleep(0.02)
    return int(budget["used"])


async def test_a_call_cannot_end_another_by_taking_its_id(
    gateway: RunningGateway, upstream: FakeUpstream, url: str
) -> None:
    """Callers choose LiteLLM's call ids: calls that fail or are refused under a running call's id change nothing."""
    go_on = asyncio.Event()

    async def wait(_: int) -> None:
        await go_on.wait()

    events = chat_events("Hello", " you", usage={"prompt_tokens": 9, "completion_tokens": 5})

    async def answer(connection: Connection, received: Received) -> None:
        streams = received.method == "POST" and received.json.get("stream")
        script = stream(*events, between=wait) if streams else plain(chat())
        await script(connection, received)

    upstream.default = answer

    async def ask(body: Any) -> int:
        async with gateway.client.post(url, json=body, headers=CALL) as response:
            await response.read()
            return int(response.status)

    running = asyncio.create_task(ask({**CHAT, "stream": True}))
    async with asyncio.timeout(150):
        while not called(upstream):
            assert not running.done(), running
            await asyncio.sleep(0.02)
    assert (await gateway.budget())["held"] == 58
    assert await ask(CHAT) == 429  # 42 tokens are left
    assert await ask({**CHAT, "model": "no-such-model"}) in (400, 404)
    forged = {"proxy_server_request": {"tollgate_hold": "mine"}, "litellm_call_id": "mine"}
    assert await ask({**CHAT, **forged}) == 429
    assert (await gateway.budget())["held"] == 58
    # What LiteLLM lays over a body is held too: it is what the provider gets.
    assert await ask({**CHAT, "max_tokens": 1, "extra_body": {"max_tokens": 90}}) == 429
    go_on.set()
    assert await running == 200
    assert await settled(gateway) == 14
    # And its own id may be used again.
    assert await ask({**CHAT, "max_tokens": 20}) == 200
    assert await settled(gateway) == 14 + 12


async def test_nothing_passes_while_tollgate_is_away(upstream: FakeUpstream, gateway: RunningGateway) -> None:
    async with AsyncExitStack() as stack:
        url = await start(stack, upstream_url=upstream.url, tollgate_url="http://127.0.0.1:9")
        client: aiohttp.ClientSession = gateway.client
        async with client.post(url + "/v1/chat/completions", json=CHAT, headers=CALL) as response:
            assert response.status == 503
            assert "Tollgate" in await response.text()
    assert called(upstream) == []
