"""What a replay finds: what each key would have met at each budget and day, and what was wanted of each limit."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import NamedTuple

from policies.model import Period, Refusal, Unit

Names = tuple[str, ...]
"""The budgets that a request meets; ("",) for one that meets none."""


class Refused(NamedTuple):
    """The refusal that a caller would be told: the budget, why, and the limit that stood in the way."""

    budget: str
    reason: str
    scope: str
    unit: Unit
    per: Period
    limit: int
    sliding: bool = False


class FirstRefusal(NamedTuple):
    """When it was, which request it met, and what it was."""

    at: float
    request_id: str
    refused: Refused


@dataclass(slots=True)
class Tally:
    """What a key would have met at one budget on one day. Tokens are what the requests used, or would have held where
    they were refused in truth. `would_refuse` counts admitted requests that a budget in ``shadow`` mode would have
    refused."""

    admitted: int = 0
    refused: int = 0
    refused_elsewhere: int = 0
    would_refuse: int = 0
    tokens_admitted: int = 0
    tokens_refused: int = 0
    first_refusal: FirstRefusal | None = None

    def add(self, other: Tally) -> None:
        """Take in what another one counted."""
        self.admitted += other.admitted
        self.refused += other.refused
        self.refused_elsewhere += other.refused_elsewhere
        self.would_refuse += other.would_refuse
        self.tokens_admitted += other.tokens_admitted
        self.tokens_refused += other.tokens_refused
        first = other.first_refusal
        if first is not None and (self.first_refusal is None or first < self.first_refusal):
            self.first_refusal = first


class Day:
    """Requests of one key that meet the same budgets on one day. Each of those budgets has met all of them, so they
    are counted once; `at` counts only what is a budget's own: its refusals."""

    __slots__ = ("admitted", "at", "refused", "tokens_admitted", "tokens_refused")

    def __init__(self) -> None:
        self.admitted = self.refused = self.tokens_admitted = self.tokens_refused = 0
        self.at: dict[str, Tally] = {}

    def of(self, budget: str) -> Tally:
        """Return what a budget of them counts for itself."""
        found = self.at.get(budget)
        if found is None:
            found = self.at[budget] = Tally()
        return found

    def tally(self, budget: str) -> Tally:
        """Return what one of their budgets met."""
        own = self.at.get(budget) or Tally()
        return Tally(
            self.admitted,
            own.refused,
            self.refused - own.refused,
            own.would_refuse,
            self.tokens_admitted,
            own.tokens_refused,
            own.first_refusal,
        )


@dataclass(slots=True)
class WindowUse:
    """What would have been used of one limit in its windows, were there no limits: one figure for each window that
    anything was used in. A sliding limit is looked at in calendar steps, and its figure is the most that it would have
    held at once in that step; of ``concurrent`` it is the most that ran at the same time on one day."""

    budget: str
    scope: str
    unit: Unit
    per: Period
    sliding: bool
    limit: int
    figures: array[int] = field(default_factory=lambda: array("q"))

    def shares(self, *shares: float) -> list[int]:
        """For each share, the figure that this share of windows stay within (1.0: the largest)."""
        ordered = sorted(self.figures)
        if not ordered:
            return [0] * len(shares)
        return [ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)] for share in shares]


@dataclass(slots=True)
class Findings:
    """What a policy would have done. `days` is by the start of the day as Unix time, then by (key, budgets met);
    `windows` by series; `assumed` were refused in truth, so that what they would have used is taken to be what they
    would have held."""

    requests: int = 0
    admitted: int = 0
    refused: int = 0
    would_refuse: int = 0
    assumed: int = 0
    tokens_admitted: int = 0
    tokens_refused: int = 0
    since: float | None = None
    until: float | None = None
    days: dict[float, dict[tuple[str, Names], Day]] = field(default_factory=dict)
    windows: dict[str, WindowUse] = field(default_factory=dict)

    def tallies(self, start: float) -> dict[tuple[str, str], Tally]:
        """Return what keys met at budgets on one day: by (key, budget, or "" for requests that meet none)."""
        found: dict[tuple[str, str], Tally] = {}
        for (key_id, names), day in self.days.get(start, {}).items():
            for name in names:
                known = found.get((key_id, name))
                if known is None:
                    found[key_id, name] = day.tally(name)
                else:
                    known.add(day.tally(name))
        return found


def refused_by(refusal: Refusal) -> Refused:
    """Return a refusal of the live engine as a replay notes it."""
    return Refused(refusal.budget, refusal.reason, refusal.scope, refusal.unit, refusal.per, refusal.limit)
