"""Ends requests whose caller has left or whose upstream has gone silent: one timer for all of them.

A timer per chunk would cost more than relaying the chunk, and aiohttp tells a handler nothing about a caller
that leaves while the upstream is still thinking.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from gateway.errors import UpstreamTimeout

if TYPE_CHECKING:
    from aiohttp import web

Reason = Literal["", "client_left", "upstream_silent"]


class ClientLeft(Exception):
    """The caller closed its connection, or stopped reading, before the answer was complete."""


class Watch:
    """Guards one request while it waits for others; leaving the block turns the watchdog's cancellation into
    `ClientLeft` or `UpstreamTimeout`."""

    __slots__ = ("_cancel_when_left", "_loop", "_request", "_silent_means", "_task", "_watchdog", "deadline", "reason")

    def __init__(self, watchdog: Watchdog, request: web.Request, *, cancel_when_left: bool) -> None:
        self._watchdog = watchdog
        self._request = request
        self._cancel_when_left = cancel_when_left
        self._loop = asyncio.get_running_loop()
        self._silent_means: Reason = "upstream_silent"
        self._task: asyncio.Task[object] | None = None
        self.deadline = float("inf")
        self.reason: Reason = ""

    @property
    def client_left(self) -> bool:
        """Whether the caller's connection is gone."""
        transport = self._request.transport
        return transport is None or transport.is_closing()

    def expect_upstream(self, within_s: float) -> None:
        """The upstream must do something within this time, from now."""
        self._silent_means = "upstream_silent"
        self.deadline = self._loop.time() + within_s

    def expect_client(self, within_s: float) -> None:
        """The caller must take what is written to it within this time, from now."""
        self._silent_means = "client_left"
        self.deadline = self._loop.time() + within_s

    def check(self, now: float) -> None:
        """Cancel the request if it waits in vain. `now` is the event loop's time."""
        if self.reason or self._task is None:
            return
        if self._cancel_when_left and self.client_left:
            self.reason = "client_left"
        elif now >= self.deadline:
            self.reason = self._silent_means
        else:
            return
        self._task.cancel()

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._watchdog.watches.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._watchdog.watches.discard(self)
        task, self._task = self._task, None
        if not self.reason or task is None:
            return
        if task.uncancel() == 0 and kind is asyncio.CancelledError:
            if self.reason == "client_left":
                raise ClientLeft("The caller left before the answer was complete.") from None
            raise UpstreamTimeout("The upstream did not answer in time. Try again, or raise the upstream's `timeout`.")


class Watchdog:
    """All watches of one event loop; `run` looks at them every `period_s`."""

    def __init__(self, *, period_s: float = 0.1) -> None:
        self.watches: set[Watch] = set()
        self._period_s = period_s

    def watch(self, request: web.Request, *, cancel_when_left: bool) -> Watch:
        """A guard for one request, to be used in a ``with`` block."""
        return Watch(self, request, cancel_when_left=cancel_when_left)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._period_s)
            now = loop.time()
            for watch in tuple(self.watches):
                watch.check(now)
