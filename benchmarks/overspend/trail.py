"""What happened to the counters, in the store's own order, and whether every admission fitted.

A trail is kept by the store's server side, not by the gateways: triggers in the SQLite file, MONITOR on Redis.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.overspend.cases import Limits

SLOTS_BACK = 60
"""A sliding minute is the slot (a second) of an admission and the sixty before it."""

Place = tuple[str, int]
"""A counter: its series and its slot."""


class Moved(NamedTuple):
    """A counter stands at these figures from now on."""

    place: Place
    used: int
    held: int


class Admitted(NamedTuple):
    """A hold was made: a figure for each of its counters."""

    hold_id: str
    owner: str
    held_at: float
    key_id: str
    input_tokens: int
    output_tokens: int
    lines: tuple[tuple[Place, int], ...]


class Ended(NamedTuple):
    """A hold was settled or released; its lines are as they were made."""

    hold_id: str
    lines: tuple[tuple[Place, int], ...]


class Commit(NamedTuple):
    """What was told before took effect in one step, and what follows in another."""


Event = Moved | Admitted | Ended | Commit


_PHASES: dict[type[Event], int] = {Commit: -1, Ended: 0, Moved: 1, Admitted: 2}


@dataclass
class Audit:
    """What a trail proves. `proven` admissions fit whatever order their commit had inside; `bounded` ones share a
    commit with the end of other holds on the same counter, so that only the state after it and the most that could
    have been free before are known."""

    admissions: list[Admitted] = field(default_factory=list)
    checks: int = 0
    proven: int = 0
    bounded: int = 0
    ended: int = 0
    commits: int = 0
    violations: list[str] = field(default_factory=list)
    fullest: dict[str, float] = field(default_factory=dict)


class Auditor:
    """Follows a trail, step by step: in each, holds end first, then counters move, then new holds stand. Where a
    trail does not tell its steps apart, one begins when that order does."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._taken: dict[str, dict[int, int]] = {}
        self._before: dict[Place, int] = {}
        self._freed: dict[Place, int] = {}
        self._new: list[Admitted] = []
        self._phase = 0
        self.audit = Audit()

    def follow(self, events: Iterable[Event]) -> Audit:
        """Check a whole trail."""
        for event in events:
            phase = _PHASES[type(event)]
            if phase < self._phase:
                self._commit()
            self._phase = max(0, phase)
            match event:
                case Ended(_, lines):
                    self.audit.ended += 1
                    for place, amount in lines:
                        self._freed[place] = self._freed.get(place, 0) + amount
                case Moved((series, slot), used, held):
                    slots = self._taken.setdefault(series, {})
                    self._before.setdefault((series, slot), slots.get(slot, 0))
                    slots[slot] = used + held
                    if held < 0 or used < 0:
                        self.audit.violations.append(f"{series}@{slot} fell below nothing: used {used}, held {held}")
                case Admitted():
                    self._new.append(event)
        self._commit()
        return self.audit

    def _commit(self) -> None:
        asked: dict[Place, int] = {}
        for admitted in self._new:
            self.audit.admissions.append(admitted)
            for place, amount in admitted.lines:
                asked[place] = asked.get(place, 0) + amount
        for admitted in self._new:
            for place, amount in admitted.lines:
                self._check(admitted, place, amount, asked)
        if self._new or self._before:
            self.audit.commits += 1
        self._new.clear()
        self._before.clear()
        self._freed.clear()
        self._phase = 0

    def _check(self, admitted: Admitted, place: Place, amount: int, asked: dict[Place, int]) -> None:
        series, slot = place
        limit = self._limits.of_series(series)
        slots = self._taken.get(series, {})
        sliding = "|sliding-" in series
        audit = self.audit
        audit.checks += 1
        proven = True
        # Every window that the admission lies in: a late one meets slots that lie after its own.
        ends = [end for end in range(slot, slot + SLOTS_BACK + 1) if end in slots] if sliding else [slot]
        for end in ends:
            window = [at for at in range(end - SLOTS_BACK, end + 1) if at in slots] if sliding else [slot]
            after = sum(slots.get(at, 0) for at in window)
            before = sum(self._before.get((series, at), slots.get(at, 0)) for at in window)
            fits = before + sum(asked.get((series, at), 0) for at in window) <= limit
            proven = proven and fits
            freed = sum(self._freed.get((series, at), 0) for at in window)
            name = series.split("|")[0]
            audit.fullest[name] = max(audit.fullest.get(name, 0.0), after / limit)
            where = f"{admitted.hold_id} ({admitted.key_id}, {admitted.input_tokens} in) on {series}@{slot}..{end}"
            if before - freed + amount > limit:
                audit.violations.append(f"{where}: {before} taken, {freed} given back, {amount} more pass {limit}")
            elif admitted.key_id[0] == "s" and after > limit:
                audit.violations.append(f"{where}: {after} taken after it, of {limit}")
        audit.proven += proven
        audit.bounded += not proven
