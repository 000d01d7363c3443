"""One limit's counter for requests that come in the order of time: its present window is one number.

A store must find any window of any moment; here time only goes forward, so that a window's sum is kept while it lasts
and a sliding window is never summed up again.
"""

from __future__ import annotations

from collections import deque

from policies.matching import Line
from policies.replay_findings import WindowUse
from policies.windows import SECONDS, Calendar, oldest_slot, slot, slot_leaves_at, slot_width_s

Cell = list[int]
"""A slot's start and what is taken of it. A settlement goes to the slot that was held, for as long as it counts."""


class Gauge:
    """`taken` is what is used and held in the present window, which lasts until `until`: `turn` before looking later.
    `since` is the oldest slot that still counts. `wanted` sums up what is wanted, whatever is admitted."""

    __slots__ = (
        "_calendar",
        "_limit",
        "_slots",
        "cell",
        "since",
        "taken",
        "until",
        "use",
        "wanted",
        "wanted_until",
    )

    def __init__(self, line: Line, calendar: Calendar) -> None:
        limit = line.limit
        self._limit = limit
        self._calendar = calendar
        self._slots: deque[Cell] = deque()
        self.cell: Cell = [0, 0]
        self.since = 0
        self.taken = 0
        self.until = float("-inf")
        self.use = WindowUse(line.budget.name, line.scope, limit.unit, limit.per, limit.sliding, limit.amount)
        self.wanted = -1
        self.wanted_until = float("-inf")
        if limit.unit == "concurrent":
            self.until = self.wanted_until = float("inf")

    def turn(self, now: float) -> None:
        """Let what has left the window go."""
        limit = self._limit
        if not limit.sliding:
            window = self._calendar.window(limit.per, now)
            self.since = int(window.start)
            self.until = window.end if window.end is not None else float("inf")
            self.cell, self.taken = [self.since, 0], 0
            return
        start = slot(limit.per, now)
        self.since = oldest_slot(limit.per, now)
        self.until = float(start + slot_width_s(limit.per))
        slots = self._slots
        while slots and slots[0][0] < self.since:
            self.taken -= slots.popleft()[1]
        self.cell = [start, 0]
        slots.append(self.cell)

    def turn_wanted(self, now: float) -> None:
        """Begin another window of what is wanted."""
        if self.wanted >= 0:
            self.use.figures.append(self.wanted)
        self.wanted = 0
        limit = self._limit
        if limit.sliding:
            length = SECONDS[limit.per]
            self.wanted_until = (now // length + 1) * length
        else:
            end = self._calendar.window(limit.per, now).end
            self.wanted_until = end if end is not None else float("inf")

    def finish(self) -> WindowUse:
        """Close the last window of what is wanted."""
        if self.wanted >= 0:
            self.use.figures.append(self.wanted)
            self.wanted = -1
        return self.use

    def refuses_until(self, least: int) -> float:
        """Return when `least` fits again if nothing more is charged, as refusals are ordered by: 0 for what ends by
        itself, infinity for what never does."""
        limit = self._limit
        if limit.unit == "concurrent":
            return 0.0
        if not limit.sliding:
            return self.until
        slots = [cell for cell in self._slots if cell[1]]
        total = sum(cell[1] for cell in slots)
        for start, amount in slots:
            total -= amount
            if total + least <= limit.amount:
                return float(slot_leaves_at(limit.per, start))
        return float(slot_leaves_at(limit.per, slots[-1][0])) if slots else 0.0
