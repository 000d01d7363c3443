"""What the dashboard shows, read from the store: asked for at most once a second however many pages are open."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import structlog

from gateway.endpoints.dashboard_answer import Readings, View, compose
from gateway.runtime import RuntimeHolder
from policies import operating
from policies.ledger import LedgerEntry
from policies.model import BudgetStatus, StoreLost
from policies.operating import OpenHold

LINES = 10_000
"""The latest ledger lines that are looked at: read in a tenth of a second whatever the ledger's size."""

PERIOD_S = 0.9
REST = 15
"""After each reading so many times its duration pass before the next, so that watching stays cheap on a full store."""
PATIENCE_S = 2.0
"""So long a page waits for a reading; then it is told what was read before, and when that was."""
MOST_VIEWS = 32

NOTHING_YET = b"null"
"""What is told of a view before its first reading."""

T = TypeVar("T")

_log = structlog.get_logger("dashboard")


class _Kept(Generic[T]):
    """A reading that is shared while it is fresh, and kept when the next one fails. `error` says how that failed."""

    def __init__(self, read: Callable[[], Awaitable[T]], empty: T) -> None:
        self.value = empty
        self.read_s: float | None = None
        self.error = ""
        self._read = read
        self._until_s = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def get(self, *, rest: float = REST, first_s: float | None = None) -> T:
        """The reading, or the one before where it takes long; the next is made `rest` times its duration later.

        There is none before the first, which is waited for `first_s` (None: until it is made, or has failed).
        """
        if self._reading is None and time.monotonic() >= self._until_s:
            self._reading = asyncio.create_task(self._renew(rest))
        if self._reading is not None:
            is_first = self.read_s is None and not self.error
            await asyncio.wait({self._reading}, timeout=first_s if is_first else PATIENCE_S)
        return self.value

    @property
    def waits(self) -> bool:
        """Whether the store has not answered yet."""
        return self._reading is not None

    async def end(self) -> None:
        """Read no more."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _renew(self, rest: float) -> None:
        started_s = time.monotonic()
        try:
            self.value = await self._read()
            self.error, self.read_s = "", time.monotonic()
        except StoreLost as lost:
            self.error = str(lost)
        except Exception as error:  # a page that fails must say so, and be able to recover
            _log.exception("dashboard_reading_failed")
            self.error = f"{type(error).__name__} (the log has more)"
        finally:
            ended_s = time.monotonic()
            self._until_s = ended_s + max(PERIOD_S, rest * (ended_s - started_s))
            self._reading = None


class Figures:
    """The readings of one worker, made when somebody looks and never otherwise."""

    def __init__(self, holder: RuntimeHolder) -> None:
        self._holder = holder
        self._lines: _Kept[list[LedgerEntry]] = _Kept(lambda: holder.current.engine.store.latest(limit=LINES), [])
        self._counters: _Kept[list[BudgetStatus]] = _Kept(self._read_counters, [])
        self._holds: _Kept[list[OpenHold]] = _Kept(self._read_holds, [])
        self._owners: _Kept[dict[str, float]] = _Kept(lambda: holder.current.engine.store.owners(), {})
        self._shared: tuple[_Kept[Any], ...] = (self._lines, self._counters, self._holds, self._owners)
        self._views: OrderedDict[View, _Kept[bytes]] = OrderedDict()

    async def of(self, view: View) -> bytes:
        """The figures of a view as JSON."""
        kept = self._views.get(view)
        if kept is None:
            kept = self._views[view] = _Kept(lambda: self._read(view), NOTHING_YET)
            if len(self._views) > MOST_VIEWS:
                self._views.popitem(last=False)
        self._views.move_to_end(view)
        return await kept.get(rest=REST * len(self._views), first_s=PATIENCE_S)

    async def lines(self) -> list[LedgerEntry]:
        """The latest ledger lines."""
        return await self._lines.get()

    async def end(self) -> None:
        """Let go of the store, which is about to be closed."""
        for kept in (*self._views.values(), *self._shared):
            await kept.end()

    async def _read_counters(self) -> list[BudgetStatus]:
        runtime = self._holder.current
        return await operating.live_counters(runtime.engine, now=runtime.clock())

    async def _read_holds(self) -> list[OpenHold]:
        runtime = self._holder.current
        return await operating.open_holds(runtime.engine, now=runtime.clock())

    async def _read(self, view: View) -> bytes:
        runtime, shared = self._holder.current, self._shared
        now = runtime.clock()
        await asyncio.gather(*(kept.get() for kept in shared))
        lost = next((kept.error for kept in shared if kept.error), "")
        own: tuple[BudgetStatus, ...] | None = None
        known = next((key for key in runtime.policy.keys if key.id == view.key), None)
        if known is not None and not lost:
            try:
                own = await runtime.engine.status(known, now=now)
            except StoreLost as error:
                lost = str(error)
        read_s = [kept.read_s for kept in shared]
        readings = Readings(
            lines=self._lines.value,
            complete=len(self._lines.value) < LINES,
            counters=self._counters.value,
            holds=self._holds.value,
            owners=self._owners.value,
            own=own,
            lost=lost or runtime.engine.store_error,
            late=any(kept.waits for kept in shared),
            age_s=None if None in read_s else time.monotonic() - min(each for each in read_s if each is not None),
        )
        return await asyncio.to_thread(compose, runtime, readings, view, now)
