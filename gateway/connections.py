"""What one listener bears: how many connections, how slow a caller may be, how long one may idle.

A `Guard` stands between a transport and the server's own protocol, whichever that is. It passes everything on and
counts arrivals; one sweep looks at all of them, so that a request starts no timer and costs one call more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, cast

import structlog

from gateway.refusing_connections import CLOSED, FULL, LATE_HEAD, refusal

if TYPE_CHECKING:
    from gateway.metrics import Metrics

Phase = Literal["head", "body", "answer"]
"""What a connection is at: waiting for a request's head (or idle), for the rest of its body, or being answered."""

MOST_PERIOD_S = 1.0
PERIODS_A_TIMEOUT = 5
LINGER_S = 2.0
"""How long a refused caller may take to read why: closing before it has sent its request would reset the connection."""
MOST_LEAVING = 1024
"""Connections that may linger; beyond it they are closed without a word."""

_log = structlog.get_logger("connections")


class Watched(Protocol):
    """What a guard must be told of the protocol behind it, at each sweep."""

    def progress(self, protocol: asyncio.Protocol) -> tuple[int, Phase]:
        """How many heads it has read so far, and what it is at."""
        ...

    def end_body(self, protocol: asyncio.Protocol) -> None:
        """The rest of the body will not be waited for: let the request fail with 408."""
        ...


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Of one worker. Every time is in seconds."""

    most: int
    header_timeout_s: float
    body_timeout_s: float
    idle_timeout_s: float

    @property
    def period_s(self) -> float:
        """How often to look, so that no limit is overrun by more than a fifth or a second."""
        shortest = min(self.header_timeout_s, self.body_timeout_s, self.idle_timeout_s)
        return min(MOST_PERIOD_S, shortest / PERIODS_A_TIMEOUT)


class Guard(asyncio.Protocol):
    """One connection. `arrivals` counts reads; the rest is the sweep's note of where it was when it last looked."""

    __slots__ = (
        "_connections", "_make", "arrivals", "began", "deaf", "heads", "inner", "phase", "seen", "since",
        "transport",
    )  # fmt: skip

    def __init__(self, connections: Connections, make: Callable[[], asyncio.Protocol]) -> None:
        self._connections = connections
        self._make = make
        self.inner: asyncio.Protocol | None = None  # None for ever when it is refused
        self.transport = cast("asyncio.Transport", None)
        self.deaf = False
        """Whether what still comes is dropped: it is being told why, and closed."""
        self.arrivals = 0
        self.seen = 0
        self.heads = 0
        self.phase: Phase = "head"
        self.since = 0.0
        self.began: float | None = None
        """Since when bytes of a head have been coming; a new connection owes one from its start."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.since = self.began = asyncio.get_running_loop().time()
        if self._connections.admit(self):
            self.inner = self._make()
            self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.arrivals += 1
        if self.inner is None:
            if not self.deaf:
                self.say_last(refusal(FULL, data))
        elif not self.deaf:
            self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self.inner.eof_received() if self.inner is not None else False

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.forget(self)
        if self.inner is not None:
            self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        if self.inner is not None:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        if self.inner is not None:
            self.inner.resume_writing()

    def say_last(self, answer: bytes) -> None:
        """Write this, then nothing more. Reading goes on: to close on unread bytes would take the answer back."""
        self.deaf = True
        self.transport.write(answer)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()


class Connections:
    """All connections of one worker. `guard` wraps each, `run` sweeps, until cancelled."""

    def __init__(self, limits: ConnectionLimits, watched: Watched, *, metrics: Callable[[], Metrics | None]) -> None:
        self._limits = limits
        self._watched = watched
        self._metrics = metrics
        self._open: set[Guard] = set()
        self._leaving: set[Guard] = set()
        self._ended: dict[str, int] = {}

    def guard(self, make: Callable[[], asyncio.Protocol]) -> Guard:
        """A connection's protocol; `make` makes the server's own once the connection is admitted."""
        return Guard(self, make)

    def admit(self, guard: Guard) -> bool:
        """Whether the connection may stay. One that may not is answered with 503 and closed."""
        if len(self._open) < self._limits.most:
            self._open.add(guard)
            return True
        self._note("refused")
        self._let_linger(guard)
        return False

    def forget(self, guard: Guard) -> None:
        self._open.discard(guard)
        self._leaving.discard(guard)

    @property
    def open(self) -> int:
        """How many connections are being served."""
        return len(self._open)

    async def run(self) -> None:
        """Look at every connection again and again."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._limits.period_s)
            self.sweep(loop.time())

    def sweep(self, now: float) -> None:
        """End what is too slow. `now` is the event loop's time."""
        for guard in tuple(self._leaving):
            if now - guard.since >= LINGER_S:
                guard.transport.abort()
        for guard in tuple(self._open):
            self._look_at(guard, now)
        self._tell()

    def _look_at(self, guard: Guard, now: float) -> None:
        assert guard.inner is not None
        heads, phase = self._watched.progress(guard.inner)
        if phase != guard.phase or heads != guard.heads:
            guard.phase, guard.heads, guard.since = phase, heads, now
            guard.seen, guard.began = guard.arrivals, None
        elif phase == "body":
            self._look_at_body(guard, now)
        elif phase == "head":
            if guard.began is None and guard.arrivals != guard.seen:
                guard.began = now
            if guard.began is None:
                if now - guard.since >= self._limits.idle_timeout_s:
                    self._end(guard, "idle_timeout")
            elif now - guard.began >= self._limits.header_timeout_s:
                self._end(guard, "header_timeout", LATE_HEAD if guard.arrivals != guard.seen else b"")

    def _look_at_body(self, guard: Guard, now: float) -> None:
        late_s = now - guard.since - self._limits.body_timeout_s
        if late_s >= LINGER_S:  # whoever reads it does not let go of it
            guard.transport.abort()
        elif late_s >= 0 and guard.began is None:
            guard.began = now
            self._note("body_timeout")
            assert guard.inner is not None
            self._watched.end_body(guard.inner)

    def _end(self, guard: Guard, reason: str, answer: bytes = b"") -> None:
        self._note(reason)
        if guard.transport.is_closing() or guard.transport.get_write_buffer_size():
            guard.transport.abort()  # it does not read either
        elif answer:
            self._open.discard(guard)
            guard.since = asyncio.get_running_loop().time()
            guard.say_last(answer)
            self._let_linger(guard)
        else:
            guard.transport.close()

    def _let_linger(self, guard: Guard) -> None:
        if len(self._leaving) < MOST_LEAVING:
            self._leaving.add(guard)
        else:
            guard.transport.abort()

    def _note(self, reason: str) -> None:
        self._ended[reason] = self._ended.get(reason, 0) + 1
        metrics = self._metrics()
        if metrics is not None:
            metrics.connections_ended.labels(reason).inc()

    def _tell(self) -> None:
        """One line a sweep, however many there were: whoever floods us shall not flood the log."""
        metrics = self._metrics()
        if metrics is not None:
            metrics.open_connections.set(len(self._open))
        if self._ended:
            told, self._ended = self._ended, {}
            level = _log.warning if set(told) - CLOSED else _log.debug
            level("connections_ended", **told, open=len(self._open), most=self._limits.most)
