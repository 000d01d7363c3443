"""Checks asked by other proxies: the caller's own request comes here first, and what comes back says whether the
proxy may forward it. Envoy's ``ext_authz`` and nginx's ``auth_request`` read that differently."""

from __future__ import annotations

import json

from aiohttp import web
from multidict import CIMultiDict

from gateway import formats
from gateway.admitting import BLIND, UNMATCHED, admit_call, admit_uncounted, answer_path
from gateway.callers import credential_anywhere, key_of
from gateway.errors import GatewayError, NotFound, PayloadTooLarge
from gateway.exchange import EXCHANGE
from gateway.incoming import read_body, refuse_websocket, tidy
from gateway.middleware import refused
from gateway.proxy import Granted, told_headers
from gateway.reply import decode_pairs
from gateway.runtime import RUNTIME
from policies.model import Estimate

ENVOY_PREFIX = "/v1/ext_authz"
NGINX_PREFIX = "/v1/auth_request"


async def ext_authz(request: web.Request) -> web.Response:
    """For Envoy's HTTP service: 200 with headers to add, or the refusal as the caller is to see it."""
    if request.headers.get("x-envoy-auth-partial-body", "").lower() == "true":
        raise PayloadTooLarge(
            "Envoy sent only the beginning of the request body, which cannot be counted: raise `max_request_bytes` of "
            "its `with_request_body`, or set `allow_partial_message: false`."
        )
    return await _check(request, request.path.removeprefix(ENVOY_PREFIX))


async def auth_request(request: web.Request) -> web.Response:
    """For nginx: 200, 401 or 403, which is all it understands; the true status and body stand in headers."""
    try:
        return await _check(request, request.path.removeprefix(NGINX_PREFIX), blind=not request.body_exists)
    except GatewayError as error:
        reply = refused(request.headers, request.app[RUNTIME].current, request[EXCHANGE], error)
    headers = decode_pairs(reply.headers)
    headers["x-tollgate-status"] = str(reply.status)
    # Header lines hold neither line ends nor letters beyond ASCII; JSON says the same without them.
    headers["x-tollgate-error"] = json.dumps(json.loads(reply.body), separators=(",", ":"))
    return web.Response(status=401 if reply.status == 401 else 403, headers=headers, body=reply.body)


async def _check(request: web.Request, raw_path: str, *, blind: bool = False) -> web.Response:
    runtime = request.app[RUNTIME].current
    exchange = request[EXCHANGE]
    refuse_websocket(request.headers)
    path = tidy(raw_path)
    matched = formats.match(request.method, path)
    if matched is None or matched[1].kind == "count" or blind:
        return await _check_uncounted(request, path, blind=blind)
    fmt, route, groups = matched
    exchange.format = fmt
    key = exchange.key = key_of(runtime, fmt.credential(request.headers, request.query))
    call = fmt.parse(route, groups, await read_body(request, max_body_bytes=runtime.settings.server.max_body_bytes))
    exchange.take(call)
    upstream = runtime.upstreams.choose(path, format_name=fmt.name, model=call.model)
    granted = await admit_call(runtime, exchange, key, call, upstream)
    body = b"" if granted.output_cap is None else fmt.with_output_cap(call, granted.output_cap)
    return _allowed(request, granted, format_name=fmt.name, body=body)


async def _check_uncounted(request: web.Request, path: str, *, blind: bool) -> web.Response:
    """A request without tokens: of a path that no format knows, or one whose body was not sent along."""
    runtime = request.app[RUNTIME].current
    exchange = request[EXCHANGE]
    # nginx asks with GET, whatever the caller sent.
    matched = formats.match(request.method, path) or (formats.match("POST", path) if blind else None)
    if matched is not None:
        exchange.format, _, groups = matched
        exchange.model = groups.get("model", "")
    elif runtime.settings.server.unmatched == "refuse":
        raise NotFound(f"Nothing answers {request.method} {path} here, and `server.unmatched` is `refuse`.")
    key = exchange.key = key_of(runtime, credential_anywhere(request.headers, request.query))
    exchange.upstream = runtime.upstreams.choose(path, format_name=None, model=None).name
    estimate = BLIND if matched is not None and blind else Estimate(input_tokens=0, output_cap=0)
    granted = await admit_uncounted(runtime, exchange, key, estimate)
    return _allowed(request, granted, format_name=UNMATCHED, body=b"")


def _allowed(request: web.Request, granted: Granted, *, format_name: str, body: bytes) -> web.Response:
    """`body` is what to forward in place of the caller's own, where a cap had to be written into it."""
    runtime = request.app[RUNTIME].current
    exchange = request[EXCHANGE]
    headers = CIMultiDict(told_headers(runtime, exchange))
    headers["x-tollgate-admission"] = granted.reservation.id
    headers["x-tollgate-answer-to"] = answer_path(exchange, granted, format_name=format_name)
    if granted.output_cap is not None:
        headers["x-tollgate-output-cap"] = str(granted.output_cap)
    headers["Content-Type"] = "application/json"
    return web.Response(headers=headers, body=body)
