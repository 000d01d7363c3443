"""Requests that two readers could understand differently: none of them reaches an upstream, none costs anything."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.conftest import KEY, RunningGateway, StartGateway, config_for
from tests.fakes import FakeUpstream

PATH = "/v1/chat/completions"
BODY = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}).encode()
AUTHORIZED = b"Host: gateway\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n"
LINE = b"POST " + PATH.encode() + b" HTTP/1.1\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
WHOLE_CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)


@pytest.fixture
async def gateway(start_gateway: StartGateway, upstream: FakeUpstream) -> RunningGateway:
    return await start_gateway(config_for(upstreams=[{"name": "up", "url": upstream.url}]))


async def first_line(gateway: RunningGateway, sent: bytes) -> bytes:
    """The status line of the first answer, "" when the connection is closed without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        writer.write(sent)
        async with asyncio.timeout(10):
            return await reader.readline()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        LINE + AUTHORIZED + LENGTH + CHUNKED + b"\r\n" + WHOLE_CHUNKS,
        LINE + AUTHORIZED + LENGTH + b"Content-Length: 1\r\n\r\n" + BODY,
        LINE + AUTHORIZED + b"Content-Length: +%d\r\n\r\n" % len(BODY) + BODY,
        LINE + AUTHORIZED + b"Content-Length: -1\r\n\r\n" + BODY,
        LINE + AUTHORIZED + b"Transfer-Encoding: xchunked\r\n\r\n" + WHOLE_CHUNKS,
        LINE + AUTHORIZED + CHUNKED + b"\r\nzz\r\n" + BODY + b"\r\n0\r\n\r\n",
        LINE + AUTHORIZED + CHUNKED + b"\r\n-5\r\n" + BODY + b"\r\n0\r\n\r\n",
        LINE + AUTHORIZED + b"X-A: 1\r\n folded\r\n" + LENGTH + b"\r\n" + BODY,
        LINE + AUTHORIZED + b"X-A: 1\x002\r\n" + LENGTH + b"\r\n" + BODY,
        LINE + AUTHORIZED + b"X-A: 1\r2\r\n" + LENGTH + b"\r\n" + BODY,
        LINE + AUTHORIZED + b"X A: 1\r\n" + LENGTH + b"\r\n" + BODY,
        LINE + AUTHORIZED + b"X-A : 1\r\n" + LENGTH + b"\r\n" + BODY,
        LINE + AUTHORIZED + b"X-A: " + b"a" * 100_000 + b"\r\n" + LENGTH + b"\r\n" + BODY,
        LINE + AUTHORIZED + b"".join(b"X-%d: 1\r\n" % each for each in range(5000)) + LENGTH + b"\r\n" + BODY,
        b"POST /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + AUTHORIZED + LENGTH + b"\r\n" + BODY,
    ],
    ids=[
        "length-and-chunked", "two-lengths", "length-plus", "length-negative", "xchunked", "chunk-size-text",
        "chunk-size-negative", "folded-line", "nul", "bare-cr", "space-in-name", "space-before-colon",
        "huge-header", "many-headers", "huge-line",
    ],
)  # fmt: skip
async def test_ambiguous_framing_goes_nowhere(gateway: RunningGateway, upstream: FakeUpstream, sent: bytes) -> None:
    answer = await first_line(gateway, sent)
    assert answer == b"" or answer.split(b" ")[1].startswith(b"4"), answer
    assert upstream.requests == []
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (0, 0)
    assert (await gateway.get("/health"))[0].status == 200


async def test_an_underscored_credential_header_admits_nobody(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    sent = LINE + b"Host: gateway\r\nx_api_key: " + KEY.encode() + b"\r\n" + LENGTH + b"\r\n" + BODY
    assert (await first_line(gateway, sent)).split(b" ")[1] == b"401"
    assert upstream.requests == []
