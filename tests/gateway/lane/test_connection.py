"""Connections on the lane: what happens around the requests that are answered there."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.lane.connection import MAX_AHEAD_BYTES
from tests.conftest import RunningGateway, StartGateway, config_for
from tests.fakes import FakeUpstream, chat, chat_events, end, plain, stream
from tests.gateway.test_http_edges import CHAT, USED, connected, read_answer, request, settled


@pytest.fixture
async def gateway(start_gateway: StartGateway, upstream: FakeUpstream, counter: Any) -> RunningGateway:
    await asyncio.to_thread(counter.warm, ["o200k_base"])
    return await start_gateway(
        config_for(upstreams=[{"name": "up", "url": upstream.url}], server={"host": "127.0.0.1", "max_body": "64kB"})
    )


async def test_a_request_may_arrive_in_any_pieces(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    whole = request(CHAT)
    for size in (1, 7, len(whole) - 1):
        async with connected(gateway) as (reader, writer):
            for at in range(0, len(whole), size):
                writer.write(whole[at : at + size])
                await writer.drain()
                await asyncio.sleep(0)
            assert (await read_answer(reader)).status == 200
    assert [each.json for each in upstream.requests] == [CHAT] * 3


async def test_a_connection_serves_on_after_a_request_of_another_kind(
    gateway: RunningGateway, upstream: FakeUpstream
) -> None:
    """Plain ones are answered on the lane; from the first other one on aiohttp's server has the connection."""
    text = {"text": "Hello", "model_name": "gpt-4o"}
    async with connected(gateway) as (reader, writer):
        for sent in (request(CHAT), request(CHAT), request(text, path="/calculate"), request(CHAT)):
            writer.write(sent)
            assert (await read_answer(reader)).status == 200
        writer.write(request(CHAT) + request(None, method="GET", path="/health") + request(CHAT))
        assert [(await read_answer(reader)).status for _ in range(3)] == [200] * 3
    assert len(upstream.requests) == 5
    assert await settled(gateway) == 5 * USED


async def test_a_body_that_is_refused_unread_does_not_spoil_the_next_request(
    gateway: RunningGateway, upstream: FakeUpstream
) -> None:
    async with connected(gateway) as (reader, writer):
        whole = request(CHAT).replace(b"sk-", b"sk-wrong-")
        writer.write(whole[:-10])
        assert (await read_answer(reader)).status == 401
        writer.write(whole[-10:] + request(CHAT))
        assert (await read_answer(reader)).status == 200
    assert len(upstream.requests) == 1


async def test_a_body_beyond_the_limit_is_refused_before_it_has_come(gateway: RunningGateway) -> None:
    async with connected(gateway) as (reader, writer):
        whole = request(b" " * 100_000)
        writer.write(whole[:1_000])
        answer = await read_answer(reader)
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (413, "request_too_large")
        writer.write(whole[1_000:] + request(CHAT))
        assert (await read_answer(reader)).status == 200


async def test_the_connection_closes_with_the_answer_when_asked_to(
    gateway: RunningGateway, upstream: FakeUpstream
) -> None:
    upstream.enqueue(plain(chat()), stream(*chat_events("one", "two")))
    for body in (CHAT, {**CHAT, "stream": True}):
        async with connected(gateway) as (reader, writer):
            writer.write(request(body, Connection="close"))
            answer = await read_answer(reader)
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await reader.read() == b""


async def test_answers_of_our_own_have_a_date_and_a_length(gateway: RunningGateway) -> None:
    async with connected(gateway) as (reader, writer):
        writer.write(request({}))
        answer = await read_answer(reader)
    assert answer.status == 400
    assert {"date", "content-length", "x-tollgate-request-id"} <= answer.headers.keys()


async def test_a_caller_who_leaves_while_sending_holds_nothing(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    async with connected(gateway) as (_, writer):
        writer.write(request(CHAT)[:-5])
        await writer.drain()
        await asyncio.sleep(0.05)
    assert await settled(gateway) == 0
    assert not upstream.requests


async def sent_until_blocked(writer: asyncio.StreamWriter, one: bytes) -> int:
    """How many times a request can be sent until nobody takes more."""
    for sent in range(1, 2_000):
        writer.write(one)
        try:
            async with asyncio.timeout(1):
                await writer.drain()
        except TimeoutError:
            return sent
    raise AssertionError("requests are read without end")


async def test_requests_ahead_are_not_read_without_end(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    """Who sends request after request and reads no answer meets a full socket, not our memory."""
    let_go = asyncio.Event()

    async def slow(connection: Any, received: Any) -> None:
        await let_go.wait()
        await plain(chat())(connection, received)

    upstream.enqueue(slow)
    one = request({**CHAT, "metadata": {"padding": "x" * 30_000}})
    async with connected(gateway) as (reader, writer):
        writer.transport.set_write_buffer_limits(high=0)
        sent = await sent_until_blocked(writer, one)
        assert sent * len(one) > MAX_AHEAD_BYTES
        let_go.set()
        answers = [await read_answer(reader) for _ in range(sent - 1)]
    assert {answer.status for answer in answers} == {200}


async def test_answers_that_nobody_takes_do_not_pile_up(
    start_gateway: StartGateway, upstream: FakeUpstream, counter: Any
) -> None:
    """Who sends on and on and reads nothing is answered until the socket is full, and no further."""
    await asyncio.to_thread(counter.warm, ["o200k_base"])
    gateway = await start_gateway(config_for(upstreams=[{"name": "up", "url": upstream.url}], budgets=[]))
    upstream.default = plain(chat("x" * 30_000))
    async with connected(gateway) as (reader, writer):
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.transport.set_write_buffer_limits(high=0)
        sent = await sent_until_blocked(writer, request({**CHAT, "metadata": {"padding": "x" * 20_000}}))
        (connection,) = gateway.server._lane.connections
        assert connection.transport.get_write_buffer_size() < 300_000
        assert len(upstream.requests) < sent


async def test_a_stream_that_fails_half_way_has_no_clean_end(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    upstream.enqueue(stream(*chat_events("one", "two")[:2], then=end("reset")))
    async with connected(gateway) as (reader, writer):
        writer.write(request({**CHAT, "stream": True}))
        with pytest.raises(asyncio.IncompleteReadError):
            await read_answer(reader)
