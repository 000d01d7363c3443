"""Budgets in this process's memory: nothing survives it, and no other process sees them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from itertools import islice

from policies.ledger import MEASURED, LedgerEntry
from policies.stores.base import Counter, Denied, Granted, HeldLine, Hold, Note, Order, Row, Settled, State
from policies.stores.book import Book

LEDGER_LINES = 100_000
BATCHES_KEPT = 1_000


class MemoryStore:
    """A `BudgetStore` for one process: tests, trials, and what stands in while the real store is lost.

    Keeps the latest `ledger_lines` ledger lines.
    """

    name = "memory"

    def __init__(self, *, ledger_lines: int = LEDGER_LINES) -> None:
        self._book = Book()
        self._holds: dict[str, Hold] = {}
        self._beats: dict[str, float] = {}
        self._ledger: deque[LedgerEntry] = deque(maxlen=ledger_lines)
        self._batches: deque[str] = deque(maxlen=BATCHES_KEPT)
        self._notes: dict[tuple[str, str], Note] = {}

    def aligned(self, now: float) -> float:
        return now

    async def reserve(self, order: Order, *, now: float) -> Granted | Denied:
        outcome = self._book.reserve(order)
        self._book.clean()
        if isinstance(outcome, Granted):
            lines = tuple(
                HeldLine(ask.counter.series, ask.counter.slot, amount, ask.counter.expires_at)
                for ask, amount in zip(order.asks, outcome.amounts, strict=True)
            )
            self._holds[order.id] = Hold(
                order.id,
                order.owner,
                now,
                order.input_tokens,
                order.output_held(outcome.output),
                order.choices,
                order.memo,
                lines,
            )
        return outcome

    async def settle(
        self,
        hold_id: str,
        used: Sequence[int] | None,
        *,
        read: Sequence[Counter],
        now: float,
        entry: LedgerEntry | None = None,
    ) -> Settled:
        hold = self._holds.pop(hold_id, None)
        if hold is not None:
            self._book.settle(hold.lines, used)
            self._book.clean()
            if entry is not None:
                self.record(entry)
        return Settled(hold is not None, self._book.states(read))

    async def charge(self, lines: Sequence[HeldLine], *, batch: str, now: float) -> None:
        if batch in self._batches:
            return
        self._batches.append(batch)
        for line in lines:
            self._book.add(line.series, line.slot, used=line.amount, held=0, expires_at=line.expires_at)
        self._book.clean()

    async def read(self, counters: Sequence[Counter], *, now: float) -> tuple[State, ...]:
        return self._book.states(counters)

    async def beat(self, owner: str, *, now: float) -> None:
        self._beats[owner] = now

    async def leave(self, owner: str) -> None:
        self._beats.pop(owner, None)

    async def owners(self) -> dict[str, float]:
        return dict(self._beats)

    async def holds(self, *, hold_id: str | None = None) -> list[Hold]:
        if hold_id is not None:
            hold = self._holds.get(hold_id)
            return [] if hold is None else [hold._replace(beat_at=self._beats.get(hold.owner, 0.0))]
        return [hold._replace(beat_at=self._beats.get(hold.owner, 0.0)) for hold in self._holds.values()]

    async def counters(self, *, series_prefix: str = "") -> list[Row]:
        return [
            Row(series, slot, cell.used, cell.held, cell.expires_at)
            for (series, slot), cell in sorted(self._book.cells.items(), key=lambda item: item[0])
            if series.startswith(series_prefix)
        ]

    async def reset(self, series_prefix: str) -> int:
        found = [cell for (series, _), cell in self._book.cells.items() if matches(series, series_prefix)]
        for cell in found:
            cell.used = 0
        return len(found)

    def record(self, entry: LedgerEntry) -> None:
        self._ledger.append(entry)

    async def entries(
        self, *, since: float = 0.0, until: float | None = None, key_id: str | None = None, model: str | None = None
    ) -> AsyncIterator[LedgerEntry]:
        for entry in list(self._ledger):
            if entry.at < since or (until is not None and entry.at >= until):
                continue
            if (key_id is None or entry.key_id == key_id) and (model is None or entry.model == model):
                yield entry

    async def recent_outputs(self, key_id: str, model: str, *, limit: int) -> list[int]:
        found: list[int] = []
        for entry in reversed(self._ledger):
            if (entry.key_id, entry.model) == (key_id, model) and entry.output_tokens and entry.source in MEASURED:
                found.append(entry.output_per_answer)
                if len(found) == limit:
                    break
        return found

    async def latest(self, *, limit: int) -> list[LedgerEntry]:
        return list(islice(reversed(self._ledger), limit))[::-1]

    async def notes(self, *, after: int = 0) -> list[Note]:
        found = [note for note in self._notes.values() if note.revision > after]
        return sorted(found, key=lambda note: note.revision)

    async def write_note(self, kind: str, name: str, body: bytes, *, replacing: int) -> int | None:
        known = self._notes.get((kind, name))
        if (known.revision if known is not None else 0) != replacing:
            return None
        revision = 1 + max((note.revision for note in self._notes.values()), default=0)
        self._notes[(kind, name)] = Note(kind, name, revision, body)
        return revision

    async def prune(self, *, now: float, ledger_before: float | None) -> None:
        cells = self._book.cells
        for key in [key for key, cell in cells.items() if 0 < cell.expires_at <= now and not cell.held]:
            del cells[key]
        while ledger_before is not None and self._ledger and self._ledger[0].at < ledger_before:
            self._ledger.popleft()

    async def ping(self) -> None:
        """Memory is always there."""

    async def close(self) -> None:
        """Nothing is waiting: what is here ends with the process."""


def matches(series: str, prefix: str) -> bool:
    """Whether a series is the one named or, for a name ending in ``|``, lies below it."""
    return series.startswith(prefix) if prefix.endswith("|") else series == prefix
