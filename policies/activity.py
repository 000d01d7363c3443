"""The latest ledger lines for people who watch: who used what, who was refused by what, how right counts were."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from policies.ledger import LedgerEntry

FAILED = ("upstream_error", "released", "cut")
"""Outcomes that speak of the upstream: no answer, an error status, an answer that broke off."""

MOST_RANKED = 12
MOST_LATEST = 40


@dataclass(frozen=True, slots=True)
class Scope:
    """Which lines are looked at: those from `since` on, of a key, a model or a tag's value where given."""

    since: float
    until: float
    steps: int = 48
    key_id: str = ""
    model: str = ""
    tag: str = ""
    """``team:search``."""

    def covers(self, entry: LedgerEntry) -> bool:
        """Whether a line is among them."""
        if not self.since <= entry.at <= self.until:
            return False
        if self.key_id and entry.key_id != self.key_id:
            return False
        if self.model and entry.model != self.model:
            return False
        name, _, value = self.tag.partition(":")
        return not self.tag or entry.tags.get(name) == value


@dataclass(slots=True)
class Sums:
    """Figures of the lines that share a name; `series` are their tokens step by step."""

    name: str
    requests: int = 0
    refused: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    last_at: float = 0.0
    series: list[int] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def add(self, entry: LedgerEntry, step: int) -> None:
        """Take a line."""
        self.requests += 1
        self.refused += entry.outcome == "refused"
        self.failed += entry.outcome in FAILED
        self.input_tokens += entry.input_tokens
        self.output_tokens += entry.output_tokens
        self.last_at = max(self.last_at, entry.at)
        self.series[step] += entry.input_tokens + entry.output_tokens


@dataclass(frozen=True, slots=True)
class Counted:
    """How our counts of a model compare with its bills; `drift` is the sum of (reported - counted) over `reported`."""

    model: str
    accuracy: str
    bills: int
    equal: int
    drift: float


@dataclass(frozen=True, slots=True)
class Served:
    """How an upstream answered."""

    upstream: str
    requests: int
    failed: int
    p50_s: float | None
    p95_s: float | None


@dataclass(frozen=True, slots=True)
class Activity:
    """All of it; lists come with the most first."""

    total: Sums
    keys: list[Sums]
    models: list[Sums]
    refusals: list[tuple[str, str, str, int, float]]
    """Key, model, refusing budget, how often, when last."""
    counted: list[Counted]
    upstreams: list[Served]
    latest: list[LedgerEntry]


def summarize(entries: Iterable[LedgerEntry], scope: Scope) -> Activity:
    """Sum up the lines of a scope; oldest first in, so that `latest` comes newest first."""
    width = max(1e-9, (scope.until - scope.since) / scope.steps)
    total = Sums("", series=[0] * scope.steps)
    keys: dict[str, Sums] = {}
    models: dict[str, Sums] = {}
    refused: dict[tuple[str, str, str], tuple[int, float]] = {}
    bills: dict[tuple[str, str], list[int]] = {}
    served: dict[str, list[float]] = {}
    asked: dict[str, list[int]] = {}
    latest: list[LedgerEntry] = []
    for entry in entries:
        if not scope.covers(entry):
            continue
        step = min(scope.steps - 1, int((entry.at - scope.since) / width))
        total.add(entry, step)
        for found, name in ((keys, entry.key_id), (models, entry.model)):
            if name not in found:
                found[name] = Sums(name, series=[0] * scope.steps)
            found[name].add(entry, step)
        latest.append(entry)
        if entry.outcome == "refused":
            who = (entry.key_id, entry.model, entry.refused_by)
            count, _ = refused.get(who, (0, 0.0))
            refused[who] = (count + 1, entry.at)
            continue
        if entry.upstream:
            figures = asked.setdefault(entry.upstream, [0, 0])
            figures[0] += 1
            figures[1] += entry.outcome in FAILED
            if entry.outcome == "ok" and entry.latency_s:
                served.setdefault(entry.upstream, []).append(entry.latency_s)
        if entry.drift is not None:
            sums = bills.setdefault((entry.model, entry.accuracy), [0, 0, 0, 0])
            sums[0] += 1
            sums[1] += entry.drift == 0
            sums[2] += entry.drift
            sums[3] += entry.input_tokens
    return Activity(
        total,
        _ranked(keys.values()),
        _ranked(models.values()),
        sorted(((*who, *what) for who, what in refused.items()), key=lambda row: (-row[3], row))[:MOST_RANKED],
        sorted(
            (Counted(*who, each[0], each[1], each[2] / max(1, each[3])) for who, each in bills.items()),
            key=lambda row: (-row.bills, row.model),
        )[:MOST_RANKED],
        [
            Served(
                name,
                asked[name][0],
                asked[name][1],
                _share(served.get(name, ()), 0.5),
                _share(served.get(name, ()), 0.95),
            )
            for name in sorted(asked)
        ],
        latest[: -MOST_LATEST - 1 : -1],
    )


def _ranked(found: Iterable[Sums]) -> list[Sums]:
    return sorted(found, key=lambda each: (-each.tokens, -each.requests, each.name))[:MOST_RANKED]


def _share(seconds: Sequence[float], share: float) -> float | None:
    return sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * share))] if seconds else None
