"""The documented nginx and Envoy configurations before a gateway: TLS, streams, long bodies, addresses, callers who
leave."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import KEY, RunningGateway, StartGateway, config_for, digest
from tests.deploy.tls_proxies import MISSING, before, make_certificate
from tests.fakes import FakeUpstream, chat_events, end, stream

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
HIDDEN = ("/admin/keys", "/dashboard", "/metrics", "/health", "//admin/keys", "/x/../admin/keys", "/%61dmin/keys")


class Front:
    """A gateway's front door: what callers use, who they are, and the gateway behind it."""

    def __init__(self, url: str, gateway: RunningGateway, client: aiohttp.ClientSession) -> None:
        self.url = url
        self.gateway = gateway
        self.client = client

    def chat(self, body: Any = CHAT, headers: Mapping[str, str] | None = None) -> Any:
        data = io.BytesIO(json.dumps(body).encode())
        sent = {"Content-Type": "application/json", **(headers or {})}
        return self.client.post(self.url + "/v1/chat/completions", data=data, headers=sent)


@pytest.fixture(params=["nginx", "envoy"])
async def front(
    request: pytest.FixtureRequest, start_gateway: StartGateway, upstream: FakeUpstream, tmp_path: Path
) -> AsyncIterator[Front]:
    if why := MISSING[request.param]:
        pytest.skip(why)
    # Callers come from another loopback address than the proxy, which alone may name them.
    gateway = await start_gateway(
        config_for(
            server={"host": "127.0.0.1", "trusted_proxies": ["127.0.0.1/32"], "max_body": "32MiB"},
            upstreams=[{"name": "fake", "url": upstream.url}],
            admin={"digest": digest("admin")},
        )
    )
    certificate = await asyncio.to_thread(make_certificate, tmp_path)
    trusted = await asyncio.to_thread(certificate.trusted)
    connector = aiohttp.TCPConnector(ssl=trusted, local_addr=("127.0.0.2", 0))
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        before(gateway.url, certificate, program=request.param) as url,
        aiohttp.ClientSession(connector=connector, headers=headers) as client,
    ):
        yield Front(url, gateway, client)


async def test_a_stream_arrives_as_it_comes(front: Front, upstream: FakeUpstream) -> None:
    read = asyncio.Event()

    async def wait_for_reader(number: int) -> None:
        if number == 1:
            await read.wait()

    usage = {"prompt_tokens": 9, "completion_tokens": 5}
    upstream.enqueue(stream(*chat_events("Hello", " you", usage=usage), between=wait_for_reader))
    async with front.chat({**CHAT, "stream": True}) as response:
        assert response.headers["x-tollgate-input-tokens"] == "8"
        assert b"Hello" in await response.content.readany()  # before the provider has sent the rest
        read.set()
        assert (await response.read()).endswith(b"data: [DONE]\n\n")
    assert (await front.gateway.budget())["used"] == 14


async def test_a_caller_who_leaves_is_heard_of_at_once(front: Front, upstream: FakeUpstream) -> None:
    upstream.enqueue(stream(*chat_events("Hello", " you")[:2], then=end("hang")))
    async with front.chat({**CHAT, "stream": True}) as response:
        read = b""
        while b" you" not in read:
            read += await response.content.readany()
        # As when its process ends. A caller that closes TLS first and waits is heard of when it has waited (nginx.md).
        assert response.connection is not None
        assert response.connection.transport is not None
        response.connection.transport.abort()
    async with asyncio.timeout(10):
        while (budget := await front.gateway.budget())["held"] or not upstream.served:
            await asyncio.sleep(0.02)
    assert budget["used"] == 8 + 2


async def test_long_bodies_pass_up_to_the_gateways_own_limit(front: Front, upstream: FakeUpstream) -> None:
    async with front.chat({**CHAT, "metadata": {"padding": "x" * 20_000_000}}) as response:
        assert response.status == 200
    assert len(upstream.requests[0].body) > 20_000_000
    async with front.chat({**CHAT, "metadata": {"padding": "x" * 40_000_000}}) as response:
        assert response.status == 413
    assert len(upstream.requests) == 1


async def test_the_log_names_the_caller_and_not_the_proxy(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with front.chat(headers={"X-Forwarded-For": "203.0.113.9"}) as response:
        assert response.status == 200
    (line,) = [record.getMessage() for record in caplog.records if "chat/completions" in record.getMessage()]
    assert "127.0.0.2" in line
    assert "203.0.113.9" not in line


@pytest.mark.parametrize("path", HIDDEN)
async def test_what_is_for_operators_is_not_for_callers(front: Front, path: str) -> None:
    from yarl import URL

    url = URL(front.url + path, encoded=True)
    async with front.client.get(url, headers={"Authorization": "Bearer admin"}, allow_redirects=False) as response:
        assert response.status in (403, 404), await response.text()
    assert (await front.gateway.get(path.replace("%61", "a"), key="admin"))[0].status != 403


async def test_a_refusal_keeps_its_headers(front: Front) -> None:
    async with front.chat({**CHAT, "max_tokens": 200_000}) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (413, "request_exceeds_budget")
    async with front.chat(headers={"Authorization": "Bearer sk-nobody"}) as response:
        assert response.status == 401
