"""All connections of one process: who takes which request, and how they end."""

from __future__ import annotations

import asyncio
import re
from functools import lru_cache

from aiohttp import web

from gateway import formats
from gateway.incoming import tidy
from gateway.lane.connection import Connection, LaneRequest
from gateway.middleware import begin_exchange, guard
from gateway.proxy import proxy
from gateway.reply import Reply
from gateway.runtime import RuntimeHolder

DIRECT = web.AppKey("direct", re.Pattern[str])
"""Where an application keeps the pattern of the paths that its own endpoints answer."""

LOOK_PERIOD_S = 1.0
LINGER_S = 10.0
"""How long the rest of a request is read that has been answered: closing at once could destroy the answer."""


class LaneServer:
    """aiohttp's server with the lane before it, to be used in its place. Makes a protocol for each connection.

    `direct` matches the paths that are answered here and never forwarded.
    """

    def __init__(
        self, others: web.Server, holder: RuntimeHolder, *, direct: re.Pattern[str], keepalive_s: float
    ) -> None:
        self.others = others
        self.connections_here: set[Connection] = set()
        self._holder = holder
        self._direct = direct
        self._keepalive_s = keepalive_s
        self._loop = asyncio.get_running_loop()
        self._looking = self._loop.call_later(LOOK_PERIOD_S, self._look)
        self._takes = lru_cache(maxsize=4096)(self._is_forwarded)

    def takes(self, path: str) -> bool:
        """Whether a POST to this path is answered on the lane."""
        return self._takes(path)

    @property
    def now(self) -> float:
        """Unix time."""
        return self._holder.current.clock()

    async def answer(self, request: LaneRequest) -> Reply | None:
        """Answer a request; None when its answer was streamed and only its end is left to be written."""
        runtime = self._holder.current
        exchange = begin_exchange(
            runtime,
            method=request.method,
            path=request.path,
            peer=request.peer,
            headers=request.headers,
            read_s=request.started_s,
        )
        return await guard(runtime, exchange, request.headers, proxy(request, runtime, exchange))

    # What aiohttp's runner asks of its server.

    def __call__(self) -> asyncio.Protocol:
        return Connection(self, self._loop)

    @property
    def connections(self) -> list[object]:
        return [*self.connections_here, *self.others.connections]

    @property
    def requests_count(self) -> int:
        return self.others.requests_count

    def pre_shutdown(self) -> None:
        """Close what is idle; the rest closes with its answer."""
        for connection in tuple(self.connections_here):
            connection.end()
        self.others.pre_shutdown()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - aiohttp's name
        """Let what is under way end within the timeout, then end it."""
        await asyncio.gather(self._finish(within_s=timeout), self.others.shutdown(timeout))
        self._looking.cancel()

    async def _finish(self, *, within_s: float | None) -> None:
        running = {connection.task for connection in self.connections_here if connection.task is not None}
        if running:
            _, late = await asyncio.wait(running, timeout=within_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for connection in tuple(self.connections_here):
            connection.close()

    def _is_forwarded(self, path: str) -> bool:
        return tidy(path) == path and self._direct.fullmatch(path) is None and formats.match("POST", path) is not None

    def _look(self) -> None:
        """End connections that have been waited for too long: one timer for all of them."""
        now = self._loop.time()
        for connection in tuple(self.connections_here):
            waited_s = now - connection.since
            if connection.task is None and waited_s > (self._keepalive_s if connection.is_idle else LINGER_S):
                connection.close()
        self._looking = self._loop.call_later(LOOK_PERIOD_S, self._look)
