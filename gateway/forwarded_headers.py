"""What of a head travels on: of a caller's to its upstream, and of an upstream's answer back."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from gateway.decoding import decodable

Headers = list[tuple[bytes, bytes]]
"""Names and values as they came: order, case and repeats kept."""

# RFC 9110 section 7.6.1, plus what each side of a proxy writes for itself.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# With these some servers take another path or method for the request's own: it would not be what was counted.
_OVERRIDES = frozenset(
    {b"x-http-method", b"x-http-method-override", b"x-method-override", b"x-original-url", b"x-rewrite-url"}
)
_NOT_FORWARDED = _HOP_BY_HOP | _OVERRIDES | {b"host", b"content-length", b"content-encoding", b"expect"}
_CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"})
_LIMIT_HEADERS = (b"x-ratelimit-", b"anthropic-ratelimit-", b"ratelimit", b"x-tollgate-")

_MAX_REMEMBERED_NAMES = 2048


class _Fate(IntEnum):
    """What becomes of a header, by its name alone."""

    KEPT = 0
    DROPPED = 1
    NAMES_OTHERS = 2
    """``Connection``: dropped, and so is whatever it names."""
    CREDENTIAL = 3
    ENCODINGS = 4
    LENGTH = 5
    LIMIT = 6


# Names come from outside: the usual few are remembered, never all of them.
_request_fates: dict[bytes, _Fate] = {}
_answer_fates: dict[bytes, _Fate] = {}


def request_headers(
    headers: Iterable[tuple[bytes, bytes]], *, exchanges_credential: bool, plain: bool
) -> tuple[Headers, bytes]:
    """The headers to send, and the lower-case name of the header in which the caller's own credential stood (b"" where
    it travels on or there is none).

    `plain` asks for an answer without compression.
    """
    sent: Headers = []
    named: frozenset[bytes] = frozenset()
    accept = own = b""
    for pair in headers:
        fate = _request_fates.get(pair[0])
        if fate is None:
            fate = _request_fate(pair[0])
        if fate:
            if fate is _Fate.CREDENTIAL:
                if exchanges_credential:
                    own = own or pair[0].lower()
                    continue
            else:
                if fate is _Fate.ENCODINGS:
                    accept = pair[1]
                elif fate is _Fate.NAMES_OTHERS:
                    named |= _named_in_connection(pair[1])
                continue
        sent.append(pair)
    if named:
        sent = [pair for pair in sent if pair[0].lower() not in named]
        own = b"" if own in named else own
        accept = b"" if b"accept-encoding" in named else accept
    encodings = "identity" if plain else decodable(accept.decode("latin-1")) if accept else ""
    if encodings:
        sent.append((b"Accept-Encoding", encodings.encode()))
    return sent, own


def answer_headers(headers: Headers, *, drop_length: bool) -> Headers:
    """What of an upstream's head reaches the caller; its own limits move to ``x-upstream-…``."""
    kept: Headers = []
    named: frozenset[bytes] = frozenset()
    for pair in headers:
        fate = _answer_fates.get(pair[0])
        if fate is None:
            fate = _answer_fate(pair[0])
        if fate:
            if fate is _Fate.LIMIT:
                kept.append((b"x-upstream-" + pair[0].lower(), pair[1]))
                continue
            if fate is _Fate.NAMES_OTHERS:
                named |= _named_in_connection(pair[1])
                continue
            if fate is _Fate.DROPPED or drop_length:
                continue
        kept.append(pair)
    if named:
        kept = [pair for pair in kept if pair[0].lower() not in named]
    return kept


def inert(headers: Headers) -> Headers:
    """What keeps a browser from running an answer as a page of this gateway, where the dashboard's session lives; an
    answer of the APIs' own types needs nothing."""
    content_type = find(headers, b"content-type")
    if content_type is not None and content_type.startswith((b"application/json", b"text/event-stream")):
        return []
    return [(b"Content-Security-Policy", b"sandbox"), (b"X-Content-Type-Options", b"nosniff")]


def find(headers: Headers, name: bytes) -> bytes | None:
    """The first value of a header given by its lower-case name, None when absent."""
    length = len(name)
    for key, value in headers:
        if len(key) == length and key.lower() == name:
            return value
    return None


def header(headers: Headers, name: bytes) -> str:
    """The same as text, "" when absent."""
    value = find(headers, name)
    return value.decode("latin-1") if value else ""


def _request_fate(name: bytes) -> _Fate:
    lowered = name.lower()
    if lowered == b"connection":
        fate = _Fate.NAMES_OTHERS
    elif lowered == b"accept-encoding":
        fate = _Fate.ENCODINGS
    elif lowered in _NOT_FORWARDED:
        fate = _Fate.DROPPED
    else:
        fate = _Fate.CREDENTIAL if lowered in _CREDENTIALS else _Fate.KEPT
    if len(_request_fates) < _MAX_REMEMBERED_NAMES:
        _request_fates[name] = fate
    return fate


def _answer_fate(name: bytes) -> _Fate:
    lowered = name.lower()
    if lowered == b"connection":
        fate = _Fate.NAMES_OTHERS
    elif lowered in _HOP_BY_HOP:
        fate = _Fate.DROPPED
    elif lowered == b"content-length":
        fate = _Fate.LENGTH
    else:
        fate = _Fate.LIMIT if lowered.startswith(_LIMIT_HEADERS) else _Fate.KEPT
    if len(_answer_fates) < _MAX_REMEMBERED_NAMES:
        _answer_fates[name] = fate
    return fate


def _named_in_connection(value: bytes) -> frozenset[bytes]:
    return frozenset(part.strip().lower() for part in value.split(b",")) - {b"keep-alive", b"close", b""}
