"""An answer to a forwarded request as it goes back to the caller, whichever server writes it."""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import formatdate
from functools import cache, lru_cache
from http import HTTPStatus
from typing import NamedTuple

from aiohttp import web
from multidict import CIMultiDict

from gateway.forwarded_headers import Headers, find


class Reply(NamedTuple):
    """A whole answer. `reason` b"" stands for the status's usual words."""

    status: int
    reason: bytes
    headers: Headers
    body: bytes


class UnsafeReply(Exception):
    """A header's value would have begun another line of the head."""


def encode_pairs(pairs: Iterable[tuple[str, str]]) -> Headers:
    """Headers of our own as they go out."""
    return [(name.encode("latin-1"), value.encode("utf-8", "surrogateescape")) for name, value in pairs]


def decode_pairs(headers: Headers) -> CIMultiDict[str]:
    """Headers as aiohttp takes them: UTF-8 as it writes them itself, a lone odd byte is read as Latin-1 (RFC 9110
    section 5.5)."""
    return CIMultiDict((name.decode("latin-1"), _decode(value)) for name, value in headers)


def encode_reply_head(status: int, reason: bytes, headers: Headers, *, framing: bytes) -> bytes:
    """The head up to and including the empty line; `framing` is whole header lines, each with its line end.

    Raises `UnsafeReply`.
    """
    if not reason:
        reason = _usual_reason(status)
    lines = [b"HTTP/1.1 %d %b" % (status, reason)]
    lines += [name + b": " + value for name, value in headers]
    head = b"\r\n".join(lines)
    # Every line break must be one of ours: three scans of the whole instead of one look at every value.
    breaks = len(lines) - 1
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
        raise UnsafeReply("a header of the answer holds a line break or a NUL")
    return b"%b\r\n%b\r\n" % (head, framing)


def encode_reply(reply: Reply, *, keeps_alive: bool, now: float) -> bytes:
    """A whole answer as HTTP/1.1 to a request that was no HEAD; `now` dates it. Raises `UnsafeReply`."""
    framing = b"Content-Length: %d\r\n" % len(reply.body) if has_body(reply.status) else b""
    if find(reply.headers, b"date") is None:
        framing += b"Date: %b\r\n" % _date(int(now))
    if not keeps_alive:
        framing += b"Connection: close\r\n"
    return encode_reply_head(reply.status, reply.reason, reply.headers, framing=framing) + reply.body


def has_body(status: int) -> bool:
    """Whether an answer of this status has a body at all (RFC 9110 section 6.4.1)."""
    return status >= 200 and status not in (204, 304)


def as_response(reply: Reply) -> web.Response:
    """The same for aiohttp's server."""
    return web.Response(
        status=reply.status,
        reason=reply.reason.decode("latin-1") or None,
        headers=decode_pairs(reply.headers),
        body=reply.body,
    )


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


@cache
def _usual_reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unknown"


def _decode(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
