"""What the dashboard shows, read from the store: asked for at most once a second however many pages are open."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import structlog

from gateway.endpoints.dashboard_answer import Lens, Readings, Seen, View, compose, seen
from gateway.runtime import RuntimeHolder
from policies import operating
from policies.ledger import LedgerEntry
from policies.model import BudgetStatus, StoreLost
from policies.operating import OpenHold

LINES = 30_000
"""The latest ledger lines that are looked at, some 35 MB: read in half a second whatever the ledger's size, once."""
FEW_LINES = 500
"""So many are read to see which are new."""
FORGOTTEN_AFTER_S = 120.0

PERIOD_S = 0.9
REST = 15
"""After each reading so many times its duration pass before the next, so that watching stays cheap on a full store."""
PATIENCE_S = 2.0
"""So long a page waits for a reading; then it is told what was read before, and when that was."""
MOST_VIEWS = 32

NOTHING_YET = b"null"
"""What is told of a view before its first reading."""

K = TypeVar("K")
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
        self._lines: _Kept[list[LedgerEntry]] = _Kept(self._read_lines, [])
        self._counters: _Kept[list[BudgetStatus]] = _Kept(self._read_counters, [])
        self._holds: _Kept[list[OpenHold]] = _Kept(self._read_holds, [])
        self._owners: _Kept[dict[str, float]] = _Kept(lambda: holder.current.engine.store.owners(), {})
        self._shared: tuple[_Kept[Any], ...] = (self._lines, self._counters, self._holds, self._owners)
        self._activities: OrderedDict[Lens, _Kept[Seen]] = OrderedDict()
        self._views: OrderedDict[View, _Kept[bytes]] = OrderedDict()
        self._idle: asyncio.TimerHandle | None = None

    async def of(self, view: View) -> bytes:
        """The figures of a view as JSON."""
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(FORGOTTEN_AFTER_S, self._forget)
        kept = _among(self._views, view, lambda: _Kept(lambda: self._read(view), NOTHING_YET))
        return await kept.get(rest=REST * len(self._views), first_s=PATIENCE_S)

    async def lines(self) -> list[LedgerEntry]:
        """The latest ledger lines."""
        return await self._lines.get()

    async def end(self) -> None:
        """Let go of the store, which is about to be closed."""
        if self._idle is not None:
            self._idle.cancel()
        every: list[_Kept[Any]] = [*self._views.values(), *self._activities.values(), *self._shared]
        for kept in every:
            await kept.end()

    def _forget(self) -> None:
        """Nobody looks any more: the lines are tens of megabytes."""
        self._lines = _Kept(self._read_lines, [])
        self._shared = (self._lines, *self._shared[1:])
        self._activities.clear()
        self._views.clear()

    async def _read_lines(self) -> list[LedgerEntry]:
        """The lines known, and those written since: the ledger is read back only as far as it has to be."""
        store, known = self._holder.current.engine.store, self._lines.value
        wanted = FEW_LINES if known else LINES
        while True:
            page = await store.latest(limit=wanted)
            if known:
                newest = known[-1]
                at = next((index for index in range(len(page) - 1, -1, -1) if page[index] == newest), None)
                if at is not None:
                    return (known + page[at + 1 :])[-LINES:]
            if wanted == LINES or len(page) < wanted:
                return page
            wanted = min(LINES, 8 * wanted)

    async def _read_counters(self) -> list[BudgetStatus]:
        runtime = self._holder.current
        return await operating.live_counters(runtime.engine, now=runtime.clock())

    async def _read_holds(self) -> list[OpenHold]:
        runtime = self._holder.current
        return await operating.open_holds(runtime.engine, now=runtime.clock())

    async def _read_activity(self, lens: Lens) -> Seen:
        now, lines = self._holder.current.clock(), await self._lines.get()
        return await asyncio.to_thread(seen, lines, lens, complete=len(lines) < LINES, now=now)

    async def _read(self, view: View) -> bytes:
        runtime, shared = self._holder.current, self._shared
        await asyncio.gather(*(kept.get() for kept in shared))
        activity = _among(
            self._activities, view.lens, lambda: _Kept(lambda: self._read_activity(view.lens), Seen.nothing())
        )
        await activity.get(rest=REST * len(self._activities))
        now = runtime.clock()
        lost = next((kept.error for kept in shared if kept.error), "")
        own: tuple[BudgetStatus, ...] | None = None
        known = next((key for key in runtime.policy.keys if key.id == view.lens.key), None)
        if known is not None and not lost:
            try:
                own = await runtime.engine.status(known, now=now)
            except StoreLost as error:
                lost = str(error)
        read_s = [kept.read_s for kept in shared]
        readings = Readings(
            seen=activity.value,
            counters=self._counters.value,
            holds=self._holds.value,
            owners=self._owners.value,
            own=own,
            lost=lost or runtime.engine.store_error,
            late=any(kept.waits for kept in shared),
            age_s=None if None in read_s else time.monotonic() - min(each for each in read_s if each is not None),
        )
        return await asyncio.to_thread(compose, runtime, readings, view, now)


def _among(kept: OrderedDict[K, _Kept[T]], key: K, make: Callable[[], _Kept[T]]) -> _Kept[T]:
    """The one of that key, made when there is none; the one asked for longest ago makes room."""
    if key not in kept:
        kept[key] = make()
        if len(kept) > MOST_VIEWS:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]
