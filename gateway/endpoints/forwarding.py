"""Requests for upstreams that come by aiohttp's server: those that the lane leaves to it."""

from __future__ import annotations

from aiohttp import web

from gateway.exchange import EXCHANGE
from gateway.incoming import ViaAiohttp
from gateway.proxy import proxy
from gateway.reply import as_response
from gateway.runtime import RUNTIME


async def forward(request: web.Request) -> web.StreamResponse:
    """Answer any request that no direct endpoint takes."""
    incoming = ViaAiohttp(request)
    reply = await proxy(incoming, request.app[RUNTIME].current, request[EXCHANGE])
    if reply is not None:
        return as_response(reply)
    assert incoming.response is not None
    return incoming.response
