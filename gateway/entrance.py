"""Where connections come in: guarded, then served on the lane where there is something to forward, else by aiohttp."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.connections import ConnectionLimits, Connections, Phase
from gateway.endpoints.answers import error_body
from gateway.errors import BadRequest
from gateway.lane.connection import Connection
from gateway.lane.server import DIRECT, LaneServer
from gateway.runtime import RUNTIME

if TYPE_CHECKING:
    from gateway.metrics import Metrics


class Entrance:
    """Makes the protocol of each connection, and ends them all; for aiohttp's runner, in its own server's place."""

    def __init__(self, server: web.Server, app: web.Application, limits: ConnectionLimits) -> None:
        self._server = server
        self._guards = Connections(limits, _Progress(), metrics=lambda: _metrics_of(app))
        direct = app.get(DIRECT)
        self._lane = LaneServer(app[RUNTIME], self._make_other, direct=direct) if direct is not None else None
        self._sweeping = asyncio.create_task(self._guards.run())

    def __call__(self) -> asyncio.Protocol:
        return self._guards.guard(self._lane or self._make_other)

    def _make_other(self) -> asyncio.Protocol:
        return AiohttpConnection(self._server, loop=self._server._loop, **self._server._kwargs)

    @property
    def connections(self) -> list[object]:
        here = self._lane.connections if self._lane is not None else ()
        return [*here, *self._server.connections]

    @property
    def requests_count(self) -> int:
        return self._server.requests_count

    def pre_shutdown(self) -> None:
        """Close what is idle; the rest closes with its answer."""
        if self._lane is not None:
            self._lane.end()
        self._server.pre_shutdown()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - aiohttp's name
        """Let what is under way end within the timeout, then end it."""
        ends = [self._server.shutdown(timeout)]
        if self._lane is not None:
            ends.append(self._lane.finish(within_s=timeout))
        await asyncio.gather(*ends)
        self._sweeping.cancel()


class AiohttpConnection(web.RequestHandler):
    """aiohttp's protocol, which says what is wrong with bytes that are no HTTP and not what they were: they may hold
    a credential, and their sender is no one yet, who may send many."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        reason = exc.message.partition("\n")[0].rstrip(":.")
        if "'" in reason or not reason:  # it cites what came
            reason = type(exc).__name__
        structlog.get_logger("serve").info("bad_http", client=request.remote, reason=reason)
        error = BadRequest(f"This is not a request in HTTP/1.1: {reason}.", code="bad_http")
        response = web.Response(status=400, body=error_body(error), content_type="application/json")
        response.force_close()
        return response


class _Progress:
    """What the guards must know of the protocols behind them; aiohttp's has no public words for it."""

    def progress(self, protocol: asyncio.Protocol) -> tuple[int, Phase]:
        if isinstance(protocol, Connection):
            if protocol.other is None:
                return protocol.heads, protocol.phase
            heads, phase = self.progress(protocol.other)
            return protocol.heads + heads, phase
        handler = cast(web.RequestHandler, protocol)
        request, heads = handler._current_request, handler._request_count
        if request is not None:
            return heads, "answer" if request.content.is_eof() else "body"
        return heads, "answer" if handler._request_in_progress or handler._messages else "head"

    def end_body(self, protocol: asyncio.Protocol) -> None:
        if isinstance(protocol, Connection):
            if protocol.other is None:
                protocol.end_body()
            else:
                self.end_body(protocol.other)
            return
        request = cast(web.RequestHandler, protocol)._current_request
        if request is not None:
            request.content.set_exception(TimeoutError())


def _metrics_of(app: web.Application) -> Metrics | None:
    holder = app.get(RUNTIME)
    return holder.current.metrics if holder is not None else None
