"""A request's head as most clients send it; whatever is not that plain is somebody else's to read."""

from __future__ import annotations

import re
from typing import NamedTuple

from multidict import CIMultiDict

from gateway.forwarded_headers import Headers

MAX_HEAD_BYTES = 16 * 1024

# RFC 9112, without what two readers could read differently: white space before a colon, folded lines, bare CR or LF,
# control characters, absolute targets; and without escapes in the path. Each piece ends where the next begins, so that
# it is matched in one pass.
_PLAIN_HEAD = re.compile(
    rb"POST (/[A-Za-z0-9\-._~:@!$&'()*+,;=/]*)(\?[!\"$-~]*)? HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r\n)+)\r\n"
)
_HEADER = re.compile(rb"([^:\r\n]+):[\t ]*([^\r]*)\r\n")
_PLAIN_LENGTH = re.compile(rb"[0-9]{1,15}")
_UNUSUAL = frozenset({b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"trailer"})
"""Headers that change how a request is read: aiohttp's server knows about each."""

_MAX_REMEMBERED_NAMES = 2048
_names: dict[bytes, tuple[str, bytes]] = {}


class RequestHead(NamedTuple):
    """The head of a POST in HTTP/1.1 with a length. `query` begins with its question mark."""

    path: str
    query: str
    headers: CIMultiDict[str]
    raw_headers: Headers
    length: int
    keeps_alive: bool


def read_head(head: bytes) -> RequestHead | None:
    """Read the bytes up to and including the empty line; None where they are not a plain POST with a length."""
    found = _PLAIN_HEAD.fullmatch(head)
    if found is None:
        return None
    length, hosts, keeps_alive = -1, 0, True
    raw_headers: Headers = []
    pairs: list[tuple[str, str]] = []
    for name, value in _HEADER.findall(found[3]):
        known = _names.get(name)
        if known is None:
            known = _remembered(name)
        text, lowered = known
        value = value.rstrip(b" \t")
        if lowered in _UNUSUAL:
            return None
        if lowered == b"content-length":
            if length >= 0 or _PLAIN_LENGTH.fullmatch(value) is None:
                return None
            length = int(value)
        elif lowered == b"host":
            hosts += 1
        elif lowered == b"connection":
            options = value.lower()
            if options == b"close":
                keeps_alive = False
            elif options != b"keep-alive":
                return None
        raw_headers.append((name, value))
        pairs.append((text, value.decode("utf-8", "surrogateescape")))
    if length < 0 or hosts != 1:
        return None
    path = found[1].decode("ascii")
    query = found[2].decode("ascii") if found[2] else ""
    return RequestHead(path, query, CIMultiDict(pairs), raw_headers, length, keeps_alive)


def _remembered(name: bytes) -> tuple[str, bytes]:
    known = (name.decode("ascii"), name.lower())
    if len(_names) < _MAX_REMEMBERED_NAMES:
        _names[name] = known
    return known
