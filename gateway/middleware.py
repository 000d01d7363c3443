"""Around every request: its id, the one error boundary, its log line, its metrics and its ledger row."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import structlog
from aiohttp import web
from multidict import CIMultiDict

from gateway import formats
from gateway.callers import client_address
from gateway.endpoints.answers import error_body
from gateway.errors import BudgetRefused, GatewayError, UpstreamError
from gateway.exchange import EXCHANGE, Exchange
from gateway.formats.base import retry_headers
from gateway.proxy import told_headers
from gateway.recording import record
from gateway.runtime import RUNTIME, Runtime
from gateway.watchdog import ClientLeft

if TYPE_CHECKING:
    from gateway.formats.base import RequestFormat

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = structlog.get_logger("gateway")
_BY_NAME = {fmt.name: fmt for fmt in formats.FORMATS}
_CLIENT_LEFT_STATUS = 499
"""For the log and the metrics (nginx's word for it); nobody is there to read it."""


@web.middleware
async def boundary(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id, turn whatever goes wrong into an answer of its own API, write it down."""
    runtime = request.app[RUNTIME].current
    exchange = Exchange(
        id=f"req_{random.getrandbits(128):032x}",
        at=runtime.clock(),
        started_s=time.perf_counter(),
        method=request.method,
        path=request.path,
        client=client_address(
            request.remote or "",
            request.headers.get("X-Forwarded-For", ""),
            runtime.settings.server.trusted_proxies,
        ),
    )
    request[EXCHANGE] = exchange
    runtime.metrics.active.inc()
    load = runtime.load
    load.running += 1
    try:
        if load.running > load.most:
            load.refuse(exchange)
        response = await handler(request)
        exchange.status = exchange.status or response.status
    except GatewayError as error:
        response = refused(request, runtime, exchange, error)
    except ClientLeft:
        exchange.outcome, exchange.status = "client_left", _CLIENT_LEFT_STATUS
        response = web.Response(status=_CLIENT_LEFT_STATUS)
    except web.HTTPException as error:
        response = refused(request, runtime, exchange, _as_gateway_error(error))
    except asyncio.CancelledError:
        exchange.outcome, exchange.status = "client_left", _CLIENT_LEFT_STATUS
        raise
    except Exception as error:
        _log.exception("request_failed", request_id=exchange.id)
        exchange.error = type(error).__name__
        failure = GatewayError(
            f"The gateway failed on this request. Its log has the reason under {exchange.id}.", code="internal_error"
        )
        response = refused(request, runtime, exchange, failure)
    finally:
        load.running -= 1
        runtime.metrics.active.dec()
        record(runtime, exchange)
    return response


def refused(request: web.Request, runtime: Runtime, exchange: Exchange, error: GatewayError) -> web.Response:
    """The answer to a request that failed, in its own API's shape; the exchange notes how."""
    exchange.status = error.status
    exchange.error = exchange.error or error.code or error.type
    if isinstance(error, UpstreamError):
        exchange.outcome = "upstream_error"
    elif isinstance(error, BudgetRefused):
        exchange.outcome = "refused"
    else:
        exchange.outcome = "rejected" if error.status < 500 else "failed"
    fmt = exchange.format or _guess(request)
    if fmt is None:
        status, headers, body = error.status, retry_headers(error), error_body(error)
        headers["Content-Type"] = "application/json"
    else:
        status, headers, body = fmt.render_error(error)
    told = CIMultiDict(headers)
    told.extend(told_headers(runtime, exchange))
    return web.Response(status=status, headers=told, body=body)


def _guess(request: web.Request) -> RequestFormat | None:
    """The dialect of a path that no format knows, from the headers that only one SDK sends."""
    if "anthropic-version" in request.headers:
        return _BY_NAME.get("anthropic_messages")
    if "x-goog-api-key" in request.headers:
        return _BY_NAME.get("gemini")
    return None


def _as_gateway_error(error: web.HTTPException) -> GatewayError:
    return GatewayError(
        error.text or error.reason,
        status=error.status,
        type="invalid_request_error" if error.status < 500 else "server_error",
        code=error.reason.lower().replace(" ", "_"),
    )
