"""The corners of HTTP/1.1, through a running gateway: what callers and upstreams may do on the wire."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from tests.conftest import KEY, RunningGateway, StartGateway, config_for
from tests.fakes import Connection, FakeUpstream, Received, Script, chat, chat_events, end, plain, stream
from tests.gateway.http.conftest import Certificates, certificates

__all__ = ["certificates"]  # a fixture: importing it is what makes it one here

PATH = "/v1/chat/completions"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 50}
USED = 12
"""What `chat()` reports: 9 tokens read and 3 written."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture
async def gateway(start_gateway: StartGateway, upstream: FakeUpstream, counter: Any) -> RunningGateway:
    await asyncio.to_thread(counter.warm, ["o200k_base"])
    return await start_gateway(config_for(upstreams=[{"name": "up", "url": upstream.url, "timeout": "10s"}]))


@asynccontextmanager
async def connected(gateway: RunningGateway) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        yield reader, writer
    finally:
        writer.close()


def request(body: Any = None, *, method: str = "POST", path: str = PATH, **headers: str) -> bytes:
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {KEY}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body is not None and "Transfer_Encoding" not in headers:
        lines.append(f"Content-Length: {len(data)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def bare(data: bytes) -> Script:
    """Answer with these very bytes, and keep the connection."""

    async def script(connection: Connection, _: Received) -> None:
        await connection.send(data)

    return script


def chunks(*pieces: bytes, trailers: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailers + b"\r\n"


async def read_answer(reader: asyncio.StreamReader, *, head: bool = False) -> Answer:
    async with asyncio.timeout(5):
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split(" ")[1])
        body = b""
        if head or status in (204, 304):
            pass
        elif headers.get("transfer-encoding") == "chunked":
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
        else:
            body = await reader.readexactly(int(headers["content-length"]))
        return Answer(status, headers, body)


async def settled(gateway: RunningGateway) -> int:
    """What the budget has used once nothing is held any more."""
    for _ in range(500):
        budget = await gateway.budget()
        if not budget["held"]:
            return int(budget["used"])
        await asyncio.sleep(0.01)
    raise AssertionError(f"a hold is left: {budget}")


async def test_pipelined_requests_are_answered_in_order(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    upstream.enqueue(*(plain(chat(f"answer {number}")) for number in range(3)))
    async with connected(gateway) as (reader, writer):
        writer.write(request(CHAT) * 3)
        answers = [await read_answer(reader) for _ in range(3)]
    contents = [json.loads(answer.body)["choices"][0]["message"]["content"] for answer in answers]
    assert contents == ["answer 0", "answer 1", "answer 2"]
    assert await settled(gateway) == 3 * USED


async def test_a_kept_connection_that_the_upstream_closes_costs_no_error(
    gateway: RunningGateway, upstream: FakeUpstream
) -> None:
    """The race of keep-alive: the upstream closes an idle connection just as the next request goes out on it."""
    upstream.enqueue(plain(chat()), end("close"), plain(chat()))
    for _ in range(2):
        response, _ = await gateway.post(PATH, CHAT)
        assert response.status == 200
    assert len(upstream.requests) == 3
    assert await settled(gateway) == 2 * USED


async def test_an_upstream_that_closes_before_any_answer_is_asked_again_only_once(
    gateway: RunningGateway, upstream: FakeUpstream
) -> None:
    upstream.enqueue(plain(chat()), end("close"), end("close"), plain(chat()))
    await gateway.post(PATH, CHAT)
    response, body = await gateway.post(PATH, CHAT)
    assert response.status == 502
    assert body["error"]["message"]
    assert len(upstream.requests) == 3
    assert await settled(gateway) == USED


async def test_an_answer_before_the_request_was_read_reaches_the_caller(start_gateway: StartGateway) -> None:
    refusal = b'{"error": {"message": "too much"}}'

    async def refuse_unread(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(refusal), refusal))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse_unread, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    gateway = await start_gateway(config_for(upstreams=[{"name": "up", "url": f"http://127.0.0.1:{port}"}]))
    async with server:
        response, body = await gateway.post("/v1/files", io.BytesIO(b"x" * 8_000_000))
    assert response.status == 413
    assert body == refusal
    assert await settled(gateway) == 0


async def test_trailers_of_an_answer_end_it_and_the_connections_live_on(
    gateway: RunningGateway, upstream: FakeUpstream
) -> None:
    events = chat_events("Hi", usage={"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12})

    async def with_trailers(connection: Connection, _: Received) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        await connection.send(head + chunks(*events, trailers=b"X-Checksum: 1\r\n"))

    upstream.enqueue(with_trailers)
    asked = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    async with connected(gateway) as (reader, writer):
        writer.write(request(asked))
        answer = await read_answer(reader)
        writer.write(request(CHAT))
        assert (await read_answer(reader)).status == 200
    assert answer.body == b"".join(events)
    assert "x-checksum" not in answer.headers
    assert await settled(gateway) == 2 * USED


async def test_interim_answers_are_not_taken_for_the_answer(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    body = json.dumps(chat()).encode()
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
    final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    upstream.enqueue(bare(interim + final + body))
    async with connected(gateway) as (reader, writer):
        writer.write(request(CHAT))
        answer = await read_answer(reader)
    assert (answer.status, answer.body) == (200, body)
    assert "link" not in answer.headers
    assert await settled(gateway) == USED


async def test_expect_continue_is_answered_before_the_body_is_sent(
    gateway: RunningGateway, upstream: FakeUpstream
) -> None:
    body = json.dumps(CHAT).encode()
    async with connected(gateway) as (reader, writer):
        writer.write(request(Content_Length=str(len(body)), Expect="100-continue"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await read_answer(reader)).status == 200
    assert upstream.requests[0].header("expect") is None


async def test_head_keeps_the_length_and_sends_no_body(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    upstream.enqueue(bare(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12345\r\n\r\n"))
    async with connected(gateway) as (reader, writer):
        writer.write(request(method="HEAD", path="/v1/files"))
        answer = await read_answer(reader, head=True)
        assert (answer.status, answer.headers["content-length"]) == (200, "12345")
        writer.write(request(CHAT))
        assert (await read_answer(reader)).status == 200
    assert upstream.requests[0].method == "HEAD"


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body_end_at_their_head(
    gateway: RunningGateway, upstream: FakeUpstream, status: int
) -> None:
    upstream.enqueue(bare(f'HTTP/1.1 {status} Nothing\r\nETag: "a"\r\n\r\n'.encode()))
    async with connected(gateway) as (reader, writer):
        writer.write(request(method="GET", path="/v1/files"))
        answer = await read_answer(reader)
        assert (answer.status, answer.headers["etag"]) == (status, '"a"')
        writer.write(request(CHAT))
        assert (await read_answer(reader)).status == 200


async def test_connection_close_is_between_two_neighbours_only(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    upstream.enqueue(plain(chat(), headers=[("Connection", "close")]))
    async with connected(gateway) as (reader, writer):
        writer.write(request(CHAT))
        kept = await read_answer(reader)
        assert "close" not in kept.headers.get("connection", "")
        writer.write(request(CHAT, Connection="close"))
        assert (await read_answer(reader)).headers["connection"] == "close"
        async with asyncio.timeout(5):
            assert await reader.read() == b""
    assert [received.header("connection") for received in upstream.requests] == [None, None]


async def test_headers_named_in_connection_go_no_further(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    upstream.enqueue(plain(chat(), headers=[("Connection", "X-Inner"), ("X-Inner", "1"), ("X-Outer", "2")]))
    async with connected(gateway) as (reader, writer):
        writer.write(request(CHAT, Connection="X-Mine, keep-alive", X_Mine="1", X_Theirs="2"))
        answer = await read_answer(reader)
    assert ("x-inner" in answer.headers, answer.headers["x-outer"]) == (False, "2")
    assert (upstream.requests[0].header("x-mine"), upstream.requests[0].header("x-theirs")) == (None, "2")


async def test_chunks_are_relayed_both_ways(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    upstream.enqueue(plain(chat(), chunked=True))
    body = json.dumps(CHAT).encode()
    async with connected(gateway) as (reader, writer):
        writer.write(request(Transfer_Encoding="chunked"))
        for piece in (body[:7], body[7:30], body[30:]):
            writer.write(b"%x;ext=1\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\nX-Trailer: 1\r\n\r\n")
        answer = await read_answer(reader)
    assert answer.status == 200
    assert json.loads(answer.body) == chat()
    assert upstream.requests[0].json == CHAT
    assert await settled(gateway) == USED


async def test_gzip_is_relayed_as_it_came_and_read_on_the_way(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    packed = gzip.compress(json.dumps(chat()).encode())
    upstream.enqueue(plain(packed, headers=[("Content-Encoding", "gzip")]))
    body = gzip.compress(json.dumps(CHAT).encode())
    async with connected(gateway) as (reader, writer):
        writer.write(request(body, Content_Encoding="gzip", Accept_Encoding="gzip"))
        answer = await read_answer(reader)
    assert (answer.headers["content-encoding"], answer.body) == ("gzip", packed)
    assert upstream.requests[0].json == CHAT
    assert upstream.requests[0].header("accept-encoding") == "gzip"
    assert await settled(gateway) == USED


async def test_a_stream_reaches_the_caller_piece_by_piece(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    seen = asyncio.Event()

    async def wait_for_the_caller(number: int) -> None:
        if number == 1:
            async with asyncio.timeout(5):
                await seen.wait()

    events = chat_events("Hello", usage={"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12})
    upstream.enqueue(stream(*events, between=wait_for_the_caller))
    asked = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    async with connected(gateway) as (reader, writer):
        writer.write(request(asked))
        async with asyncio.timeout(5):
            await reader.readuntil(events[0])
        seen.set()
        async with asyncio.timeout(5):
            await reader.readuntil(b"\r\n0\r\n\r\n")
    assert await settled(gateway) == USED


async def test_an_upstream_with_a_bad_certificate_is_refused(
    start_gateway: StartGateway, certificates: Certificates
) -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(1))

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=certificates.server)
    port = server.sockets[0].getsockname()[1]
    gateway = await start_gateway(config_for(upstreams=[{"name": "up", "url": f"https://127.0.0.1:{port}"}]))
    async with server:
        response, body = await gateway.post(PATH, CHAT)
    assert response.status == 502
    assert "certificate" not in json.dumps(body)  # the log has it
    assert asked == []
    assert await settled(gateway) == 0


async def test_an_upstream_may_have_an_ipv6_address(start_gateway: StartGateway) -> None:
    six = FakeUpstream(host="::1")
    await six.start()
    gateway = await start_gateway(config_for(upstreams=[{"name": "six", "url": six.url}]))
    response, _ = await gateway.post(PATH, CHAT)
    await six.stop()
    assert response.status == 200
    assert six.requests[0].header("host") == f"[::1]:{six.port}"


async def test_a_proxy_from_the_environment_carries_the_requests(
    start_gateway: StartGateway, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", upstream.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    gateway = await start_gateway(config_for(upstreams=[{"name": "far", "url": "http://llm.example:8000/api"}]))
    response, _ = await gateway.post(PATH, CHAT)
    assert response.status == 200
    assert upstream.requests[0].target == f"http://llm.example:8000/api{PATH}"
    assert upstream.requests[0].header("host") == "llm.example:8000"
