"""The gateway's metrics for Prometheus."""

from __future__ import annotations

from aiohttp import web

from gateway.metrics import CONTENT_TYPE
from gateway.runtime import RUNTIME


async def metrics(request: web.Request) -> web.Response:
    """The text exposition format."""
    runtime = request.app[RUNTIME].current
    runtime.metrics.store_up.set(0 if runtime.engine.store_error else 1)
    return web.Response(body=runtime.metrics.render(), headers={"Content-Type": CONTENT_TYPE})
