"""The lane's side of one process: which requests it takes, and how its connections end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import lru_cache

from aiohttp import web

from gateway import formats
from gateway.errors import BadRequest
from gateway.incoming import tidy
from gateway.lane.connection import Connection, LaneRequest
from gateway.middleware import begin_exchange, guard
from gateway.proxy import proxy
from gateway.reply import Reply
from gateway.runtime import RuntimeHolder

DIRECT = web.AppKey("direct", re.Pattern[str])
"""Where an application keeps the pattern of the paths that its own endpoints answer."""


class LaneServer:
    """Makes the lane's connections. `direct` matches the paths that are never forwarded; `make_other` makes the
    protocol that takes over what the lane does not answer."""

    def __init__(
        self, holder: RuntimeHolder, make_other: Callable[[], asyncio.Protocol], *, direct: re.Pattern[str]
    ) -> None:
        self.make_other = make_other
        self.connections: set[Connection] = set()
        """Those that the lane still has."""
        self._holder = holder
        self._direct = direct
        self._loop = asyncio.get_running_loop()
        self._takes = lru_cache(maxsize=4096)(self._is_forwarded)

    def __call__(self) -> Connection:
        return Connection(self, self._loop)

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
        return await guard(runtime, exchange, request.headers, lambda: proxy(request, runtime, exchange))

    def end(self) -> None:
        """Close what is idle; the rest closes with its answer."""
        for connection in tuple(self.connections):
            connection.end()

    async def finish(self, *, within_s: float | None) -> None:
        """Let what is under way end within this time, then end it."""
        running = {connection.task for connection in self.connections if connection.task is not None}
        if running:
            _, late = await asyncio.wait(running, timeout=within_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for connection in tuple(self.connections):
            connection.close()

    def _is_forwarded(self, path: str) -> bool:
        try:
            tidied = tidy(path)
        except BadRequest:
            return False
        return tidied == path and self._direct.fullmatch(path) is None and formats.match("POST", path) is not None
