"""What providers' own bills teach: a constant a host adds in secret, or a factor an estimate is off by.

Every answer's reported usage is an observation (our count, their count) of one `Situation`. Once enough recent
observations of a situation agree, later counts of it are corrected. Agreement is judged by medians, so a single
poisoned answer moves nothing; a host that changes its hidden prompt is learned anew as its observations leave the
bounded memory. What was charged before never changes.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Literal, NamedTuple

from tokenizers_offline.prompt import Accuracy, TokenCount

ENOUGH = 8
"""Observations before anything is learned: a hidden prompt must be known within 20 requests (issue 3)."""
MEMORY = 64
"""Observations kept for each situation; the oldest leave first."""
LOOKED_AT_AGAIN = 16
"""Bills after which a correction is worked out anew although all came as foretold."""
AGREEING_SHARE = 0.7
"""Share of the kept observations that must lie near the median."""
NEAR_TOKENS, NEAR_SHARE = 3, 0.01
"""Near the median means within this many tokens, or this share of the reported count, whichever is more."""
MOST_OVERHEAD = 20_000
"""No honest hidden prompt seen is larger (Groq's compound adds 5,000 and more, counting.md)."""
FACTOR_BOUNDS = (0.5, 2.0)
"""Estimated families were off by at most 1.34 before calibration (counting.md); beyond 2 a bill is not believed."""
SPREAD_FOR_FACTOR = 1.5
"""A factor is told from a constant only when the counts seen differ by this ratio."""
MOST_SITUATIONS = 4096


class Situation(NamedTuple):
    """Where a drift belongs: one upstream, one model, and the prompt's features (tools, images, ...)."""

    upstream: str
    model: str
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Correction:
    """How to mend a count: round(factor x count) + constant; `spread` is how far agreeing bills lay from that."""

    kind: Literal["overhead", "factor"]
    factor: float
    constant: int
    spread: int

    @property
    def told(self) -> str:
        """The correction in words."""
        return f"{self.constant:+d} tokens" if self.kind == "overhead" else f"a factor of {self.factor:.3f}"


@dataclass(frozen=True, slots=True)
class Observed:
    """A situation's record since the start: `n` bills, the share that equalled the uncorrected count, the mean
    drift (reported - counted, tokens), and what has been learned."""

    situation: Situation
    n: int
    exact_share: float
    mean_drift: float
    correction: Correction | None


class _Record:
    __slots__ = ("correction", "drift", "exact", "n", "recent")

    def __init__(self) -> None:
        self.recent: deque[tuple[int, int]] = deque(maxlen=MEMORY)
        self.n = 0
        self.exact = 0
        self.drift = 0
        self.correction: Correction | None = None


class DriftLearner:
    """Corrects counts by what bills have shown. Bounded: the situations used longest ago are forgotten first."""

    def __init__(self) -> None:
        self._records: OrderedDict[Situation, _Record] = OrderedDict()

    def observe(self, situation: Situation, *, counted: int, reported: int, estimate: bool) -> None:
        """Take one bill. `counted` is the count before any correction; `estimate` whether its family is an estimate
        (only those may learn a factor)."""
        if counted < 0 or reported <= 0:
            return
        record = self._records.get(situation)
        if record is None:
            record = self._records[situation] = _Record()
            if len(self._records) > MOST_SITUATIONS:
                self._records.popitem(last=False)
        else:
            self._records.move_to_end(situation)
        record.n += 1
        record.exact += counted == reported
        record.drift += reported - counted
        record.recent.append((counted, reported))
        # A bill that came as foretold is the common case, and cannot be what agreement was missing. Where something
        # was learned, the bounds that older bills set are looked at again from time to time.
        known = record.correction
        foretold = counted if known is None else round(known.factor * counted) + known.constant
        if foretold != reported or (known is not None and record.n % LOOKED_AT_AGAIN == 0):
            record.correction = learn(record.recent, may_scale=estimate)

    def correct(self, situation: Situation, count: TokenCount) -> TokenCount:
        """Return the count as bills say it will be; the same object when nothing was learned.

        A corrected count is at best ``bounded``, and its upper bound is what the agreeing bills allow.
        """
        record = self._records.get(situation)
        if record is None or record.correction is None:
            return count
        correction = record.correction
        tokens = max(0, round(correction.factor * count.input_tokens) + correction.constant)
        accuracy = Accuracy.ESTIMATE if count.accuracy is Accuracy.ESTIMATE else Accuracy.BOUNDED
        note = f"{correction.told} learned from the bills of upstream '{situation.upstream}'"
        return TokenCount(  # every field by name: a copy by `replace` takes three times as long
            input_tokens=tokens,
            accuracy=accuracy,
            upper=tokens + correction.spread,
            encoding=count.encoding,
            revision=count.revision,
            features=count.features,
            notes=(*count.notes, note),
        )

    def observed(self, model: str | None = None) -> Iterator[Observed]:
        """Walk the record of every situation, or of one model's."""
        for situation, record in self._records.items():
            if model is None or situation.model == model:
                yield Observed(
                    situation=situation,
                    n=record.n,
                    exact_share=record.exact / record.n,
                    mean_drift=record.drift / record.n,
                    correction=record.correction,
                )

    def reset(self, *, upstream: str | None = None, model: str | None = None) -> int:
        """Forget what was learned of an upstream, a model, both, or (with neither) everything; return how many
        situations that were."""
        gone = [
            situation
            for situation in self._records
            if upstream in (None, situation.upstream) and model in (None, situation.model)
        ]
        for situation in gone:
            del self._records[situation]
        return len(gone)


def learn(bills: deque[tuple[int, int]], *, may_scale: bool) -> Correction | None:
    """Find the correction that enough (counted, reported) pairs agree on; None when they agree on none, or when the
    count already is right.

    With `may_scale`, a factor is preferred when the counts seen are spread enough to tell it from a constant.
    """
    if len(bills) < ENOUGH:
        return None
    overhead = _overhead(bills)
    if not may_scale:
        return overhead
    return _better(overhead, _factor(bills))


def _overhead(bills: deque[tuple[int, int]]) -> Correction | None:
    constant = round(median(reported - counted for counted, reported in bills))
    if not 0 < abs(constant) <= MOST_OVERHEAD:
        return None
    spread = _agreement([(reported, counted + constant) for counted, reported in bills], near_share=NEAR_SHARE)
    return None if spread is None else Correction("overhead", 1.0, constant, spread)


def _factor(bills: deque[tuple[int, int]]) -> Correction | None:
    counts = [counted for counted, _ in bills if counted > 0]
    if len(counts) < ENOUGH or max(counts) < SPREAD_FOR_FACTOR * min(counts):
        return None
    factor = median(reported / counted for counted, reported in bills if counted > 0)
    if not FACTOR_BOUNDS[0] <= factor <= FACTOR_BOUNDS[1] or math.isclose(factor, 1.0, abs_tol=0.005):
        return None
    # An estimate is never token-exact: bills within 5 % of the line agree on it.
    spread = _agreement([(reported, round(factor * counted)) for counted, reported in bills], near_share=0.05)
    return None if spread is None else Correction("factor", factor, 0, spread)


def _agreement(pairs: list[tuple[int, int]], *, near_share: float) -> int | None:
    """How far agreeing bills lie above their prediction, in tokens; None when too few agree."""
    near = [reported - predicted for reported, predicted in pairs if _near(reported, predicted, near_share)]
    if len(near) < AGREEING_SHARE * len(pairs):
        return None
    return max(0, *near)


def _near(reported: int, predicted: int, near_share: float) -> bool:
    return abs(reported - predicted) <= max(NEAR_TOKENS, near_share * reported)


def _better(overhead: Correction | None, factor: Correction | None) -> Correction | None:
    if overhead is None or factor is None:
        return overhead or factor
    return overhead if overhead.spread <= factor.spread else factor
