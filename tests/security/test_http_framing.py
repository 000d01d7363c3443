"""Requests that two readers could understand differently: none of them reaches an upstream, none costs anything."""

from __future__ import annotations

import json

import pytest

from tests.conftest import KEY, config_for
from tests.fakes import FakeUpstream
from tests.security.conftest import CHAT, Serve, Served, post

BODY = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}).encode()
AUTHORIZED = b"Host: gateway\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n"
LINE = b"POST " + CHAT.encode() + b" HTTP/1.1\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
WHOLE_CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
WITH_LENGTH = LENGTH + b"\r\n" + BODY
ONE_CHUNK = b"\r\n%s\r\n0\r\n\r\n" % BODY


def coded(value: bytes) -> bytes:
    return LINE + AUTHORIZED + b"Transfer-Encoding" + value + b"\r\n\r\n" + WHOLE_CHUNKS


def long(value: bytes) -> bytes:
    return LINE + AUTHORIZED + b"Content-Length: " + value + b"\r\n\r\n" + BODY


def chunks(size: bytes, rest: bytes = ONE_CHUNK) -> bytes:
    return LINE + AUTHORIZED + CHUNKED + b"\r\n" + size + rest


def headed(line: bytes) -> bytes:
    return LINE + AUTHORIZED + line + b"\r\n" + WITH_LENGTH


CASES = {
    "length-and-chunked": LINE + AUTHORIZED + LENGTH + CHUNKED + b"\r\n" + WHOLE_CHUNKS,
    "chunked-and-length": LINE + AUTHORIZED + CHUNKED + LENGTH + b"\r\n" + WHOLE_CHUNKS,
    "two-lengths": LINE + AUTHORIZED + LENGTH + b"Content-Length: 1\r\n\r\n" + BODY,
    "same-length-twice": LINE + AUTHORIZED + LENGTH + LENGTH + b"\r\n" + BODY,
    "length-list": long(b"%d, %d" % (len(BODY), len(BODY))),
    "length-plus": long(b"+%d" % len(BODY)),
    "length-negative": long(b"-1"),
    "length-hex": long(b"0x%x" % len(BODY)),
    "length-underscore": long(b"8_5"),
    "length-overflow": long(b"9" * 30),
    "length-empty": long(b""),
    "xchunked": coded(b": xchunked"),
    "coding-space-before-colon": coded(b" : chunked"),
    "coding-tab-before-colon": coded(b"\t: chunked"),
    "coding-folded": coded(b":\r\n chunked"),
    "coding-vertical-tab": coded(b": \x0bchunked"),
    "coding-quoted": coded(b': "chunked"'),
    "coding-nul": coded(b": chunked\0"),
    "coding-twice": coded(b": chunked\r\nTransfer-Encoding: chunked"),
    "coding-hidden": coded(b": chunked\r\nTransfer-Encoding: x"),
    "coding-gzip": coded(b": gzip, chunked"),
    "coding-chunked-not-last": coded(b": chunked, identity"),
    "coding-identity": LINE + AUTHORIZED + b"Transfer-Encoding: identity\r\n" + WITH_LENGTH,
    "coding-in-http-1.0": LINE.replace(b"1.1", b"1.0") + AUTHORIZED + CHUNKED + b"\r\n" + WHOLE_CHUNKS,
    "chunk-size-text": chunks(b"zz"),
    "chunk-size-negative": chunks(b"-5"),
    "chunk-size-plus": chunks(b"+55"),
    "chunk-size-0x": chunks(b"0x55"),
    "chunk-size-space": chunks(b"55 "),
    "chunk-size-overflow": chunks(b"f" * 40),
    "chunk-bare-lf": chunks(b"55", b"\n" + ONE_CHUNK[2:]),
    "chunk-extension-lf": chunks(b"55;a\nb"),
    "chunk-without-end": chunks(b"55", b"\r\n" + BODY + b"XX0\r\n\r\n"),
    "folded-line": headed(b"X-A: 1\r\n folded"),
    "folded-first-line": LINE + b" X-A: 1\r\n" + AUTHORIZED + WITH_LENGTH,
    "nul": headed(b"X-A: 1\x002"),
    "nul-in-name": headed(b"X\0A: 1"),
    "bare-cr": headed(b"X-A: 1\r2"),
    "bare-lf": headed(b"X-A: 1\nX-B: 2"),
    "only-lf": (LINE + AUTHORIZED + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + BODY,
    "space-in-name": headed(b"X A: 1"),
    "space-before-colon": headed(b"X-A : 1"),
    "empty-name": headed(b": 1"),
    "no-colon": headed(b"X-A"),
    "two-hosts": headed(b"Host: other"),
    "no-host": LINE + AUTHORIZED.partition(b"\r\n")[2] + WITH_LENGTH,
    "huge-header": headed(b"X-A: " + b"a" * 100_000),
    "many-headers": headed(b"\r\n".join(b"X-%d: 1" % each for each in range(5000))),
    "huge-line": b"POST /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + AUTHORIZED + WITH_LENGTH,
    "method-in-lower-case": LINE.lower() + AUTHORIZED + WITH_LENGTH,
    "tabs-in-line": LINE.replace(b" ", b"\t") + AUTHORIZED + WITH_LENGTH,
    "space-in-target": LINE.replace(b"completions", b"completions x") + AUTHORIZED + WITH_LENGTH,
    "no-such-version": LINE.replace(b"1.1", b"1.2") + AUTHORIZED + WITH_LENGTH,
    "version-and-more": LINE.replace(b"1.1", b"1.1x") + AUTHORIZED + WITH_LENGTH,
    "http-2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + BODY,
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "credential-in-trailers": (
        LINE + b"Host: gateway\r\n" + CHUNKED + b"\r\n" + WHOLE_CHUNKS[:-2] + AUTHORIZED.partition(b"\r\n")[2] + b"\r\n"
    ),
}


@pytest.fixture
async def gateway(serve: Serve, upstream: FakeUpstream) -> Served:
    # No case is left hanging where it waits for more: what still lacks an end is cut off.
    config = config_for(upstreams=[{"name": "up", "url": upstream.url}])
    return await serve(config, header_timeout="2s", body_timeout="2s", keepalive_timeout="2s")


@pytest.mark.parametrize("sent", CASES.values(), ids=CASES)
async def test_ambiguous_framing_goes_nowhere(gateway: Served, upstream: FakeUpstream, sent: bytes) -> None:
    answer = (await gateway.send(sent)).partition(b"\r\n")[0]
    assert answer == b"" or answer.split(b" ")[1] in (b"400", b"401", b"408", b"501"), answer
    assert upstream.requests == []
    counters = await gateway.runtime.engine.store.counters()
    assert [row for row in counters if row.used] == []
    assert (await gateway.send(post(BODY))).startswith(b"HTTP/1.1 200 ")


async def test_an_underscored_credential_header_admits_nobody(gateway: Served, upstream: FakeUpstream) -> None:
    sent = post(BODY, key=None, headers=b"x_api_key: " + KEY.encode() + b"\r\n")
    assert (await gateway.send(sent)).startswith(b"HTTP/1.1 401 ")
    assert upstream.requests == []


@pytest.mark.parametrize("key", [None, KEY])
async def test_a_refused_request_s_body_is_never_read_as_the_next_request(
    gateway: Served, upstream: FakeUpstream, key: str | None
) -> None:
    """A front end that believes the first is over must not find an answer to a second that it never sent."""
    inner = post(BODY)
    # Without a key: refused before its body is read. With one: refused for what the body is.
    outer = post(inner, key=key).replace(b"Connection: close\r\n", b"")
    answer = await gateway.send(outer)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert upstream.requests == []


@pytest.mark.parametrize("name", [b"authorization", b"content-length, host", b"content-type", b"x-api-key, close"])
async def test_what_connection_names_takes_nothing_from_what_we_write(
    serve: Serve, upstream: FakeUpstream, name: bytes
) -> None:
    gateway = await serve(config_for(upstreams=[{"name": "up", "url": upstream.url, "api_key": "the-upstreams"}]))
    answer = await gateway.send(post(BODY).replace(b"Connection: close", b"Connection: close, " + name))
    assert answer.startswith(b"HTTP/1.1 200 ")
    (got,) = upstream.requests
    assert got.header("authorization") == "Bearer the-upstreams"
    assert (got.header("content-length"), got.body) == (str(len(BODY)), BODY)
    assert got.header("host") == upstream.url.removeprefix("http://")
    assert got.header("connection") is None


async def test_what_is_no_http_is_neither_cited_nor_logged(
    gateway: Served, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    answer = await gateway.send(LINE + b"Host: x\r\nX-Api-Key: my-own-canary\x01\r\n" + WITH_LENGTH)
    assert answer.startswith(b"HTTP/1.")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_http"
    assert b"canary" not in answer
    assert "bad_http" in caplog.text
    assert "canary" not in caplog.text
    assert "Traceback" not in caplog.text
