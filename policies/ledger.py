"""One line for every finished request, and the questions asked of those lines."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Literal, NamedTuple

Outcome = Literal["ok", "refused", "upstream_error", "cancelled", "cut", "exhausted", "released", "abandoned"]
"""``exhausted``: the answer was ended here because a budget had nothing left for it."""

MEASURED = ("reported", "counted")
"""Sources that tell how long an answer was."""


class LedgerEntry(NamedTuple):
    """What one request asked, was held for, and used. Holds no prompt text.

    `counted_tokens` is our own best count of the input, `accuracy` its label; `input_tokens` is what was charged.
    `source` says where the charged figures came from (``reported``, ``counted``, ``held``, "" when nothing was
    charged). `output_cap`, `choices` and `held_*` are what a replay needs.
    """

    request_id: str
    at: float
    key_id: str
    model: str
    upstream: str
    outcome: Outcome
    tags: Mapping[str, str] = {}
    held_input: int = 0
    held_output: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    counted_tokens: int = 0
    accuracy: str = ""
    source: str = ""
    choices: int = 1
    output_cap: int | None = None
    stream: bool = False
    endpoint: str = ""
    refused_by: str = ""
    latency_s: float = 0.0
    first_byte_s: float = 0.0
    features: tuple[str, ...] = ()
    plain_tokens: int = 0
    """Our count of the input before anything learned from bills; 0 where none was made."""
    would_refuse: tuple[str, ...] = ()
    """The budgets in ``shadow`` mode that would have refused it."""
    refused_input: int = 0
    """The input tokens that a refused request would have held, for a replay; it holds none."""
    refused_for: str = ""
    """The refusal's reason (``window_full``); "" in lines of earlier versions too."""
    refused_limit: str = ""
    """Which limit it was, where it was one (``tokens per minute``)."""

    @property
    def drift(self) -> int | None:
        """The provider's input tokens less ours; None where the provider reported none or nothing was counted."""
        if self.source != "reported" or not self.counted_tokens:
            return None
        return self.input_tokens - self.counted_tokens

    @property
    def output_per_answer(self) -> int:
        """Output tokens of one answer, rounded up."""
        return -(-self.output_tokens // max(1, self.choices))


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Sums over the ledger lines that share `group`, the values of what was asked to group by."""

    group: tuple[str, ...]
    requests: int
    refused: int
    abandoned: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    would_refuse: int = 0
    """Admitted requests that a budget in ``shadow`` mode would have refused."""

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class DriftRow:
    """How our counts of a model's prompts compare with what the provider reported.

    `mean` is the mean of (reported - counted) / reported; `low` and `high` are its extremes, in tokens.
    """

    model: str
    accuracy: str
    requests: int
    equal: int
    mean: float
    low: int
    high: int


async def usage(
    entries: AsyncIterator[LedgerEntry], *, by: Sequence[str] = ("key",), zone: tzinfo | None = None
) -> list[UsageRow]:
    """Sum ledger lines. `by` takes ``key``, ``model``, ``upstream``, ``outcome``, ``day``, ``hour``, ``month``,
    ``refused_by``, ``shadowed_by`` or any tag; `zone` is where days begin (default UTC). Rows come with the most
    tokens first."""
    sums: dict[tuple[str, ...], list[int]] = {}
    where = zone or UTC
    async for entry in entries:
        group = tuple(_value(entry, name, where) for name in by)
        row = sums.setdefault(group, [0] * 8)
        row[0] += 1
        row[1] += entry.outcome == "refused"
        row[2] += entry.outcome == "abandoned"
        row[3] += entry.input_tokens
        row[4] += entry.output_tokens
        row[5] += entry.cached_tokens
        row[6] += entry.reasoning_tokens
        row[7] += bool(entry.would_refuse)
    rows = [UsageRow(group, *row) for group, row in sums.items()]
    return sorted(rows, key=lambda row: (-row.tokens, row.group))


async def drift(entries: AsyncIterator[LedgerEntry]) -> list[DriftRow]:
    """Compare our counts with the providers' own, per model and accuracy label."""
    seen: dict[tuple[str, str], list[tuple[int, int]]] = {}
    async for entry in entries:
        if entry.drift is not None:
            seen.setdefault((entry.model, entry.accuracy), []).append((entry.drift, entry.input_tokens))
    rows = []
    for (model, accuracy), pairs in sorted(seen.items()):
        drifts = [pair[0] for pair in pairs]
        mean = math.fsum(drifted / max(1, reported) for drifted, reported in pairs) / len(pairs)
        equal = sum(drifted == 0 for drifted in drifts)
        rows.append(DriftRow(model, accuracy, len(pairs), equal, mean, min(drifts), max(drifts)))
    return rows


def _value(entry: LedgerEntry, name: str, zone: tzinfo) -> str:
    match name:
        case "key":
            return entry.key_id
        case "model":
            return entry.model
        case "upstream":
            return entry.upstream
        case "outcome":
            return entry.outcome
        case "refused_by":
            return entry.refused_by
        case "shadowed_by":
            return ", ".join(entry.would_refuse)
        case "hour":
            return datetime.fromtimestamp(entry.at, zone).strftime("%Y-%m-%d %H:00")
        case "day":
            return datetime.fromtimestamp(entry.at, zone).strftime("%Y-%m-%d")
        case "month":
            return datetime.fromtimestamp(entry.at, zone).strftime("%Y-%m")
        case _:
            return entry.tags.get(name, "")
