"""More connections or requests than there is room for: an early 503 that says when to come back, never a queue."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, suppress

import pytest

from gateway.load import share
from tests.conftest import config_for
from tests.fakes import Connection, FakeUpstream, Received, chat, plain
from tests.security.conftest import CHAT, Serve, post

BODY = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}).encode()
DIALECTS = {
    CHAT: lambda error: error["error"]["code"] == "overloaded",
    "/v1/messages": lambda error: error["type"] == "error" and error["error"]["message"],
    "/v1beta/models/gemini-2.5-flash:generateContent": lambda error: error["error"]["status"] == "UNAVAILABLE",
    "/nothing": lambda error: error["error"]["code"] == "overloaded",
}


def parts(answer: bytes) -> tuple[bytes, bytes, dict[str, object]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0], head.lower(), json.loads(body)


@pytest.mark.parametrize("path", DIALECTS)
async def test_one_connection_too_many_is_answered_503_in_its_dialect(
    serve: Serve, upstream: FakeUpstream, path: str
) -> None:
    gateway = await serve(config_for(upstreams=[{"name": "up", "url": upstream.url}]), max_connections=3)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(gateway.connect())
        status, head, error = parts(await gateway.send(post(BODY, path=path)))
        assert status == b"HTTP/1.1 503 Service Unavailable"
        assert b"retry-after: 1" in head
        assert b"connection: close" in head
        assert DIALECTS[path](error)
        assert upstream.requests == []
    samples = gateway.runtime.metrics.registry.get_sample_value
    assert samples("tollgate_connections_ended_total", {"reason": "refused"}) == 1
    async with asyncio.timeout(5):
        while not (await gateway.send(post(BODY))).startswith(b"HTTP/1.1 200 "):
            await asyncio.sleep(0.01)


async def test_a_refused_connection_that_says_nothing_is_closed_too(serve: Serve, upstream: FakeUpstream) -> None:
    config = config_for(upstreams=[{"name": "up", "url": upstream.url}])
    gateway = await serve(config, max_connections=1, header_timeout="1m")
    async with gateway.connect(), gateway.connect() as (reader, _):
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                assert await reader.read() == b""


@pytest.mark.parametrize("path", DIALECTS)
async def test_one_request_too_many_is_answered_503_before_anything_is_done(
    serve: Serve, upstream: FakeUpstream, path: str
) -> None:
    gateway = await serve(config_for(upstreams=[{"name": "up", "url": upstream.url}]), max_concurrent_requests=2)
    go = asyncio.Event()

    async def wait(connection: Connection, received: Received) -> None:
        await go.wait()
        await plain(chat())(connection, received)

    upstream.enqueue(wait, wait)
    running = [asyncio.create_task(gateway.send(post(BODY), for_s=20)) for _ in range(2)]
    async with asyncio.timeout(10):
        while len(upstream.requests) < 2:
            await asyncio.sleep(0.01)
    status, head, error = parts(await gateway.send(post(BODY, path=path)))
    assert status.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in head
    assert DIALECTS[path](error)
    assert len(upstream.requests) == 2
    health = await gateway.send(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert health.startswith(b"HTTP/1.1 200 ")
    go.set()
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in await asyncio.gather(*running))
    assert (await gateway.send(post(BODY))).startswith(b"HTTP/1.1 200 ")
    samples = gateway.runtime.metrics.registry.get_sample_value
    assert samples("tollgate_overloads_total") == 1
    assert gateway.runtime.load.running == 0


@pytest.mark.parametrize(("most", "workers", "each"), [(10, 1, 10), (10, 4, 3), (1, 8, 1)])
def test_workers_share_a_limit(most: int, workers: int, each: int) -> None:
    assert share(most, workers) == each
