"""Taking a request in: its path as a format would know it, and its body within bounds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

import aiohttp
from aiohttp import web

from gateway.errors import BadRequest, GatewayError, PayloadTooLarge, RequestTimeout
from gateway.watchdog import ClientLeft

if TYPE_CHECKING:
    from aiohttp.web import Request, StreamResponse

_UNTIDY = re.compile(r"^\.|//|/\.|./$|[\\;%\s\0]")
_TIMES_DECODED = 3
"""Some upstreams decode a path once more than HTTP asks for, and those before them too."""


def tidy_path(request: Request) -> str:
    """The decoded path without doubled slashes, dots and a last slash: upstreams ignore those, so a budget may not
    be passed by with them. Raises `BadRequest` for one that climbs, as it could leave what its upstream's URL names."""
    return tidy(request.path)


def tidy(path: str) -> str:
    """A decoded path as `tidy_path` gives it: as the most lenient upstream would read it, with what is encoded twice
    decoded, backslashes for slashes, and without ``;parameters`` and white space."""
    if _UNTIDY.search(path) is None:
        return path
    for _ in range(_TIMES_DECODED):
        path = unquote(path)
    steps = [step.partition(";")[0].strip(" \t\r\n\0") for step in path.replace("\\", "/").split("/")]
    if ".." in steps:
        raise BadRequest("The path climbs with `..`; send it as it is meant.", code="invalid_path")
    return "/" + "/".join(step for step in steps if step not in ("", "."))


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
    length = request.content_length
    if length is None:
        _refuse_odd_framing(request)
    elif length > max_body_bytes:
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


def _refuse_odd_framing(request: Request) -> None:
    """Another proxy may see another end of a body that is coded twice, or chunked for HTTP/1.0, than we do."""
    coding = request.headers.get("Transfer-Encoding")
    if coding is not None and (coding.strip().lower() != "chunked" or request.version < aiohttp.HttpVersion11):
        raise BadRequest(
            "The only transfer coding here is `chunked`, in HTTP/1.1; send a Content-Length instead.",
            status=501,
            code="transfer_coding_not_supported",
        )


def _too_large(max_body_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The request body is larger than {max_body_bytes} bytes, the limit set by `server.max_body`."
    )
