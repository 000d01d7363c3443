"""Heads the lane reads by itself mean the same to aiohttp's parser; everything else is left to that."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.lane.request_head import read_head

PLAIN = b"POST /v1/chat/completions?a=b HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\nX-Odd: caf\xc3\xa9 \r\n\r\n"


def test_a_plain_head_is_read() -> None:
    head = read_head(PLAIN)
    assert head is not None
    assert (head.path, head.query, head.length, head.keeps_alive) == ("/v1/chat/completions", "?a=b", 5, True)
    assert head.raw_headers == [(b"Host", b"here"), (b"Content-Length", b"5"), (b"X-Odd", b"caf\xc3\xa9")]
    assert head.headers.get("x-odd") == "café"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"POST", b"GET"),
        (b"POST", b"post"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"/v1/chat", b"http://evil/v1/chat"),
        (b"/v1/chat", b"/v1/%63hat"),
        (b"?a=b", b"?a=#b"),
        (b"?a=b", b"?a=\x7f"),
        (b"Host: here", b"Host : here"),
        (b"Host: here", b"Host: here\r\n folded"),
        (b"Host: here", b"Host: here\nX: y"),
        (b"Host: here", b"Host: he\rre"),
        (b"Host: here", b"Host: he\0re"),
        (b"Host: here", b"Host: here\r\nHost: there"),
        (b"Host: here\r\n", b""),
        (b"Content-Length: 5\r\n", b""),
        (b"Content-Length: 5", b"Content-Length: +5"),
        (b"Content-Length: 5", b"Content-Length: 5, 5"),
        (b"Content-Length: 5", b"Content-Length: 5\r\ncontent-length: 5"),
        (b"Content-Length: 5", b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
        (b"Content-Length: 5", b"Content-Length: 5\r\nContent-Encoding: gzip"),
        (b"Content-Length: 5", b"Content-Length: 5\r\nExpect: 100-continue"),
        (b"Content-Length: 5", b"Content-Length: 5\r\nConnection: upgrade, keep-alive"),
        (b"Content-Length: 5", b"Content-Length: 5\r\nUpgrade: websocket"),
    ],
)
def test_an_unusual_head_is_left_to_aiohttp(old: bytes, new: bytes) -> None:
    assert read_head(PLAIN.replace(old, new, 1)) is None


TOKENS = st.sampled_from(
    b"POST |/v1|?k=v| |HTTP/1.1|\r\n|\n|\r|:|: |Host: a|x|\t|Content-Length: 3|Content-Length|Connection: close"
    b'|connection: keep-alive|X-Y: z|\0|Transfer-Encoding: chunked|\xff|3|,|;|%2e|#|\\|"'.split(b"|")
)


class _Protocol(asyncio.Protocol):
    """What aiohttp's parser wants of its server."""

    _reading_paused = False

    def pause_reading(self) -> None: ...

    def resume_reading(self, **_: Any) -> None: ...


@given(st.lists(TOKENS, max_size=24).map(b"".join), st.integers(0, len(PLAIN)), st.integers(0, 12))
@example(b"", 0, 0)
def test_a_head_that_is_read_here_means_the_same_to_aiohttp(inserted: bytes, at: int, gone: int) -> None:
    head = PLAIN[:at] + inserted + PLAIN[at + gone :]
    end = head.find(b"\r\n\r\n") + 4
    ours = read_head(head[:end])
    if ours is None:
        return
    loop = asyncio.new_event_loop()
    try:
        parser: Any = HttpRequestParser(_Protocol(), loop, 2**16, max_line_size=8190, max_field_size=8190)  # type: ignore[arg-type]
        try:
            messages, _, _ = parser.feed_data(head[:end] + b"x" * ours.length)
        except HttpProcessingError as error:
            raise AssertionError(f"aiohttp refuses what the lane takes: {head!r}") from error
    finally:
        loop.close()
    ((message, _),) = messages
    assert (message.method, message.version) == ("POST", (1, 1))
    assert (message.url.path, message.path) == (ours.path, ours.path + ours.query)
    assert [(name, value) for name, value in message.raw_headers] == ours.raw_headers
    assert list(message.headers.items()) == list(ours.headers.items())
    assert message.should_close is not ours.keeps_alive
    assert not message.chunked
    assert not message.upgrade
