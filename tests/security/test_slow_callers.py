"""Callers that trickle, idle or never read: each is let go in time, and holds up nobody and no memory."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from tests.conftest import KEY, config_for
from tests.fakes import Connection, FakeUpstream, Received, plain
from tests.security.conftest import CHAT, Serve, Served, post

BODY = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}).encode()
HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(BODY)}\r\n".encode()


@pytest.fixture
async def gateway(serve: Serve, upstream: FakeUpstream) -> Served:
    times = {"header_timeout": "300ms", "body_timeout": "300ms", "keepalive_timeout": "300ms"}
    return await serve(config_for(upstreams=[{"name": "up", "url": upstream.url}]), **times)


async def trickle(gateway: Served, data: bytes, *, first: bytes = b"") -> tuple[bytes, float]:
    """Send byte by byte until the gateway ends it: what it said, and after how long."""
    async with gateway.connect() as (reader, writer):
        writer.write(first)
        started, answer = time.perf_counter(), asyncio.ensure_future(reader.read())
        for at in range(len(data)):
            writer.write(data[at : at + 1])
            done, _ = await asyncio.wait({answer}, timeout=0.02)
            if done:
                break
        async with asyncio.timeout(5):
            try:
                return await answer, time.perf_counter() - started
            except ConnectionError:
                return b"", time.perf_counter() - started


def ended(gateway: Served, reason: str) -> float:
    value = gateway.runtime.metrics.registry.get_sample_value("tollgate_connections_ended_total", {"reason": reason})
    return value or 0.0


async def test_a_head_that_trickles_is_cut_off_with_a_408(gateway: Served, upstream: FakeUpstream) -> None:
    answer, took_s = await trickle(gateway, HEAD * 20)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"request_timeout"' in answer
    assert took_s < 10
    assert ended(gateway, "header_timeout") == 1
    assert upstream.requests == []


async def test_the_second_head_of_a_connection_may_not_trickle_either(gateway: Served) -> None:
    answer, took_s = await trickle(gateway, HEAD * 20, first=HEAD + b"\r\n" + BODY)
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert answer.count(b"HTTP/1.1 408 ") == 1
    assert took_s < 10


async def test_a_connection_that_says_nothing_is_closed_without_a_word(gateway: Served) -> None:
    assert await gateway.send(b"") == b""
    assert ended(gateway, "header_timeout") == 1


async def test_a_body_that_trickles_is_cut_off_in_the_callers_dialect(gateway: Served, upstream: FakeUpstream) -> None:
    long = HEAD.replace(b"Content-Length: %d" % len(BODY), b"Content-Length: 5000") + b"\r\n"
    answer, took_s = await trickle(gateway, b" " * 5000, first=long)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"
    assert took_s < 10
    assert ended(gateway, "body_timeout") == 1
    assert upstream.requests == []


async def test_an_idle_connection_is_closed(gateway: Served) -> None:
    started = time.perf_counter()
    answer = await gateway.send(HEAD + b"\r\n" + BODY)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert time.perf_counter() - started < 10


async def test_a_connection_in_steady_use_is_never_cut(serve: Serve, upstream: FakeUpstream) -> None:
    times = {"header_timeout": "600ms", "body_timeout": "600ms", "keepalive_timeout": "600ms"}
    gateway = await serve(config_for(upstreams=[{"name": "up", "url": upstream.url}]), **times)
    async with gateway.connect() as (reader, writer):
        for _ in range(60):  # twice as long as any of its limits
            writer.write(HEAD + b"\r\n" + BODY)
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
                await reader.readexactly(int(length.partition(b":")[2]))
            await asyncio.sleep(0.02)
    assert ended(gateway, "header_timeout") == ended(gateway, "idle_timeout") == 0


async def test_an_answer_may_take_longer_than_a_head_or_body(gateway: Served, upstream: FakeUpstream) -> None:
    async def late(connection: Connection, received: Received) -> None:
        await asyncio.sleep(0.8)
        await plain({"late": True})(connection, received)

    upstream.enqueue(late)
    assert (await gateway.send(post(BODY))).startswith(b"HTTP/1.1 200 ")


async def test_a_caller_that_does_not_read_stalls_its_upstream_instead_of_filling_memory(
    serve: Serve, upstream: FakeUpstream
) -> None:
    gateway = await serve(config_for(upstreams=[{"name": "up", "url": upstream.url}]))
    sent = 0
    stalled = asyncio.Event()

    async def flood(connection: Connection, _: Received) -> None:
        nonlocal sent
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 200000000\r\n\r\n")
        while sent < 200_000_000:
            try:
                async with asyncio.timeout(0.5):
                    await connection.send(b" " * 65536)
            except TimeoutError:
                stalled.set()
                await connection.closed_by_caller()
                return
            sent += 65536

    upstream.enqueue(flood)
    async with gateway.connect() as (reader, writer):
        sock = writer.get_extra_info("socket")
        assert sock is not None
        writer.write(post(BODY))
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(20):
            await stalled.wait()
        # What lies in four sockets' buffers and in ours; the kernel's share depends on the machine.
        assert sent < 40_000_000
        assert (await gateway.send(post(BODY))).startswith(b"HTTP/1.1 200 ")


async def test_a_slow_upstream_holds_up_no_other(serve: Serve, upstream: FakeUpstream) -> None:
    slow = FakeUpstream()
    await slow.start()
    forever = asyncio.Event()

    async def never(_: Connection, __: Received) -> None:
        await forever.wait()

    slow.default = never
    upstreams: list[dict[str, Any]] = [
        {"name": "slow", "url": slow.url, "models": ["gpt-4o-mini"]},
        {"name": "up", "url": upstream.url},
    ]
    gateway = await serve(config_for(upstreams=upstreams))
    stuck = [
        asyncio.create_task(gateway.send(post(BODY.replace(b"gpt-4o", b"gpt-4o-mini")), for_s=20)) for _ in range(50)
    ]
    async with asyncio.timeout(20):
        while len(slow.requests) < 50:
            await asyncio.sleep(0.01)
    started = time.perf_counter()
    assert (await gateway.send(post(BODY))).startswith(b"HTTP/1.1 200 ")
    assert time.perf_counter() - started < 10
    for task in stuck:
        task.cancel()
    forever.set()
    await asyncio.gather(*stuck, return_exceptions=True)
    await slow.stop()
