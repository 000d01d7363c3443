"""Requests as they come in: what the request's path asks of whichever server read them, and bodies within bounds."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

import aiohttp
from aiohttp import web

from gateway.errors import BadRequest, GatewayError, PayloadTooLarge, RequestTimeout
from gateway.reply import decode_pairs
from gateway.watchdog import ClientLeft

if TYPE_CHECKING:
    import asyncio

    from aiohttp.web import Request, StreamResponse

    from gateway.forwarded_headers import Headers

_UNTIDY = re.compile(r"^\.|//|/\.|./$|[\\;%\s\0]")
_TIMES_DECODED = 3
"""Some upstreams decode a path once more than HTTP asks for, and those before them too."""


class Incoming(Protocol):
    """A request that is to be forwarded, and the way back to its caller.

    `path` is decoded, `raw_target` as it was sent; `raw_headers` too, `headers` are case-insensitive. `transport` is
    None once the caller is gone.
    """

    method: str
    path: str
    raw_target: str
    headers: Mapping[str, str]
    raw_headers: Headers
    has_body: bool

    @property
    def query(self) -> Mapping[str, str]: ...

    @property
    def transport(self) -> asyncio.BaseTransport | None: ...

    async def read_body(self, *, max_body_bytes: int) -> bytes:
        """The whole body with its ``Content-Encoding`` undone. Raises `PayloadTooLarge`, `BadRequest`,
        `RequestTimeout` or `ClientLeft`."""
        ...

    async def begin(self, status: int, reason: bytes, headers: Headers) -> None:
        """Write the head of a streamed answer. Raises `ConnectionError` when the caller is gone."""
        ...

    async def write(self, chunk: bytes) -> None:
        """Write a piece of the answer, once the caller has room for it. Raises `ConnectionError`."""
        ...

    def break_off(self) -> None:
        """Close the caller's connection so that it cannot take what it got for a whole answer."""
        ...


class ViaAiohttp:
    """A request that aiohttp's server read. The end of a streamed answer is left to be written by that server, from
    `response`."""

    __slots__ = ("_request", "has_body", "headers", "method", "path", "raw_headers", "raw_target", "response")

    def __init__(self, request: Request) -> None:
        self._request = request
        self.method = request.method
        self.path = request.path
        self.raw_target = request.rel_url.raw_path_qs
        self.headers: Mapping[str, str] = request.headers
        self.raw_headers = list(request.raw_headers)
        self.has_body = request.body_exists
        self.response: StreamResponse | None = None

    @property
    def query(self) -> Mapping[str, str]:
        return self._request.query

    @property
    def transport(self) -> asyncio.BaseTransport | None:
        return self._request.transport

    async def read_body(self, *, max_body_bytes: int) -> bytes:
        return await read_body(self._request, max_body_bytes=max_body_bytes)

    async def begin(self, status: int, reason: bytes, headers: Headers) -> None:
        self.response = web.StreamResponse(
            status=status, reason=reason.decode("latin-1") or None, headers=decode_pairs(headers)
        )
        await self.response.prepare(self._request)

    async def write(self, chunk: bytes) -> None:
        assert self.response is not None
        await self.response.write(chunk)

    def break_off(self) -> None:
        transport = self._request.transport
        if transport is None:
            return
        if self._request.version >= aiohttp.HttpVersion11:
            # Unfinished chunks, or a length not reached, tell; what was written still arrives.
            transport.close()
            return
        # To an HTTP/1.0 caller closing is the end of the body: only a reset (linger of 0 s) tells it apart.
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def tidy(path: str) -> str:
    """The decoded path as the most lenient upstream would read it: without doubled slashes, dots, a last slash,
    ``;parameters`` and white space, with slashes for backslashes, and with what is encoded twice decoded. A budget may
    not be passed by with them. Raises `BadRequest` for one that climbs: it could leave what its upstream's URL names.
    """
    if _UNTIDY.search(path) is None:
        return path
    for _ in range(_TIMES_DECODED):
        path = unquote(path)
    steps = [step.partition(";")[0].strip(" \t\r\n\0") for step in path.replace("\\", "/").split("/")]
    if ".." in steps:
        raise BadRequest("The path climbs with `..`; send it as it is meant.", code="invalid_path")
    return "/" + "/".join(step for step in steps if step not in ("", "."))


def refuse_websocket(headers: Mapping[str, str]) -> None:
    """A WebSocket's messages could be neither counted nor charged."""
    if "websocket" in headers.get("Upgrade", "").lower():
        raise GatewayError(
            "WebSocket connections are not supported, because their tokens cannot be metered; use the HTTP API.",
            status=501,
            type="invalid_request_error",
            code="websocket_not_supported",
        )


async def read_body(request: Request, *, max_body_bytes: int) -> bytes:
    """The whole body with its ``Content-Encoding`` undone. Raises `PayloadTooLarge`, `BadRequest`,
    `RequestTimeout` or `ClientLeft`.

    The bound holds for the unpacked body too.
    """
    length = request.content_length
    if length is None:
        _refuse_odd_framing(request)
    elif length > max_body_bytes:
        raise too_large(max_body_bytes)
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large(max_body_bytes) from None
    except TimeoutError:  # `gateway.connections` gives up waiting
        raise too_late() from None
    except aiohttp.ClientConnectionError:
        raise ClientLeft("The caller left while sending its request.") from None
    except (web.RequestPayloadError, aiohttp.ClientPayloadError, web.HTTPException) as error:
        raise BadRequest(
            f"The request body cannot be read ({type(error).__name__}): its Content-Encoding or chunks are wrong.",
            code="invalid_body",
        ) from None


async def expect_continue(request: Request) -> StreamResponse | None:
    """Answer ``Expect: 100-continue``, unless the announced body is refused anyway."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= aiohttp.HttpVersion11:
        if (request.content_length or 0) <= request.client_max_size:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # aiohttp counts what is written before the head as body.
            request.writer.output_size = 0
        return None
    # aiohttp asks this before any middleware: the answer is given here.
    return web.Response(status=417, text="Only `Expect: 100-continue` is supported.")


def _refuse_odd_framing(request: Request) -> None:
    """Another proxy may see another end of a body that is coded twice, or chunked for HTTP/1.0, than we do."""
    coding = request.headers.get("Transfer-Encoding")
    if coding is not None and (coding.strip().lower() != "chunked" or request.version < aiohttp.HttpVersion11):
        raise BadRequest(
            "The only transfer coding here is `chunked`, in HTTP/1.1; send a Content-Length instead.",
            status=501,
            code="transfer_coding_not_supported",
        )


def too_late() -> RequestTimeout:
    """The end of a request whose body is waited for no longer."""
    return RequestTimeout("The request's body did not arrive in time (`server.body_timeout`).")


def too_large(max_body_bytes: int) -> PayloadTooLarge:
    """The refusal of a body beyond `server.max_body`."""
    return PayloadTooLarge(
        f"The request body is larger than {max_body_bytes} bytes, the limit set by `server.max_body`."
    )
