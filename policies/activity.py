"""The latest ledger lines for people who watch: who used what, who was refused by what, how right counts were."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from policies.ledger import LedgerEntry

BROKEN = ("upstream_error", "cut")
"""Outcomes of an upstream that gave no answer, or one that broke off."""

DECLINED = "released"
"""The outcome of an upstream that answered with an error status (and of an admission that was given back)."""

FAILED = (*BROKEN, DECLINED)

MOST_RANKED = 12
MOST_LATEST = 25


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
    """How our counts of a model compare with its bills; `drift` is the sum of (reported - counted) over `reported`,
    `low` and `high` are its extremes in tokens."""

    model: str
    accuracy: str
    bills: int
    equal: int
    drift: float
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Served:
    """How an upstream answered."""

    upstream: str
    requests: int
    broken: int
    declined: int
    failed_at: float | None
    """When it last did either."""
    p50_s: float | None
    p95_s: float | None
    first_byte_s: float | None
    """Half of the streams have begun by then."""


@dataclass(frozen=True, slots=True)
class Refused:
    """What one budget refused one key for one reason."""

    key_id: str
    model: str
    budget: str
    reason: str
    limit: str
    count: int
    last_at: float


@dataclass(frozen=True, slots=True)
class Activity:
    """All of it; lists come with the most first."""

    total: Sums
    keys: list[Sums]
    models: list[Sums]
    key_count: int
    model_count: int
    """So many there are; the lists end earlier."""
    refusals: list[Refused]
    counted: list[Counted]
    upstreams: list[Served]
    latest: list[LedgerEntry]


def summarize(entries: Iterable[LedgerEntry], scope: Scope) -> Activity:
    """Sum up the lines of a scope; oldest first in, so that `latest` comes newest first."""
    width = max(1e-9, (scope.until - scope.since) / scope.steps)
    total = Sums("", series=[0] * scope.steps)
    keys: dict[str, Sums] = {}
    models: dict[str, Sums] = {}
    refused: dict[tuple[str, str, str, str, str], list[float]] = {}
    bills: dict[tuple[str, str], list[LedgerEntry]] = {}
    asked: dict[str, list[LedgerEntry]] = {}
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
            who = (entry.key_id, entry.model, entry.refused_by, entry.refused_for, entry.refused_limit)
            refused.setdefault(who, []).append(entry.at)
            continue
        if entry.upstream:
            asked.setdefault(entry.upstream, []).append(entry)
        if entry.drift is not None:
            bills.setdefault((entry.model, entry.accuracy), []).append(entry)
    refusals = [Refused(*who, len(times), max(times)) for who, times in refused.items()]
    counted = [_counted(*what, each) for what, each in bills.items()]
    return Activity(
        total=total,
        keys=_ranked(keys.values()),
        models=_ranked(models.values()),
        key_count=len(keys),
        model_count=len(models),
        refusals=sorted(refusals, key=lambda row: (-row.count, -row.last_at, row.key_id))[:MOST_RANKED],
        counted=sorted(counted, key=lambda row: (-row.bills, row.model))[:MOST_RANKED],
        upstreams=[_served(name, asked[name]) for name in sorted(asked)],
        latest=latest[: -MOST_LATEST - 1 : -1],
    )


def _counted(model: str, accuracy: str, entries: Sequence[LedgerEntry]) -> Counted:
    drifts = [entry.drift or 0 for entry in entries]
    billed = sum(entry.input_tokens for entry in entries)
    return Counted(
        model, accuracy, len(drifts), drifts.count(0), sum(drifts) / max(1, billed), min(drifts), max(drifts)
    )


def _served(upstream: str, entries: Sequence[LedgerEntry]) -> Served:
    whole = sorted(entry.latency_s for entry in entries if entry.outcome == "ok" and entry.latency_s)
    begun = sorted(entry.first_byte_s for entry in entries if entry.stream and entry.first_byte_s)
    failures = [entry.at for entry in entries if entry.outcome in FAILED]
    return Served(
        upstream,
        requests=len(entries),
        broken=sum(entry.outcome in BROKEN for entry in entries),
        declined=sum(entry.outcome == DECLINED for entry in entries),
        failed_at=max(failures, default=None),
        p50_s=_share(whole, 0.5),
        p95_s=_share(whole, 0.95),
        first_byte_s=_share(begun, 0.5),
    )


def _ranked(found: Iterable[Sums]) -> list[Sums]:
    return sorted(found, key=lambda each: (-each.tokens, -each.requests, each.name))[:MOST_RANKED]


def _share(ordered: Sequence[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None
