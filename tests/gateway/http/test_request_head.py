from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http import UnsafeRequest
from gateway.http.request_head import encode_request_head


def encode(**changes: Any) -> bytes:
    wanted: dict[str, Any] = {"method": "POST", "target": b"/v1", "headers": [], "host": b"up.test", "body": b"{}"}
    return encode_request_head(**(wanted | changes))


async def _pieces() -> AsyncIterator[bytes]:
    yield b"x"


def test_head_keeps_headers_order_case_and_duplicates() -> None:
    head = encode(headers=[(b"X-B", b"1"), (b"x-a", b"2"), (b"X-B", b"3")])
    assert head == b"POST /v1 HTTP/1.1\r\nHost: up.test\r\nX-B: 1\r\nx-a: 2\r\nX-B: 3\r\nContent-Length: 2\r\n\r\n"


def test_head_keeps_callers_host_when_given() -> None:
    assert encode(headers=[(b"host", b"other")]).count(b"ost: ") == 1


def test_head_refuses_two_hosts() -> None:
    with pytest.raises(UnsafeRequest, match="Host"):
        encode(headers=[(b"Host", b"a"), (b"host", b"b")])


@pytest.mark.parametrize(
    "name",
    [b"Connection", b"content-length", b"Transfer-Encoding", b"TE", b"Upgrade", b"Expect", b"Keep-Alive", b"Trailer"],
)
def test_head_leaves_out_framing_and_connection_headers_of_the_caller(name: bytes) -> None:
    assert encode(headers=[(name, b"99")]) == encode()


def test_head_frames_the_body_by_what_it_is() -> None:
    assert b"Content-Length: 3\r\n" in encode(body=b"abc", method="DELETE")
    assert b"Content-Length: 0\r\n" in encode(body=None)
    assert b"Content-Length" not in encode(body=None, method="GET")
    chunked = encode(body=_pieces())
    assert b"Transfer-Encoding: chunked\r\n" in chunked
    assert b"Content-Length" not in chunked


def test_head_is_absolute_form_when_via_proxy() -> None:
    head = encode(via_proxy=b"http://up.test:81", proxy_headers=[(b"Proxy-Authorization", b"Basic x")])
    assert head.startswith(b"POST http://up.test:81/v1 HTTP/1.1\r\n")
    assert b"\r\nProxy-Authorization: Basic x\r\n" in head


@pytest.mark.parametrize("mark", [b"\r", b"\n", b"\0", b"\r\nX-Evil: 1", b"\r\n\r\nGET / HTTP/1.1"])
def test_head_refuses_line_breaks_and_nul_in_a_value(mark: bytes) -> None:
    with pytest.raises(UnsafeRequest, match="'X-Name'"):
        encode(headers=[(b"X-Name", b"a" + mark + b"b")])


@pytest.mark.parametrize("name", [b"", b"X Y", b"X:Y", b"X\r\nY", b"X\0", "É".encode(), b"X\t"])
def test_head_refuses_what_is_no_header_name(name: bytes) -> None:
    with pytest.raises(UnsafeRequest, match="header name"):
        encode(headers=[(name, b"v")])


@pytest.mark.parametrize("target", [b"", b"x", b"@evil.test/", b"/a b", b"/a\r\nX: 1", b"/\0", b"http://evil.test/"])
def test_head_refuses_unsafe_targets(target: bytes) -> None:
    with pytest.raises(UnsafeRequest, match="target"):
        encode(target=target)


@pytest.mark.parametrize("method", ["", "GE T", "GET\r\n", "CONNECT", "GÉT"])
def test_head_refuses_unsafe_methods(method: str) -> None:
    with pytest.raises(UnsafeRequest, match="method"):
        encode(method=method)


@given(
    headers=st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=12)), max_size=4),
    target=st.binary(max_size=10),
)
def test_head_is_one_request_whatever_the_caller_sends(headers: list[tuple[bytes, bytes]], target: bytes) -> None:
    try:
        head = encode(headers=headers, target=b"/" + target)
    except UnsafeRequest:
        return
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    kept = [line.partition(b": ")[0] for line in lines[1:]]
    given_names = {name for name, _ in headers}
    assert all(name in given_names or name in (b"Host", b"Content-Length") for name in kept)
    assert b"" not in lines
    assert not any(mark in line for line in lines for mark in (b"\r", b"\n", b"\0"))
