"""Counters in memory and the arithmetic on them, shared by the memory store and the SQLite store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from policies.stores.base import NOTHING, SLOTS_AHEAD, Counter, Denied, Granted, Order, State, grant

Key = tuple[str, int]

LET_GO_AT_ONCE = 256
"""Forgotten counters whose memory is given back at a time: a hundred thousand at once would take 10 ms."""


class Cell:
    """One counter. `dirty` until whoever keeps it for good has it."""

    __slots__ = ("dirty", "expires_at", "held", "used")

    def __init__(self, used: int = 0, held: int = 0, expires_at: float = 0.0) -> None:
        self.used = used
        self.held = held
        self.expires_at = expires_at
        self.dirty = False


class Book:
    """Counters by (series, slot). Not thread-safe: one thread owns it.

    `load` is asked once for every calendar counter, and once for the slots of a sliding one, that are not known
    yet: it puts what is kept elsewhere into `cells`. Without it, what is unknown is zero.
    """

    def __init__(self, load: Callable[[str, int, int], None] | None = None) -> None:
        self.cells: dict[Key, Cell] = {}
        self.dirty: list[tuple[Key, Cell]] = []
        self._load = load
        self._forgotten: list[dict[Key, Cell]] = []

    def state(self, counter: Counter) -> State:
        """Return a counter as it stands, summed over its slots."""
        series, slot, _, step, _ = counter
        if not step:
            cell = self.cells.get((series, slot)) or self._loaded(series, slot)
            return NOTHING if cell is None else State(cell.used, cell.held)
        used = held = 0
        for _, cell in self._slots(counter):
            used += cell.used
            held += cell.held
        return State(used, held)

    def states(self, counters: Iterable[Counter]) -> tuple[State, ...]:
        """Return counters as they stand."""
        state = self.state
        return tuple([state(counter) for counter in counters])

    def reserve(self, order: Order) -> Granted | Denied:
        """Hold every ask of an order or none. Two asks never share a counter."""
        asks = order.asks
        cells, states = [], []
        for ask in asks:
            cell = None if ask.counter.step else self._cell(ask.counter)
            cells.append(cell)
            states.append(self.state(ask.counter) if cell is None else State(cell.used, cell.held))
        outcome = grant(asks, states, output=order.output)
        if isinstance(outcome, list):
            slots = {
                index: tuple((start, cell.used + cell.held) for start, cell in self._slots(asks[index].counter))
                for index in outcome
                if asks[index].counter.step
            }
            return Denied(tuple(outcome), tuple(states), slots)
        amounts, output, cap = outcome
        after = []
        for ask, cell, state, amount in zip(asks, cells, states, amounts, strict=True):
            held = state.held + amount
            if cell is None:
                series, slot, _, _, expires_at = ask.counter
                self.add(series, slot, used=0, held=amount, expires_at=expires_at)
            else:
                cell.held = held
                if not cell.dirty:
                    cell.dirty = True
                    self.dirty.append((ask.counter[:2], cell))
            after.append(State(state.used, held))
        return Granted(amounts, output, cap, tuple(after))

    def settle(self, lines: Iterable[tuple[str, int, int, float]], used: Sequence[int] | None) -> None:
        """End a hold: release its amounts and charge `used`, one figure a line (None: nothing)."""
        for index, (series, slot, amount, expires_at) in enumerate(lines):
            self.add(series, slot, used=used[index] if used else 0, held=-amount, expires_at=expires_at)

    def add(self, series: str, slot: int, *, used: int, held: int, expires_at: float) -> None:
        """Move a counter."""
        key = (series, slot)
        cell = self.cells.get(key) or self._loaded(series, slot)
        if cell is None:
            cell = self.cells[key] = Cell()
        cell.used += used
        cell.held += held
        cell.expires_at = expires_at
        if not cell.dirty:
            cell.dirty = True
            self.dirty.append((key, cell))

    def keep(self, series: str, slot: int, *, used: int, held: int, expires_at: float) -> None:
        """Take over a counter from where it is kept for good, unless this book knows better."""
        self.cells.setdefault((series, slot), Cell(used, held, expires_at))

    def forget(self) -> None:
        """Forget every counter."""
        if len(self.cells) > LET_GO_AT_ONCE:
            self._forgotten.append(self.cells)
            self.cells = {}
        else:
            self.cells.clear()

    def let_go(self) -> None:
        """Give back some memory of what was forgotten."""
        if self._forgotten:
            cells = self._forgotten[-1]
            for _ in range(min(LET_GO_AT_ONCE * len(self._forgotten), len(cells))):
                cells.popitem()
            if not cells:
                self._forgotten.pop()

    def clean(self) -> None:
        """Forget which counters were moved: they are kept for good."""
        for _, cell in self.dirty:
            cell.dirty = False
        self.dirty.clear()

    def _cell(self, counter: Counter) -> Cell:
        series, slot, _, _, expires_at = counter
        key = (series, slot)
        cell = self.cells.get(key) or self._loaded(series, slot)
        if cell is None:
            cell = self.cells[key] = Cell()
        cell.expires_at = expires_at
        return cell

    def _loaded(self, series: str, slot: int) -> Cell | None:
        if self._load is None:
            return None
        self._load(series, slot, slot)
        return self.cells.setdefault((series, slot), Cell())

    def _slots(self, counter: Counter) -> list[tuple[int, Cell]]:
        series, slot, since, step, _ = counter
        cells = self.cells
        starts = range(since, slot + SLOTS_AHEAD * step + 1, step)
        if self._load is not None and any((series, start) not in cells for start in starts):
            self._load(series, since, starts[-1])
            for start in starts:
                cells.setdefault((series, start), Cell())
        found = []
        for start in starts:
            cell = cells.get((series, start))
            if cell is not None and (cell.used or cell.held):
                found.append((start, cell))
        return found
