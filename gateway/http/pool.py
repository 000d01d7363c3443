"""The connections to one origin: last used first, no more than a limit, waiters served in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from gateway.http.connection import Connection
from gateway.http.errors import ConnectFailed

Dial = Callable[[], Awaitable[Connection]]


class Pool:
    """Keeps idle connections (newest first: the oldest may die of age) and counts all of them against `limit`.

    `limit` 0 means none. A waiter is given either an idle connection or the slot of one that is gone.
    """

    def __init__(self, dial: Dial, *, limit: int, keepalive_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self._dial = dial
        self._limit = limit
        self._keepalive_s = keepalive_s
        self._loop = loop
        self._taken_slots = 0
        self._idle: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._all_gone: asyncio.Future[None] | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def open_connections(self) -> int:
        """Connections that are open, idle ones included."""
        return len(self._open)

    @property
    def idle_connections(self) -> int:
        return len(self._idle)

    def take_idle(self) -> Connection | None:
        """The idle connection used last, if there is a live one."""
        while self._idle:
            connection = self._idle.pop()
            if self._loop.time() - connection.idle_since < self._keepalive_s and not connection.closed:
                return connection
            connection.abort()
        return None

    async def connect(self, *, fresh: bool = False) -> Connection:
        """An idle connection or a new one, waiting for a slot; `fresh` prefers a new one. Raises `ConnectFailed`."""
        while True:
            if self._closed:
                raise ConnectFailed("the client is closed")
            if not fresh and (connection := self.take_idle()) is not None:
                return connection
            if not self._limit or self._taken_slots < self._limit:
                self._taken_slots += 1
                break
            if self._idle:
                self._idle.popleft().abort()  # its slot comes back when it is gone
            got = await self._wait()
            if got is None:
                break
            if not got.closed:
                return got
        try:
            connection = await self._dial()
            if self._closed:
                connection.abort()
                raise ConnectFailed("the client is closed")
        except BaseException:
            self._release_slot()
            raise
        connection.adopt(self)
        self._open.add(connection)
        return connection

    def take_back(self, connection: Connection) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        if self._closed:
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._sweep_timer is None:
            self._sweep_timer = self._loop.call_later(self._keepalive_s, self._sweep)

    def forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._release_slot()
        if self._all_gone is not None and not self._open and not self._all_gone.done():
            self._all_gone.set_result(None)

    async def close(self) -> None:
        """Close every connection and fail every waiter; returns when the sockets are gone."""
        self._closed = True
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(ConnectFailed("the client is closed"))
        self._waiters.clear()
        if self._open:
            self._all_gone = self._loop.create_future()
            for connection in tuple(self._open):
                connection.abort()
            await self._all_gone

    async def _wait(self) -> Connection | None:
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # Given and cancelled in the same turn of the loop: pass it on.
                given = waiter.result()
                if given is None:
                    self._release_slot()
                elif not given.closed:
                    self.take_back(given)
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            raise

    def _release_slot(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._taken_slots -= 1

    def _sweep(self) -> None:
        self._sweep_timer = None
        oldest_allowed = self._loop.time() - self._keepalive_s
        while self._idle and self._idle[0].idle_since <= oldest_allowed:
            self._idle.popleft().abort()
        if self._idle:
            self._sweep_timer = self._loop.call_at(self._idle[0].idle_since + self._keepalive_s, self._sweep)
