"""Reserving and settling so that no way a request may end can lose a hold or charge it twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from gateway.refusals import error_for_store
from policies.model import StoreLost

if TYPE_CHECKING:
    from policies.engine import BudgetEngine
    from policies.ledger import LedgerEntry
    from policies.model import BudgetStatus, Decision, Estimate, Reservation, Subject
    from policies.usage import Usage

_T = TypeVar("_T")
_log = structlog.get_logger("settlements")

_RETRY_S = (0.1, 0.3, 1.0, 3.0, 5.0)
"""Waits between tries to settle while the store is lost; the last one repeats."""


class Settlements:
    """Runs the engine's work in tasks of its own: a request that is cancelled leaves them to finish."""

    def __init__(self, engine: BudgetEngine, clock: Callable[[], float]) -> None:
        self.engine = engine
        self._clock = clock
        self._unfinished: set[asyncio.Task[Any]] = set()
        self._closing = False

    async def reserve(self, subject: Subject, estimate: Estimate) -> Decision:
        """Hold tokens. A caller that leaves meanwhile gets its hold released. Raises `StoreUnavailable`."""
        task = self._start(self.engine.reserve(subject, estimate, now=self._clock()))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._release_unwanted)
            raise
        except StoreLost as lost:
            raise error_for_store(lost) from None

    async def finish(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run work to its end even when the one who waits for it is cancelled."""
        return await asyncio.shield(self._start(work))

    async def settle(self, reservation: Reservation, usage: Usage) -> tuple[BudgetStatus, ...]:
        """Charge what was used. While the store is lost it goes on trying in the background and answers nothing."""
        now = self._clock()
        return await self._insist("settle", lambda: self.engine.settle(reservation, usage, now=now))

    async def release(self, reservation: Reservation) -> tuple[BudgetStatus, ...]:
        """Give the hold back in full. A lost store is treated as in `settle`."""
        now = self._clock()
        return await self._insist("release", lambda: self.engine.release(reservation, now=now))

    async def record(self, entry: LedgerEntry) -> None:
        """Write a request down in the ledger; a lost store costs the row, never the request."""
        try:
            await self.engine.record(entry)
        except StoreLost as lost:
            _log.error("ledger_row_lost", request_id=entry.request_id, reason=str(lost))

    async def close(self) -> None:
        """Let everything that was begun come to its end; give up retrying what the lost store refuses."""
        self._closing = True
        while self._unfinished:
            await asyncio.gather(*self._unfinished, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(work)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        return task

    def _release_unwanted(self, task: asyncio.Task[Decision]) -> None:
        if task.cancelled() or task.exception() is not None:
            return
        reservation = task.result().reservation
        if reservation is not None:
            self._start(self.release(reservation))

    async def _insist(
        self, what: str, work: Callable[[], Coroutine[Any, Any, tuple[BudgetStatus, ...]]]
    ) -> tuple[BudgetStatus, ...]:
        try:
            return await work()
        except StoreLost as lost:
            _log.error("store_lost", during=what, reason=str(lost))
            self._start(self._retry(what, work))
            return ()

    async def _retry(self, what: str, work: Callable[[], Coroutine[Any, Any, tuple[BudgetStatus, ...]]]) -> None:
        attempt = 0
        while not self._closing:
            await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
            attempt += 1
            try:
                await work()
            except StoreLost:
                continue
            _log.info("store_recovered", during=what, attempts=attempt)
            return
        _log.error("left_to_the_sweeper", during=what, attempts=attempt)


__all__ = ["Settlements"]
