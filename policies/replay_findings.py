"""What a replay finds: what each key would have met at each budget and day, and what was wanted of each limit."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from policies.model import Period, Unit


@dataclass(slots=True)
class Tally:
    """What a key would have met at one budget on one day ("" for requests that meet no budget). Tokens are what the
    requests used, or would have held where they were refused in truth. `would_refuse` counts admitted requests that
    a budget in ``shadow`` mode would have refused."""

    admitted: int = 0
    refused: int = 0
    refused_elsewhere: int = 0
    would_refuse: int = 0
    tokens_admitted: int = 0
    tokens_refused: int = 0
    first_refusal: float | None = None


@dataclass(slots=True)
class WindowUse:
    """What would have been used of one limit in its windows, were there no limits: one figure for each window that
    anything was used in. Sliding limits are looked at in calendar steps; ``concurrent`` has no figures."""

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
    """What a policy would have done. `days` is by (key, budget, start of the day as Unix time), `windows` by series;
    `assumed` were refused in truth, so that what they would have used is taken to be what they would have held."""

    requests: int = 0
    admitted: int = 0
    refused: int = 0
    would_refuse: int = 0
    assumed: int = 0
    tokens_admitted: int = 0
    tokens_refused: int = 0
    since: float | None = None
    until: float | None = None
    days: dict[tuple[str, str, float], Tally] = field(default_factory=dict)
    windows: dict[str, WindowUse] = field(default_factory=dict)
