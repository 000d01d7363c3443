"""What a caller is told whom no server protocol answers: no room for its connection, or a head that never ended."""

from __future__ import annotations

from urllib.parse import unquote

from gateway import formats
from gateway.endpoints.answers import error_body
from gateway.errors import GatewayError, RequestTimeout, Unavailable
from gateway.formats.base import retry_headers
from gateway.incoming import tidy

RETRY_AFTER_S = 1.0
"""What a caller is told to wait when there is no room: requests end all the time, so that room is soon there."""

CLOSED = frozenset({"idle_timeout"})
"""Ends of connections that are as they should be."""

FULL = Unavailable(
    "The gateway has no room for another connection (`server.max_connections`). Try again in a moment.",
    code="overloaded",
    retry_after_s=RETRY_AFTER_S,
)
_LATE = RequestTimeout("The head of the request did not arrive in time (`server.header_timeout`).")


def refusal(error: GatewayError, head: bytes) -> bytes:
    """A whole answer to a request of which no more than the first bytes were read, in its API's own shape."""
    method, _, rest = head[:8192].partition(b" ")
    target = rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
    try:
        matched = formats.match(method.decode("latin-1"), tidy(unquote(target))) if target.startswith("/") else None
    except GatewayError:
        matched = None
    if matched is None:
        status, headers, body = error.status, retry_headers(error), error_body(error)
        headers["Content-Type"] = "application/json"
    else:
        status, headers, body = matched[0].render_error(error)
    return _answer(status, headers, body)


def _answer(status: int, headers: dict[str, str], body: bytes) -> bytes:
    reason = {408: "Request Timeout", 503: "Service Unavailable"}.get(status, "Refused")
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


LATE_HEAD = _answer(_LATE.status, {"Content-Type": "application/json", **retry_headers(_LATE)}, error_body(_LATE))
"""The answer to a request whose head did not end: nothing is known of its API."""
