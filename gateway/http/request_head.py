"""The request line and headers as bytes, refused when they could be read as anything but one request."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from enum import IntEnum

from gateway.http.errors import UnsafeRequest

Headers = Sequence[tuple[bytes, bytes]]
Body = bytes | AsyncIterator[bytes] | None

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"/[\x21-\x7e\x80-\xff]*|\*")
_CAN_CARRY_A_BODY = frozenset((b"POST", b"PUT", b"PATCH"))
_MAX_REMEMBERED_NAMES = 2048


class _Name(IntEnum):
    PLAIN = 0
    CONNECTION_OWNED = 1
    HOST = 2


# Framing and connection headers: the client writes its own, so that no header of a caller can contradict them.
# `expect` is among them because the body is sent at once, whatever the answer to it would be.
_CONNECTION_OWNED = frozenset(
    (
        b"connection",
        b"content-length",
        b"expect",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_names: dict[bytes, _Name] = {}
_methods: dict[str, bytes] = {}


def encode_request_head(
    *,
    method: str,
    target: bytes,
    headers: Headers,
    host: bytes,
    body: Body,
    via_proxy: bytes = b"",
    proxy_headers: Headers = (),
) -> bytes:
    """Bytes up to and including the empty line.

    Connection-level and framing headers in `headers` are left out and written anew from `body` (bytes:
    Content-Length, iterator: chunked); `host` stands in when no Host header is given. `via_proxy` is put
    before the target (absolute form). Raises `UnsafeRequest` on a bad method, target or name, on CR, LF
    or NUL anywhere, and on more than one Host.
    """
    verb = _methods.get(method) or _checked_method(method)
    if _TARGET.fullmatch(target) is None:
        raise UnsafeRequest("request target must start with '/' and hold no white space or control characters")
    lines = [b"%b %b%b HTTP/1.1" % (verb, via_proxy, target)]
    hosts = 0
    for name, value in headers:
        kind = _names.get(name)
        if kind is None:
            kind = _classified(name)
        if kind:
            if kind == _Name.CONNECTION_OWNED:
                continue
            hosts += 1
        lines.append(name + b": " + value)
    if hosts > 1:
        raise UnsafeRequest("request has more than one Host header")
    if not hosts:
        lines.insert(1, b"Host: " + host)
    for name, value in proxy_headers:
        lines.append(name + b": " + value)
    if body is None or body == b"":
        if verb in _CAN_CARRY_A_BODY:
            lines.append(b"Content-Length: 0")
    elif isinstance(body, bytes):
        lines.append(b"Content-Length: %d" % len(body))
    else:
        lines.append(b"Transfer-Encoding: chunked")
    head = b"\r\n".join(lines)
    # Every line break must be one of ours: three scans of the whole instead of one look at every value.
    breaks = len(lines) - 1
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
        raise UnsafeRequest(f"header {_first_unsafe(headers)!r} holds a line break or a NUL; it was not sent")
    return head + b"\r\n\r\n"


def _checked_method(method: str) -> bytes:
    try:
        verb = method.encode("ascii")
    except UnicodeEncodeError:
        verb = b""
    if _TOKEN.fullmatch(verb) is None or verb == b"CONNECT":
        raise UnsafeRequest(f"{method!r} is not a method that can be forwarded")
    if len(_methods) < _MAX_REMEMBERED_NAMES:
        _methods[method] = verb
    return verb


def _classified(name: bytes) -> _Name:
    if _TOKEN.fullmatch(name) is None:
        raise UnsafeRequest(f"{name[:64]!r} is not a header name")
    lower = name.lower()
    kind = _Name.CONNECTION_OWNED if lower in _CONNECTION_OWNED else _Name.HOST if lower == b"host" else _Name.PLAIN
    # Names come from callers: remember the usual few, never all of them.
    if len(_names) < _MAX_REMEMBERED_NAMES:
        _names[name] = kind
    return kind


def _first_unsafe(headers: Headers) -> str:
    for name, value in headers:
        if any(mark in value for mark in (b"\r", b"\n", b"\0")):
            return name.decode("ascii")
    return "Host"
