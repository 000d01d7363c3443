"""Taking a request in: its path as a format would know it, and its body within bounds."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from gateway.errors import BadRequest, GatewayError, PayloadTooLarge, RequestTimeout
from gateway.watchdog import ClientLeft

if TYPE_CHECKING:
    from aiohttp.web import Request, StreamResponse

_UNTIDY = re.compile(r"//|/\.|./$")


def tidy_path(request: Request) -> str:
    """The decoded path without doubled slashes, dots and a last slash: upstreams ignore those, so a budget may not
    be passed by with them."""
    return tidy(request.path)


def tidy(path: str) -> str:
    """A decoded path as `tidy_path` gives it."""
    if _UNTIDY.search(path) is None:
        return path
    return "/" + posixpath.normpath(path).lstrip("/")


def refuse_websocket(request: Request) -> None:
    """A WebSocket's messages could be neither counted nor charged."""
    if "websocket" in request.headers.get("Upgrade", "").lower():
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
    if (request.content_length or 0) > max_body_bytes:
        raise _too_large(max_body_bytes)
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise _too_large(max_body_bytes) from None
    except TimeoutError:  # `gateway.connections` gives up waiting
        raise RequestTimeout("The request's body did not arrive in time (`server.body_timeout`).") from None
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


def _too_large(max_body_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The request body is larger than {max_body_bytes} bytes, the limit set by `server.max_body`."
    )
