"""How long answers usually are: the 99th percentile of what a key's requests to a model wrote before."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from policies.model import AMOUNT_MOST

HISTORY = 500
"""Answers remembered for each key and model."""

ENOUGH = 20
"""Below this many answers a 99th percentile says nothing; the longest one seen or the floor is held, if larger."""

PAIRS_KEPT = 20_000

_STALE_AFTER = 16


class LearnedOutputs:
    """Output lengths of one answer by key and model, seeded from the ledger and fed by what settles here."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], _Lengths] = {}

    def known(self, key_id: str, model: str) -> bool:
        """Whether a pair's history has been seeded."""
        return (key_id, model) in self._seen

    def seed(self, key_id: str, model: str, outputs: Iterable[int]) -> None:
        """Start a pair's history with its latest answers, newest first."""
        if len(self._seen) >= PAIRS_KEPT:
            del self._seen[next(iter(self._seen))]
        self._seen.setdefault((key_id, model), _Lengths(list(outputs)[::-1]))

    def observe(self, key_id: str, model: str, output: int) -> None:
        """Add one answer's length to a pair that has been seeded."""
        lengths = self._seen.get((key_id, model))
        if lengths is not None and output > 0:
            lengths.add(output)

    def hold(self, key_id: str, model: str, *, floor: int) -> int:
        """Return what to hold for one answer: the 99th percentile, or `floor` and more while there is little of it."""
        lengths = self._seen.get((key_id, model))
        return floor if lengths is None else lengths.hold(floor)


class _Lengths:
    __slots__ = ("_next", "_percentile", "_since", "_values")

    def __init__(self, values: Sequence[int]) -> None:
        # An array: thousands of pairs are kept, and as objects their lengths would take four times the memory.
        self._values = array("q", (min(value, AMOUNT_MOST) for value in values[-HISTORY:]))
        self._next = 0
        self._since = 0
        self._percentile = 0

    def add(self, value: int) -> None:
        value = min(value, AMOUNT_MOST)
        if len(self._values) < HISTORY:
            self._values.append(value)
        else:
            self._values[self._next] = value
            self._next = (self._next + 1) % HISTORY
        self._since += 1
        if self._since >= _STALE_AFTER or value > self._percentile:
            self._percentile = 0

    def hold(self, floor: int) -> int:
        if len(self._values) < ENOUGH:
            return max(floor, max(self._values, default=0))
        if not self._percentile:
            ordered = sorted(self._values)
            self._percentile = ordered[-(-99 * len(ordered) // 100) - 1]
            self._since = 0
        return self._percentile
