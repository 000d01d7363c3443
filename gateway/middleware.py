"""Around every request: its id, the one error boundary, its log line, its metrics and its ledger row."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import structlog
from aiohttp import web

from gateway import formats
from gateway.callers import client_address
from gateway.endpoints.answers import error_body
from gateway.errors import BudgetRefused, GatewayError, UpstreamError
from gateway.exchange import EXCHANGE, Exchange
from gateway.formats.base import retry_headers
from gateway.proxy import told_headers
from gateway.recording import record
from gateway.reply import Reply, as_response, encode_pairs
from gateway.runtime import RUNTIME, Runtime
from gateway.watchdog import ClientLeft

if TYPE_CHECKING:
    from gateway.formats.base import RequestFormat

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")

_log = structlog.get_logger("gateway")
_BY_NAME = {fmt.name: fmt for fmt in formats.FORMATS}
_CLIENT_LEFT_STATUS = 499
"""For the log and the metrics (nginx's word for it); nobody is there to read it."""


def begin_exchange(
    runtime: Runtime, *, method: str, path: str, peer: str, headers: Mapping[str, str], read_s: float
) -> Exchange:
    """What is known of a request when it comes in; `read_s` is the `time.perf_counter` at which its head was there."""
    return Exchange(
        id=f"req_{random.getrandbits(128):032x}",
        at=runtime.clock(),
        started_s=read_s,
        method=method,
        path=path,
        client=client_address(peer, headers.get("X-Forwarded-For", ""), runtime.settings.server.trusted_proxies),
    )


@web.middleware
async def boundary(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The guard around what aiohttp's server answers."""
    runtime = request.app[RUNTIME].current
    exchange = request[EXCHANGE] = begin_exchange(
        runtime,
        method=request.method,
        path=request.path,
        peer=request.remote or "",
        headers=request.headers,
        read_s=time.perf_counter(),
    )
    answered = await guard(runtime, exchange, request.headers, lambda: handler(request))
    return as_response(answered) if isinstance(answered, Reply) else answered


async def guard(
    runtime: Runtime, exchange: Exchange, headers: Mapping[str, str], work: Callable[[], Awaitable[T]]
) -> T | Reply:
    """Do the work of a request, turn whatever goes wrong into an answer of its own API, write it down."""
    runtime.metrics.active.inc()
    load = runtime.load
    load.running += 1
    try:
        if load.running > load.most:
            load.refuse(exchange)
        answered = await work()
        if exchange.status == 0 and isinstance(answered, Reply | web.StreamResponse):
            exchange.status = answered.status
        return answered
    except GatewayError as error:
        return refused(headers, runtime, exchange, error)
    except ClientLeft:
        exchange.outcome, exchange.status = "client_left", _CLIENT_LEFT_STATUS
        return Reply(_CLIENT_LEFT_STATUS, b"Client Left", [], b"")
    except web.HTTPException as error:
        return refused(headers, runtime, exchange, _as_gateway_error(error))
    except asyncio.CancelledError:
        exchange.outcome, exchange.status = "client_left", _CLIENT_LEFT_STATUS
        raise
    except Exception as error:
        _log.exception("request_failed", request_id=exchange.id)
        exchange.error = type(error).__name__
        failure = GatewayError(
            f"The gateway failed on this request. Its log has the reason under {exchange.id}.", code="internal_error"
        )
        return refused(headers, runtime, exchange, failure)
    finally:
        load.running -= 1
        runtime.metrics.active.dec()
        record(runtime, exchange)


def refused(headers: Mapping[str, str], runtime: Runtime, exchange: Exchange, error: GatewayError) -> Reply:
    """The answer to a request that failed, in its own API's shape; the exchange notes how."""
    exchange.status = error.status
    exchange.error = exchange.error or error.code or error.type
    if isinstance(error, UpstreamError):
        exchange.outcome = "upstream_error"
    elif isinstance(error, BudgetRefused):
        exchange.outcome = "refused"
    else:
        exchange.outcome = "rejected" if error.status < 500 else "failed"
    fmt = exchange.format or _guess(headers)
    if fmt is None:
        status, told, body = error.status, retry_headers(error), error_body(error)
        told["Content-Type"] = "application/json"
    else:
        status, told, body = fmt.render_error(error)
    return Reply(status, b"", encode_pairs([*told.items(), *told_headers(runtime, exchange)]), body)


def _guess(headers: Mapping[str, str]) -> RequestFormat | None:
    """The dialect of a path that no format knows, from the headers that only one SDK sends."""
    if "anthropic-version" in headers:
        return _BY_NAME.get("anthropic_messages")
    if "x-goog-api-key" in headers:
        return _BY_NAME.get("gemini")
    return None


def _as_gateway_error(error: web.HTTPException) -> GatewayError:
    return GatewayError(
        error.text or error.reason,
        status=error.status,
        type="invalid_request_error" if error.status < 500 else "server_error",
        code=error.reason.lower().replace(" ", "_"),
    )
