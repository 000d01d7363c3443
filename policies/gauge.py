"""One limit's counter for requests that come in the order of time: its present window is one number.

A store must find any window of any moment; here time only goes forward, so that a window's sum is kept while it lasts
and a sliding window is never summed up again.
"""

from __future__ import annotations

from collections.abc import Iterator

from policies.matching import Line
from policies.replay_findings import Refused, WindowUse
from policies.windows import SECONDS, Calendar, slot_leaves_at, slot_width_s

NO_CEILING = 2**62
"""What a limit in ``shadow`` fits into: everything."""


class Gauge:
    """`taken` is what is used and held in the present window, which lasts until `until`: `turn` before looking later.
    What was held from `since` on still counts in it. `wanted` is what would be taken, whatever is admitted.

    A sliding limit also keeps both by `slot`: add what is taken to `slots`, and what is wanted to `wanted_slots`.
    """

    __slots__ = (
        "_calendar",
        "_length",
        "_peak",
        "_step_until",
        "_width",
        "ceiling",
        "limit",
        "line",
        "refused",
        "since",
        "slides",
        "slot",
        "slots",
        "taken",
        "until",
        "use",
        "wanted",
        "wanted_slots",
    )

    def __init__(self, line: Line, calendar: Calendar, refused: Refused) -> None:
        limit = line.limit
        self.line = line
        self.limit = limit.amount
        self.ceiling = line.ceiling if line.ceiling >= 0 else NO_CEILING
        self.refused = refused
        self.slides = limit.sliding and limit.unit != "concurrent"
        self.since = self.until = self._step_until = float("-inf")
        self._length = SECONDS[limit.per] if self.slides else 0
        self._width = slot_width_s(limit.per) if self.slides else 0
        self.slot = 0
        self.taken = self.wanted = self._peak = 0
        self.slots: dict[int, int] = {}
        self.wanted_slots: dict[int, int] = {}
        self.use = WindowUse(line.budget.name, line.scope, limit.unit, limit.per, limit.sliding, limit.amount)
        self._calendar = calendar

    def turn(self, now: float) -> None:
        """Let what has left the window go, and begin the next one."""
        per = self.line.limit.per
        if self.slides:
            self._slide(now)
        elif self.line.limit.unit == "concurrent":
            # It has no window; how many ran at once at most is looked at by the day.
            self._note(self._peak)
            self._peak = self.wanted
            self.until = self._calendar.window("day", now).end or float("inf")
        else:
            window = self._calendar.window(per, now)
            self.since = window.start
            self.until = window.end if window.end is not None else float("inf")
            self._note(self.wanted)
            self.taken = self.wanted = 0

    def run(self) -> None:
        """One more wants to run at the same time as others, where the limit is ``concurrent``."""
        self.wanted += 1
        if self.wanted > self._peak:
            self._peak = self.wanted

    def finish(self) -> WindowUse:
        """Close the last window."""
        fixed = not self.slides and self.line.limit.unit != "concurrent"
        self._note(self.wanted if fixed else max(self._peak, self.wanted))
        self.wanted = self._peak = 0
        return self.use

    def refuses_until(self, least: int) -> float:
        """Return when `least` fits again if nothing more is charged, as refusals are ordered by: 0 for what ends by
        itself, infinity for what never does."""
        limit = self.line.limit
        if limit.unit == "concurrent":
            return 0.0
        if not self.slides:
            return self.until
        total, last = self.taken, 0
        for start, amount in self._counting():
            total -= amount
            last = start
            if total + least <= limit.amount:
                break
        return float(slot_leaves_at(limit.per, last)) if last else 0.0

    def _slide(self, now: float) -> None:
        width = self._width
        self.slot = int(now // width) * width
        self.since = self.slot - self._length
        self.until = self.slot + width
        if self.wanted > self._peak:
            self._peak = self.wanted
        self.taken -= _let_go(self.slots, self.since)
        self.wanted -= _let_go(self.wanted_slots, self.since)
        self.slots[self.slot] = self.wanted_slots[self.slot] = 0
        if now >= self._step_until:
            self._note(self._peak)
            self._peak = self.wanted
            self._step_until = (now // self._length + 1) * self._length

    def _counting(self) -> Iterator[tuple[int, int]]:
        return ((start, amount) for start, amount in self.slots.items() if amount)

    def _note(self, figure: int) -> None:
        if figure:
            self.use.figures.append(figure)


def _let_go(slots: dict[int, int], since: float) -> int:
    """Drop the slots from before `since`; return what was in them."""
    if not slots:
        return 0
    if next(reversed(slots)) < since:  # mostly, all of them
        gone = sum(slots.values())
        slots.clear()
        return gone
    gone = 0
    while (oldest := next(iter(slots))) < since:
        gone += slots.pop(oldest)
    return gone
