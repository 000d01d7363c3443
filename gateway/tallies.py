"""Adding up what many requests say about one series, and telling Prometheus's client of the sum now and then.

Its `observe` and `inc` check, lock and walk the buckets each time: for a dozen series a request that was a twentieth of
a request's cost.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left

from prometheus_client import Counter, Histogram

PERIOD_S = 0.1
"""How late a sum may be, where another process is asked for it."""


class Tallies:
    """All sums of one worker. `tell` passes them on; `run` does so again and again, until cancelled."""

    def __init__(self) -> None:
        self._changed: list[HistogramTally | CounterTally] = []

    def histogram(self, series: Histogram) -> HistogramTally:
        """A sum for one series of a histogram."""
        return HistogramTally(series, self._changed)

    def counter(self, series: Counter) -> CounterTally:
        """A sum for one series of a counter."""
        return CounterTally(series, self._changed)

    def tell(self) -> None:
        """Pass on what has changed."""
        changed = self._changed[:]
        self._changed.clear()
        for tally in changed:
            tally.tell()

    async def run(self) -> None:
        """Pass on what has changed, in time for who asks."""
        while True:
            await asyncio.sleep(PERIOD_S)
            self.tell()


class HistogramTally:
    """What one series of a histogram has not been told yet."""

    __slots__ = ("_bounds", "_buckets", "_changed", "_counts", "_is_new", "_series", "_sum")

    def __init__(self, series: Histogram, changed: list[HistogramTally | CounterTally]) -> None:
        self._series = series
        # The client has no public word for "so many at once"; these are its fields since its first versions.
        self._bounds = series._upper_bounds
        self._buckets = series._buckets
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        self._changed = changed
        self._is_new = True

    def observe(self, amount: float) -> None:
        """Note one observation."""
        self._counts[bisect_left(self._bounds, amount)] += 1
        self._sum += amount
        if self._is_new:
            self._is_new = False
            self._changed.append(self)

    def tell(self) -> None:
        """Pass on the sum."""
        self._is_new = True
        for index, times in enumerate(self._counts):
            if times:
                self._buckets[index].inc(times)
                self._counts[index] = 0
        self._series._sum.inc(self._sum)
        self._sum = 0.0


class CounterTally:
    """What one series of a counter has not been told yet."""

    __slots__ = ("_amount", "_changed", "_is_new", "_series")

    def __init__(self, series: Counter, changed: list[HistogramTally | CounterTally]) -> None:
        self._series = series
        self._amount = 0.0
        self._changed = changed
        self._is_new = True

    def inc(self, amount: float = 1) -> None:
        """Add to it."""
        self._amount += amount
        if self._is_new:
            self._is_new = False
            self._changed.append(self)

    def tell(self) -> None:
        """Pass on the sum."""
        self._is_new = True
        self._series.inc(self._amount)
        self._amount = 0.0
