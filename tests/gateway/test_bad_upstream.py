"""Upstreams that misbehave and callers that leave: the right answer, the right charge, no hold left."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.conftest import KEY, RunningGateway, StartGateway, config_for
from tests.fakes import Connection, FakeUpstream, Received, chat, chat_events, end, plain, raw, stream

PATH = "/v1/chat/completions"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 50}
STREAM = {**CHAT, "stream": True}
HEADERS = {"Authorization": f"Bearer {KEY}"}


def config(upstream: FakeUpstream, *, on_disconnect: str = "cancel", **changes: Any) -> dict[str, Any]:
    made = config_for(upstreams=[{"name": "up", "url": upstream.url, "timeout": "400ms", **changes}])
    made["server"]["on_disconnect"] = on_disconnect
    return made


@pytest.fixture
async def gateway(start_gateway: StartGateway, upstream: FakeUpstream) -> RunningGateway:
    return await start_gateway(config(upstream))


async def settled(gateway: RunningGateway) -> int:
    """What the budget has used once nothing is held any more."""
    for _ in range(500):
        budget = await gateway.budget()
        if not budget["held"]:
            return int(budget["used"])
        await asyncio.sleep(0.01)
    raise AssertionError(f"a hold is left: {budget}")


@pytest.mark.parametrize("path", [PATH, "/v1/messages"])
@pytest.mark.parametrize(
    ("script", "status"),
    [
        (end("close"), 502),
        (end("reset"), 502),
        (end("hang"), 504),
        (raw(b"220 smtp.example.com ESMTP\r\n"), 502),
        (raw(b"\x00\x01\x02\x03" * 100), 502),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Le"), 502),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), 502),
        (raw(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000), 502),
    ],
    ids=["closes", "resets", "hangs", "smtp", "binary", "half-head", "smuggling", "huge-head"],
)
async def test_an_upstream_without_an_answer_costs_nothing(
    gateway: RunningGateway, upstream: FakeUpstream, path: str, script: Any, status: int
) -> None:
    upstream.enqueue(script, script)
    model = "claude-sonnet-4-5" if path == "/v1/messages" else "gpt-4o"
    response, body = await gateway.post(path, {**CHAT, "model": model})
    assert response.status == status
    assert body["error"]["message"]
    assert upstream.url.removeprefix("http://") not in json.dumps(body)
    assert await settled(gateway) == 0


async def test_an_upstream_that_refuses_connections_costs_nothing(start_gateway: StartGateway) -> None:
    upstream = FakeUpstream()
    await upstream.start()
    await upstream.stop()
    gateway = await start_gateway(config(upstream))
    response, body = await gateway.post(PATH, CHAT)
    assert (response.status, body["error"]["code"]) == (502, "upstream_error")
    assert await settled(gateway) == 0
    assert (await gateway.get("/health"))[0].status == 200


@pytest.mark.parametrize("how", ["close", "reset", "hang"])
async def test_a_stream_that_breaks_off_never_ends_cleanly_and_is_charged(
    gateway: RunningGateway, upstream: FakeUpstream, how: str
) -> None:
    events = chat_events("one two", " three")[:2]
    upstream.enqueue(stream(*events, then=end(how)))
    async with gateway.client.post(gateway.url + PATH, json=STREAM, headers=HEADERS) as response:
        counted = int(response.headers["x-tollgate-input-tokens"])
        assert await response.content.readexactly(len(b"".join(events))) == b"".join(events)
        with pytest.raises(aiohttp.ClientError):
            await response.read()
    assert await settled(gateway) == counted + 3


async def test_a_body_that_breaks_off_is_an_error_and_is_charged(
    gateway: RunningGateway, upstream: FakeUpstream
) -> None:
    whole = json.dumps(chat("one two three")).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(whole)
    upstream.enqueue(raw(head + whole[:-120]))
    response, body = await gateway.post(PATH, CHAT)
    assert (response.status, body["error"]["code"]) == (502, "upstream_error")
    assert await settled(gateway) >= int(response.headers["x-tollgate-input-tokens"])


async def test_garbage_in_a_200_is_relayed_and_charged_within_its_hold(
    gateway: RunningGateway, upstream: FakeUpstream
) -> None:
    upstream.enqueue(plain(b"<html>proxy error</html>", headers=[("Content-Type", "text/html")]))
    response, body = await gateway.post(PATH, CHAT)
    assert (response.status, body) == (200, b"<html>proxy error</html>")
    counted = int(response.headers["x-tollgate-input-tokens"])
    assert counted <= await settled(gateway) <= counted + 24


async def test_garbage_between_events_is_relayed(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
    events = [b": ping\n\n", b"data: {not json}\n\n", b"\xff\xfe\n\n", *chat_events("x", usage=usage)]
    upstream.enqueue(stream(*events))
    _, seen = await gateway.post(PATH, {**STREAM, "stream_options": {"include_usage": True}})
    assert seen == b"".join(events)
    assert await settled(gateway) == 12


async def test_bad_chunk_framing_in_mid_stream_breaks_off(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    event, relayed = chat_events("one two three")[0], asyncio.Event()

    async def garble(connection: Connection, received: Received) -> None:
        await relayed.wait()
        await raw(b"not-hex\r\n")(connection, received)

    upstream.enqueue(stream(event, then=garble))
    async with gateway.client.post(gateway.url + PATH, json=STREAM, headers=HEADERS) as response:
        assert await response.content.readany() == event
        relayed.set()
        with pytest.raises(aiohttp.ClientError):
            await response.read()
    assert await settled(gateway) == int(response.headers["x-tollgate-input-tokens"]) + 3


async def test_a_caller_that_leaves_in_mid_stream_is_charged_for_what_it_got(
    gateway: RunningGateway, upstream: FakeUpstream
) -> None:
    left = asyncio.Event()

    async def wait_for_the_end(connection: Connection, _: Received) -> None:
        await connection.closed_by_caller()
        left.set()

    upstream.enqueue(stream(chat_events("one two three")[0], then=wait_for_the_end))
    async with aiohttp.ClientSession() as client:
        response = await client.post(gateway.url + PATH, json=STREAM, headers=HEADERS)
        counted = int(response.headers["x-tollgate-input-tokens"])
        await response.content.readany()
        response.close()
    await asyncio.wait_for(left.wait(), 3)
    assert await settled(gateway) == counted + 3


async def test_a_caller_that_leaves_before_the_answer_is_charged_its_input(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    gateway = await start_gateway(config(upstream, timeout="30s"))
    asked, left = asyncio.Event(), asyncio.Event()

    async def think(connection: Connection, _: Received) -> None:
        asked.set()
        await connection.closed_by_caller()
        left.set()

    upstream.enqueue(think)
    async with aiohttp.ClientSession() as client:
        waiting = asyncio.create_task(client.post(gateway.url + PATH, json=CHAT, headers=HEADERS))
        await asyncio.wait_for(asked.wait(), 3)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.wait_for(left.wait(), 3)
    assert 0 < await settled(gateway) < 50


async def test_a_drained_stream_is_read_to_its_end_and_charged_as_reported(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    gateway = await start_gateway(config(upstream, on_disconnect="drain", timeout="30s"))
    gone = asyncio.Event()
    usage = {"prompt_tokens": 10, "completion_tokens": 40, "total_tokens": 50}
    events = chat_events("one", "two", usage=usage)

    async def wait(number: int) -> None:
        if number == 1:
            await gone.wait()

    upstream.enqueue(stream(*events, between=wait))
    async with aiohttp.ClientSession() as client:
        response = await client.post(gateway.url + PATH, json=STREAM, headers=HEADERS)
        await response.content.readany()
        response.close()
    gone.set()
    assert await settled(gateway) == 50


async def test_a_caller_that_reads_no_more_is_let_go(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    gateway = await start_gateway(config(upstream, timeout="30s", idle_timeout="300ms"))
    comment = b": " + b"x" * 60_000 + b"\n\n"
    upstream.enqueue(stream(chat_events("one two three")[0], *([comment] * 1000)))
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024)
    body = json.dumps(STREAM).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await reader.readline()
    assert await settled(gateway) > 0
    writer.close()


async def test_a_caller_that_leaves_while_sending_holds_nothing(
    gateway: RunningGateway, upstream: FakeUpstream
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 1000\r\n\r\n"
    writer.write(head.encode() + b'{"model"')
    await writer.drain()
    writer.close()
    assert await settled(gateway) == 0
    assert (await gateway.post(PATH, CHAT))[0].status == 200
    assert len(upstream.requests) == 1


async def test_an_http_1_0_caller_sees_a_broken_stream_as_broken(
    gateway: RunningGateway, upstream: FakeUpstream
) -> None:
    upstream.enqueue(stream(chat_events("one")[0], then=end("close")))
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    body = json.dumps(STREAM).encode()
    head = f"POST {PATH} HTTP/1.0\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    assert await settled(gateway) > 0


async def test_a_keepalive_connection_survives_errors(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector) as client:
        for body in (b"{", json.dumps({**CHAT, "model": "nope"}).encode(), json.dumps(CHAT).encode()):
            async with client.post(gateway.url + PATH, data=body, headers=HEADERS) as response:
                last = response.status
                await response.read()
    assert last == 200
