from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.http import ConnectFailed, TimedOut

from .conftest import Client, RawServer, Serve

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def _held(serve: Serve) -> tuple[RawServer, asyncio.Semaphore]:
    """A server that answers one request for each release of the semaphore."""
    answers = asyncio.Semaphore(0)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await server.read_request(reader)
            await answers.acquire()
            writer.write(OK)

    server = await serve(talk)
    return server, answers


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_pool_opens_no_more_connections_than_its_limit(new_client: Callable[..., Client], serve: Serve) -> None:
    client = new_client(limit_per_host=3)
    server, answers = await _held(serve)
    requests = [asyncio.ensure_future(client.ask(server.origin)) for _ in range(10)]
    await _until(lambda: len(server.heads) == 3)
    assert client.connections(server.origin) == (3, 0)
    for _ in requests:
        answers.release()
    assert [(await request).complete_body for request in requests] == [b"ok"] * 10
    assert server.connections == 3
    assert client.connections(server.origin) == (3, 3)


async def test_pool_serves_waiters_in_order(new_client: Callable[..., Client], serve: Serve) -> None:
    client = new_client(limit_per_host=1)
    server, answers = await _held(serve)
    requests = []
    for number in range(5):
        requests.append(asyncio.ensure_future(client.ask(server.origin, body=b"%d" % number)))
        await asyncio.sleep(0)
    for _ in requests:
        answers.release()
    await asyncio.gather(*requests)
    assert server.bodies == [b"0", b"1", b"2", b"3", b"4"]


async def test_pool_has_no_limit_when_it_is_zero(new_client: Callable[..., Client], serve: Serve) -> None:
    client = new_client(limit_per_host=0)
    server, answers = await _held(serve)
    requests = [asyncio.ensure_future(client.ask(server.origin)) for _ in range(20)]
    await _until(lambda: len(server.heads) == 20)
    for _ in requests:
        answers.release()
    await asyncio.gather(*requests)
    assert server.connections == 20


async def test_waiting_for_a_slot_ends_with_the_connect_timeout(
    new_client: Callable[..., Client], serve: Serve
) -> None:
    client = new_client(limit_per_host=1)
    server, answers = await _held(serve)
    first = asyncio.ensure_future(client.ask(server.origin))
    await _until(lambda: len(server.heads) == 1)
    with pytest.raises(TimedOut) as caught:
        await client.ask(server.origin, connect_timeout_s=0.02)
    assert (caught.value.phase, caught.value.nothing_sent) == ("connect", True)
    with pytest.raises(TimedOut) as caught:
        await client.ask(server.origin, total_timeout_s=0.02)
    assert (caught.value.phase, caught.value.nothing_sent) == ("total", True)
    answers.release()
    assert (await first).complete_body == b"ok"
    answers.release()
    assert (await client.ask(server.origin)).complete_body == b"ok"


async def test_slot_comes_back_when_its_connection_dies(new_client: Callable[..., Client], serve: Serve) -> None:
    client = new_client(limit_per_host=1)
    server, answers = await _held(serve)
    first = asyncio.ensure_future(client.ask(server.origin))
    await _until(lambda: len(server.heads) == 1)
    second = asyncio.ensure_future(client.ask(server.origin))
    await asyncio.sleep(0)
    first.cancel()
    answers.release()
    answers.release()
    assert (await second).complete_body == b"ok"
    assert server.connections == 2


async def test_slot_comes_back_when_connecting_fails(new_client: Callable[..., Client], serve: Serve) -> None:
    client = new_client(limit_per_host=1)
    server, _ = await _held(serve)
    dead = server.origin._replace(host="127.0.0.2", port=1)
    for _ in range(3):
        with pytest.raises(ConnectFailed):
            await client.ask(dead)


@pytest.mark.parametrize("turns", range(4))
async def test_slot_comes_back_when_a_waiter_is_cancelled_at_any_turn(
    new_client: Callable[..., Client], serve: Serve, turns: int
) -> None:
    client = new_client(limit_per_host=1)
    server, answers = await _held(serve)
    first = asyncio.ensure_future(client.ask(server.origin))
    await _until(lambda: len(server.heads) == 1)
    second = asyncio.ensure_future(client.ask(server.origin))
    third = asyncio.ensure_future(client.ask(server.origin))
    await asyncio.sleep(0)
    for _ in range(4):
        answers.release()
    await first
    for _ in range(turns):
        await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert (await third).complete_body == b"ok"
    assert (await client.ask(server.origin)).complete_body == b"ok"


async def test_pool_uses_the_connection_used_last(new_client: Callable[..., Client], serve: Serve) -> None:
    client = new_client()
    server, answers = await _held(serve)
    under_way = {asyncio.ensure_future(client.ask(server.origin)) for _ in range(3)}
    await _until(lambda: len(server.heads) == 3)
    while under_way:
        answers.release()
        done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        last = done.pop().result()
    answers.release()
    assert (await client.ask(server.origin))._source is last._source


async def test_idle_connections_are_closed_after_keepalive(new_client: Callable[..., Client], serve: Serve) -> None:
    client = new_client(keepalive_s=0.05)
    gone = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(OK)
        assert await reader.read() == b""
        gone.set()

    server = await serve(talk)
    assert (await client.ask(server.origin)).complete_body == b"ok"
    assert client.connections(server.origin) == (1, 1)
    await asyncio.wait_for(gone.wait(), 5)
    assert client.connections(server.origin) == (0, 0)


async def test_waiters_fail_when_the_client_is_closed(new_client: Callable[..., Client], serve: Serve) -> None:
    client = new_client(limit_per_host=1)
    server, _ = await _held(serve)
    requests = [asyncio.ensure_future(client.ask(server.origin)) for _ in range(3)]
    await _until(lambda: len(server.heads) == 1)
    await client.close()
    errors = await asyncio.gather(*requests, return_exceptions=True)
    assert [isinstance(error, ConnectFailed) for error in errors] == [False, True, True]
    assert not any(isinstance(error, asyncio.CancelledError) for error in errors)
