from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.http import AnswerCut, Origin, SendFailed, TimedOut
from gateway.http.connection import MAX_BUFFERED_BYTES

from .conftest import Client, Serve

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MEGABYTE = 1024 * 1024


# Timeouts.


@pytest.mark.parametrize(
    ("said", "phase"),
    [
        (b"", "header"),
        (b"HTTP/1.1 200 OK\r\n", "header"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", "header"),
    ],
)
async def test_header_timeout_when_the_head_does_not_come(
    client: Client, serve: Serve, said: bytes, phase: str
) -> None:
    server = await serve.answers(said)
    with pytest.raises(TimedOut, match=r"within 0\.05 s") as caught:
        await client.ask(server.origin, header_timeout_s=0.05)
    assert (caught.value.phase, caught.value.nothing_sent) == (phase, False)
    await asyncio.sleep(0)
    assert client.connections(server.origin) == (0, 0)


async def test_idle_timeout_when_the_body_stops(client: Client, serve: Serve) -> None:
    server = await serve.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
    answer = await client.ask(server.origin, idle_timeout_s=0.05)
    assert await answer.read() == b"part"
    with pytest.raises(TimedOut) as caught:
        await answer.read()
    assert caught.value.phase == "idle"


async def test_idle_timeout_starts_again_with_every_byte(client: Client, serve: Serve) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        for _ in range(6):
            await asyncio.sleep(0.04)
            writer.write(b".")
        await reader.read()

    server = await serve(talk)
    answer = await client.ask(server.origin, idle_timeout_s=0.15)
    assert await answer.read_all(10) == b"......"


async def test_total_timeout_when_a_stream_goes_on_too_long(client: Client, serve: Serve) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.01)

    server = await serve(talk)
    started = asyncio.get_running_loop().time()
    answer = await client.ask(server.origin, total_timeout_s=0.1)
    with pytest.raises(TimedOut) as caught:
        await answer.read_all(MEGABYTE)
    assert caught.value.phase == "total"
    assert asyncio.get_running_loop().time() - started < 3


async def test_total_timeout_when_nothing_comes_and_the_others_are_longer(client: Client, serve: Serve) -> None:
    server = await serve.answers(b"")
    started = asyncio.get_running_loop().time()
    with pytest.raises(TimedOut) as caught:
        await client.ask(server.origin, total_timeout_s=0.05)
    assert (caught.value.phase, caught.value.nothing_sent) == ("total", False)
    assert asyncio.get_running_loop().time() - started < 3


async def test_timers_of_one_request_do_not_reach_into_the_next(client: Client, serve: Serve) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await server.read_request(reader)
            if len(server.heads) == 2:
                await asyncio.sleep(0.12)
            writer.write(OK)

    server = await serve(talk)
    short = {"header_timeout_s": 0.05, "idle_timeout_s": 0.05, "total_timeout_s": 0.05}
    assert await (await client.ask(server.origin, **short)).read_all(10) == b"ok"
    assert await (await client.ask(server.origin)).read_all(10) == b"ok"
    assert server.connections == 1
    server.heads.pop()
    with pytest.raises(TimedOut):
        await client.ask(server.origin, **short)


async def test_send_timeout_when_the_peer_takes_no_bytes(client: Client, serve: Serve) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()
        await asyncio.sleep(60)

    server = await serve(talk)
    with pytest.raises(TimedOut) as caught:
        await client.ask(server.origin, body=b"a" * (32 * MEGABYTE), idle_timeout_s=0.1)
    assert caught.value.phase == "send"


# Bodies out.


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 400_000, 5 * MEGABYTE])
async def test_body_arrives_whole_at_any_size(client: Client, serve: Serve, size: int) -> None:
    server = await serve.answers(OK, OK)
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    for _ in range(2):
        assert await (await client.ask(server.origin, body=body)).read_all(10) == b"ok"
    assert server.bodies == [body, body]
    assert server.connections == 1


async def test_iterator_body_is_sent_chunked(client: Client, serve: Serve) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one,", b"", b"two,", b"x" * 300_000):
            yield piece

    server = await serve.answers(OK, OK)
    assert await (await client.ask(server.origin, body=pieces())).read_all(10) == b"ok"
    assert server.bodies == [b"one,two," + b"x" * 300_000]
    assert b"\r\nTransfer-Encoding: chunked\r\n" in server.heads[0]
    assert await (await client.ask(server.origin)).read_all(10) == b"ok"
    assert server.connections == 1


async def test_iterator_body_is_not_drawn_faster_than_the_peer_takes_it(client: Client, serve: Serve) -> None:
    drawn = 0
    start_reading = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal drawn
        for _ in range(64):
            drawn += 1
            yield b"x" * (256 * 1024)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await start_reading.wait()
        while not (await reader.read(MEGABYTE)).endswith(b"\r\n0\r\n\r\n"):
            pass
        writer.write(OK)
        await reader.read()

    server = await serve(talk)
    request = asyncio.ensure_future(client.ask(server.origin, body=pieces()))
    before = -1
    while drawn != before or not drawn:
        before = drawn
        await asyncio.sleep(0.05)
    assert drawn < 48
    start_reading.set()
    assert await (await request).read_all(10) == b"ok"
    assert drawn == 64


async def test_error_of_the_iterator_is_raised_and_the_body_is_not_ended(client: Client, serve: Serve) -> None:
    received = asyncio.get_running_loop().create_future()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"part"
        raise LookupError("the caller went away")

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.set_result(await reader.read())

    server = await serve(talk)
    with pytest.raises(LookupError, match="went away"):
        await client.ask(server.origin, body=pieces())
    assert not (await received).endswith(b"0\r\n\r\n")
    assert client.connections(server.origin) == (0, 0)


async def test_request_fails_when_the_source_of_its_body_is_cancelled(client: Client, serve: Serve) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"part"
        raise asyncio.CancelledError

    server = await serve.answers()
    with pytest.raises(SendFailed, match="cancelled"):
        await client.ask(server.origin, body=pieces())


async def test_send_failed_when_the_peer_hangs_up_during_the_body(client: Client, serve: Serve) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    server = await serve(talk)
    with pytest.raises(SendFailed) as caught:
        await client.ask(server.origin, body=b"a" * (32 * MEGABYTE))
    assert not caught.value.nothing_sent


# Early answers.


async def test_early_refusal_stops_the_body_and_closes(client: Client, serve: Serve) -> None:
    received = asyncio.get_running_loop().create_future()
    closed_source = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"part"
            await asyncio.Event().wait()
        finally:
            closed_source.set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"part\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\n")
        await asyncio.wait_for(closed_source.wait(), 5)  # with the answer's head, before its body
        writer.write(b"no!")
        received.set_result(await reader.read())

    server = await serve(talk)
    answer = await client.ask(server.origin, body=pieces())
    assert answer.status == 413
    assert await answer.read_all(10) == b"no!"
    assert await received == b""
    assert client.connections(server.origin) == (0, 0)


async def test_early_refusal_is_handed_out_when_a_large_body_is_half_sent(client: Client, serve: Serve) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!")
        await writer.drain()
        while await reader.read(65536):
            pass

    server = await serve(talk)
    answer = await client.ask(server.origin, body=b"a" * (32 * MEGABYTE))
    assert (answer.status, await answer.read_all(10)) == (413, b"no!")
    await asyncio.sleep(0)
    assert client.connections(server.origin) == (0, 0)


@pytest.mark.parametrize("size", [100_000, 4 * MEGABYTE])
async def test_early_refusal_is_handed_out_when_the_upstream_resets_after_it(client: Client, size: int) -> None:
    def refuse() -> None:
        for _ in range(20):
            accepted = listening.accept()[0]
            accepted.recv(1000)
            accepted.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!")
            accepted.close()  # with bytes unread: the kernel sends a reset

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5)
        refusing = asyncio.create_task(asyncio.to_thread(refuse))
        origin = Origin("http", "127.0.0.1", listening.getsockname()[1])
        for _ in range(20):
            answer = await client.ask(origin, body=b"a" * size)
            assert (answer.status, await answer.read_all(10)) == (413, b"no!")
        await refusing


async def test_early_success_does_not_stop_the_body(client: Client, serve: Serve) -> None:
    go_on = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        await go_on.wait()
        yield b"two"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"one\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
        assert await reader.readuntil(b"0\r\n\r\n") == b"3\r\ntwo\r\n0\r\n\r\n"
        writer.write(b"yes")
        await reader.read()

    server = await serve(talk)
    answer = await client.ask(server.origin, body=pieces())
    assert answer.complete_body is None
    go_on.set()
    assert await answer.read_all(10) == b"yes"
    assert client.connections(server.origin) == (1, 1)


async def test_connection_is_not_reused_when_the_answer_ended_before_the_request(client: Client, serve: Serve) -> None:
    gone = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        await asyncio.Event().wait()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"one\r\n")
        writer.write(OK)
        assert await reader.read() == b""
        gone.set()

    server = await serve(talk)
    assert (await client.ask(server.origin, body=pieces())).complete_body == b"ok"
    await asyncio.wait_for(gone.wait(), 5)
    assert client.connections(server.origin) == (0, 0)


# Back-pressure in.


async def test_socket_is_not_read_on_when_the_reader_is_behind(client: Client, serve: Serve) -> None:
    total = 64 * MEGABYTE
    written = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await server.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while written < total:
            writer.write(b"x" * MEGABYTE)
            await writer.drain()
            written += MEGABYTE
        await reader.read()

    server = await serve(talk)
    answer = await client.ask(server.origin, idle_timeout_s=0.3)
    before = -1
    while written != before or not written:
        before = written
        await asyncio.sleep(0.4)  # longer than the idle timeout, which must not run while nobody reads
    assert written < total // 2
    assert answer.buffered_bytes <= 2 * MAX_BUFFERED_BYTES
    received = 0
    while chunk := await answer.read():
        received += len(chunk)
        assert len(chunk) <= 2 * MAX_BUFFERED_BYTES
    assert received == total
    assert client.connections(server.origin) == (1, 1)


async def test_answer_can_be_closed_when_reading_is_paused(client: Client, serve: Serve) -> None:
    gone = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (16 * MEGABYTE))
        try:
            await reader.read()
        finally:
            gone.set()

    server = await serve(talk)
    answer = await client.ask(server.origin)
    while answer.buffered_bytes <= MAX_BUFFERED_BYTES:
        await asyncio.sleep(0.001)
    answer.close()
    await asyncio.wait_for(gone.wait(), 5)
    with pytest.raises(AnswerCut):
        await answer.read()
