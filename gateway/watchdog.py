"""Ends requests whose caller has left or no longer reads: one timer for all of them.

A server tells a handler nothing about a caller that leaves while the upstream is still thinking.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from gateway.incoming import Incoming


class ClientLeft(Exception):
    """The caller closed its connection, or stopped reading, before the answer was complete."""


class Watch:
    """Guards one request while it waits for others; leaving the block turns the watchdog's cancellation into
    `ClientLeft`."""

    __slots__ = ("_cancel_when_left", "_deadline", "_fired", "_loop", "_request", "_task", "_watchdog")

    def __init__(self, watchdog: Watchdog, request: Incoming, *, cancel_when_left: bool) -> None:
        self._watchdog = watchdog
        self._request = request
        self._cancel_when_left = cancel_when_left
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        self._deadline = float("inf")
        self._fired = False

    def expect_client(self, within_s: float) -> None:
        """The caller must take what is written to it within this time, from now."""
        self._deadline = self._loop.time() + within_s

    def client_took_it(self) -> None:
        """The caller took it; nothing is expected of it for now."""
        self._deadline = float("inf")

    def check(self, now: float) -> None:
        """Cancel the request if its caller is lost. `now` is the event loop's time."""
        if self._fired or self._task is None:
            return
        if now >= self._deadline or (self._cancel_when_left and self._client_left):
            self._fired = True
            self._task.cancel()

    @property
    def _client_left(self) -> bool:
        transport = self._request.transport
        return transport is None or transport.is_closing()

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._watchdog.watches.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._watchdog.watches.discard(self)
        task, self._task = self._task, None
        if self._fired and task is not None and task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ClientLeft("The caller left before the answer was complete.") from None


class Watchdog:
    """All watches of one event loop; `run` looks at them every `period_s`."""

    def __init__(self, *, period_s: float = 0.1) -> None:
        self.watches: set[Watch] = set()
        self._period_s = period_s

    def watch(self, request: Incoming, *, cancel_when_left: bool) -> Watch:
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
