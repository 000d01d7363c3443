from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.http import AnswerCut, AnswerTooLarge, BadAnswer, ConnectFailed, ResetBeforeAnswer, UnsafeRequest

from .conftest import Client, RawServer, Serve

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_request_sends_what_it_was_given_and_returns_what_came(client: Client, serve: Serve) -> None:
    server = await serve.answers(b"HTTP/1.1 201 Made\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 2\r\n\r\nok")
    answer = await client.ask(server.origin, target=b"/v1/a?b=%20c", headers=[(b"X-Key", b"k")], body=b'{"a":1}')
    assert (answer.status, answer.reason, answer.http_version) == (201, b"Made", "1.1")
    assert answer.headers == [(b"X-A", b"1"), (b"x-a", b"2"), (b"Content-Length", b"2")]
    assert answer.complete_body == b"ok"
    assert not answer.at_eof
    assert await answer.read() == b"ok"
    assert answer.at_eof
    assert await answer.read() == b""
    host = server.origin.host_header
    assert server.heads == [
        b"POST /v1/a?b=%20c HTTP/1.1\r\nHost: " + host + b"\r\nX-Key: k\r\nContent-Length: 7\r\n\r\n"
    ]
    assert server.bodies == [b'{"a":1}']


async def test_connection_is_reused_when_the_answer_ended(client: Client, serve: Serve) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    no_content = b"HTTP/1.1 204 No Content\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
    server = await serve.answers(OK, chunked, no_content, head, OK)
    for method, body in (("POST", b"ok"), ("POST", b"ok"), ("POST", b""), ("HEAD", b""), ("POST", b"ok")):
        answer = await client.ask(server.origin, method=method)
        assert await answer.read_all(10) == body
    assert server.connections == 1
    assert client.connections(server.origin) == (1, 1)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        OK + b"HTT",
    ],
)
async def test_connection_is_not_reused_when_it_cannot_be_trusted(client: Client, serve: Serve, answer: bytes) -> None:
    server = await serve.answers(answer, OK)
    assert await (await client.ask(server.origin)).read_all(10) == b"ok"
    assert await (await client.ask(server.origin)).read_all(10) == b"ok"
    assert server.connections == 2


async def test_idle_connection_is_closed_when_the_upstream_speaks_unasked(client: Client, serve: Serve) -> None:
    noticed = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(OK)
        await asyncio.sleep(0.01)  # so that the two are two reads: the connection is idle in between
        writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\n\r\nevil")
        assert await reader.read() == b""
        noticed.set()

    server = await serve(talk)
    assert await (await client.ask(server.origin)).read_all(10) == b"ok"
    await asyncio.wait_for(noticed.wait(), 5)
    assert client.connections(server.origin) == (0, 0)


async def test_interim_answers_are_skipped(client: Client, serve: Serve) -> None:
    server = await serve.answers(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)
    answer = await client.ask(server.origin)
    assert (answer.status, answer.headers) == (200, [(b"Content-Length", b"2")])


async def test_body_ends_with_the_connection_when_the_answer_has_no_length(client: Client, serve: Serve) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nall of ")
        writer.write(b"it")
        writer.close()

    server = await serve(talk)
    answer = await client.ask(server.origin)
    assert await answer.read_all(100) == b"all of it"
    assert answer.at_eof
    assert client.connections(server.origin) == (0, 0)


async def test_trailers_are_there_when_the_body_ended(client: Client, serve: Serve) -> None:
    server = await serve.answers(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nok\r\n0\r\nX-T: 7\r\n\r\n"
    )
    answer = await client.ask(server.origin)
    assert await answer.read_all(10) == b"ok"
    assert answer.trailers == [(b"X-T", b"7")]


async def test_body_is_not_decompressed(client: Client, serve: Serve) -> None:
    server = await serve.answers(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b")
    assert await (await client.ask(server.origin)).read_all(10) == b"\x1f\x8b"


async def test_stream_is_read_event_by_event_as_it_arrives(client: Client, serve: Serve) -> None:
    step = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in (b"data: 1\n\n", b"data: 2\n\n"):
            await step.wait()
            step.clear()
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        await step.wait()
        writer.write(b"0\r\n\r\n")
        await reader.read()

    server = await serve(talk)
    answer = await client.ask(server.origin)
    assert answer.complete_body is None
    for expected in (b"data: 1\n\n", b"data: 2\n\n", b""):
        step.set()
        assert await answer.read() == expected
    assert client.connections(server.origin) == (1, 1)


# The keep-alive race.


def _closing_server(first: bytes) -> tuple[Callable[..., object], list[RawServer]]:
    """Answers once on the first connection, then reads one more request there and hangs up after saying `first`."""
    box: list[RawServer] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = box[0]
        is_first = server.connections == 1
        while True:
            await server.read_request(reader)
            if is_first and len(server.heads) == 2:
                writer.write(first)
                writer.close()
                return
            writer.write(OK)

    return talk, box


async def test_request_is_sent_again_once_when_a_reused_connection_was_closed(client: Client, serve: Serve) -> None:
    talk, box = _closing_server(b"")
    box.append(await serve(talk))  # type: ignore[arg-type]
    for _ in range(2):
        assert await (await client.ask(box[0].origin, body=b"same")).read_all(10) == b"ok"
    assert (box[0].connections, box[0].bodies) == (2, [b"same"] * 3)


async def test_large_request_is_sent_again_when_a_reused_connection_was_reset(client: Client, serve: Serve) -> None:
    body = b"x" * 5_000_000

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if server.connections == 1:
            await server.read_request(reader)
            writer.write(OK)
            await reader.readuntil(b"\r\n\r\n")  # and no more: closing with bytes unread resets
            return
        await server.read_request(reader)
        writer.write(OK)
        await reader.read()

    server = await serve(talk)
    for _ in range(2):
        assert await (await client.ask(server.origin, body=body)).read_all(10) == b"ok"
    assert (server.connections, server.bodies) == (2, [body, body])


async def test_request_is_not_sent_again_when_a_byte_of_the_answer_came(client: Client, serve: Serve) -> None:
    talk, box = _closing_server(b"HTTP/1.1 2")
    box.append(await serve(talk))  # type: ignore[arg-type]
    assert await (await client.ask(box[0].origin)).read_all(10) == b"ok"
    with pytest.raises(ResetBeforeAnswer) as caught:
        await client.ask(box[0].origin)
    assert not caught.value.nothing_sent
    assert box[0].connections == 1


async def test_request_is_not_sent_again_when_its_body_cannot_be_read_twice(client: Client, serve: Serve) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"once"

    talk, box = _closing_server(b"")
    box.append(await serve(talk))  # type: ignore[arg-type]
    assert await (await client.ask(box[0].origin)).read_all(10) == b"ok"
    with pytest.raises(ResetBeforeAnswer):
        await client.ask(box[0].origin, body=pieces())
    assert box[0].connections == 1


async def test_request_is_not_sent_again_when_the_connection_was_new(client: Client, serve: Serve) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)

    server = await serve(talk)
    with pytest.raises(ResetBeforeAnswer, match=r"closed by the peer|lost") as caught:
        await client.ask(server.origin)
    assert caught.value.silent
    assert server.connections == 1
    assert client.connections(server.origin) == (0, 0)


async def test_request_is_sent_twice_at_most(client: Client, serve: Serve) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        if len(server.heads) == 1:
            writer.write(OK)
            await server.read_request(reader)

    server = await serve(talk)
    assert await (await client.ask(server.origin)).read_all(10) == b"ok"
    with pytest.raises(ResetBeforeAnswer):
        await client.ask(server.origin)
    assert len(server.heads) == 3


async def test_raced_request_is_not_called_unsent_when_the_upstream_is_gone_afterwards(
    client: Client, serve: Serve
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(OK)
        await server.read_request(reader)
        listening.close()

    server = RawServer(talk)
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.origin = server.origin._replace(port=listening.sockets[0].getsockname()[1])
    assert await (await client.ask(server.origin)).read_all(10) == b"ok"
    with pytest.raises(ResetBeforeAnswer, match="and then: cannot connect") as caught:
        await client.ask(server.origin)
    assert not caught.value.nothing_sent


# Failures.


async def test_answer_is_cut_when_the_connection_ends_early(client: Client, serve: Serve) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")
        await writer.drain()
        writer.close()

    server = await serve(talk)
    answer = await client.ask(server.origin)
    assert await answer.read() == b"part"
    for _ in range(2):
        with pytest.raises(AnswerCut):
            await answer.read()
    assert not answer.at_eof
    assert answer.complete_body is None


async def test_chunked_answer_is_cut_when_its_last_chunk_is_missing(client: Client, serve: Serve) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n")
        await writer.drain()
        writer.close()

    server = await serve(talk)
    answer = await client.ask(server.origin)
    with pytest.raises(AnswerCut):
        await answer.read_all(100)


async def test_garbage_is_a_bad_answer_and_closes(client: Client, serve: Serve) -> None:
    server = await serve.answers(b"220 smtp.test ESMTP\r\n")
    with pytest.raises(BadAnswer):
        await client.ask(server.origin)
    await asyncio.sleep(0)
    assert client.connections(server.origin) == (0, 0)


async def test_garbage_in_the_body_is_a_bad_answer_after_what_was_good(client: Client, serve: Serve) -> None:
    server = await serve.answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")

    answer = await client.ask(server.origin)
    assert await answer.read() == b"ok"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await second.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n")
        await reader.read()

    second = await serve(talk)
    with pytest.raises(BadAnswer):
        await (await client.ask(second.origin)).read_all(10)
    answer.close()


async def test_unsafe_request_is_refused_before_anything_is_sent(client: Client, serve: Serve) -> None:
    server = await serve()
    with pytest.raises(UnsafeRequest) as caught:
        await client.ask(server.origin, headers=[(b"X", b"a\r\nContent-Length: 0\r\n\r\nGET /evil HTTP/1.1")])
    assert caught.value.nothing_sent
    assert server.connections == 0


async def test_read_all_refuses_and_closes_when_the_body_is_too_large(client: Client, serve: Serve) -> None:
    server = await serve.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"a" * 50)
    answer = await client.ask(server.origin)
    with pytest.raises(AnswerTooLarge, match="49 bytes"):
        await answer.read_all(49)
    await asyncio.sleep(0)
    assert client.connections(server.origin) == (0, 0)


async def test_close_gives_up_the_connection_when_the_body_is_unread(client: Client, serve: Serve) -> None:
    gone = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")
        assert await reader.read() == b""
        gone.set()

    server = await serve(talk)
    answer = await client.ask(server.origin)
    answer.close()
    answer.close()
    await asyncio.wait_for(gone.wait(), 5)
    assert client.connections(server.origin) == (0, 0)
    with pytest.raises(AnswerCut, match="closed before its end"):
        await answer.read()


async def test_close_keeps_the_connection_when_the_body_has_ended(client: Client, serve: Serve) -> None:
    server = await serve.answers(OK)
    answer = await client.ask(server.origin)
    answer.close()
    assert client.connections(server.origin) == (1, 1)


async def test_connection_is_closed_when_the_request_is_cancelled(client: Client, serve: Serve) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        asked.set()
        assert await reader.read() == b""
        gone.set()

    server = await serve(talk)
    request = asyncio.ensure_future(client.ask(server.origin))
    await asked.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    await asyncio.wait_for(gone.wait(), 5)
    assert client.connections(server.origin) == (0, 0)


async def test_cancelled_read_loses_nothing(client: Client, serve: Serve) -> None:
    step = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        await step.wait()
        writer.write(b"ok")
        await reader.read()

    server = await serve(talk)
    answer = await client.ask(server.origin)
    reading = asyncio.ensure_future(answer.read())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task"):
        await answer.read()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    step.set()
    assert await answer.read_all(10) == b"ok"


async def test_closed_client_refuses_and_cuts_what_is_under_way(
    new_client: Callable[..., Client], serve: Serve
) -> None:
    client = new_client()
    server = await serve.answers(OK, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
    await (await client.ask(server.origin)).read_all(10)
    answer = await client.ask(server.origin)
    await client.close()
    assert await answer.read() == b"part"
    with pytest.raises(AnswerCut):
        await answer.read()
    with pytest.raises(ConnectFailed, match="closed"):
        await client.ask(server.origin)


async def test_client_leaks_no_descriptor_when_requests_end_in_every_way(client: Client, serve: Serve) -> None:
    async def descriptors() -> int:
        return len(await asyncio.to_thread(os.listdir, "/proc/self/fd"))

    endings = (OK, b"junk\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart", b"")

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await server.read_request(reader)
            ending = endings[len(server.heads) % len(endings)]
            writer.write(ending)
            if not ending:
                return

    server = await serve(talk)
    before = await descriptors()

    async def one(number: int) -> None:
        try:
            async with asyncio.timeout(0.001 * (number % 30) if number % 3 == 0 else 5):
                answer = await client.ask(server.origin)
                if number % 2:
                    answer.close()
                else:
                    await answer.read()
                    answer.close()
        except (TimeoutError, BadAnswer, ResetBeforeAnswer, AnswerCut):
            pass

    await asyncio.gather(*(one(number) for number in range(200)))
    await client.close()
    for task in tuple(server.tasks):
        task.cancel()
    async with asyncio.timeout(5):
        while await descriptors() > before or server.tasks:
            await asyncio.sleep(0.005)
