"""The nouns of a policy: frozen, validated once at the edge, shared by every request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Unit = Literal["tokens", "input_tokens", "output_tokens", "requests", "concurrent"]
Period = Literal["minute", "hour", "day", "week", "month", "year", "total"]
Mode = Literal["enforce", "shadow"]
OutputHold = int | Literal["learned", "model_max", "clamp", "refuse"]
OnExhausted = Literal["finish", "cut"]

MICRO = 1_000_000
"""Weights are kept as whole millionths, so that the same sum is the same number in Python and in Lua."""

LIMIT_MOST = 2**50
"""Redis computes in doubles, exact up to 2**53: the largest limit plus what one request can add stays below."""

AMOUNT_MOST = 2**40
"""The most that one request can add to a counter, whatever a hostile upstream reports or a shadow budget lets by."""

SLIDING_PERIODS: tuple[Period, ...] = ("minute", "hour", "day", "week")
"""Periods of a fixed length; a month or a year has none to look back over."""


@dataclass(frozen=True, slots=True)
class Key:
    """A caller. `digest` is ``sha256:<hex>`` of the credential; the credential itself is nowhere.

    `expires` is a Unix time; `upstream_key` replaces the caller's credential on the way out.
    """

    id: str
    digest: str
    tags: Mapping[str, str] = field(default_factory=dict)
    expires: float | None = None
    disabled: bool = False
    upstream_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` of `unit` per `per`. `sliding` looks back one period from now instead of following the
    calendar. `per` is ``total`` (and meaningless) for ``concurrent``."""

    unit: Unit
    amount: int
    per: Period
    sliding: bool = False

    def __post_init__(self) -> None:
        if self.amount < 0:
            raise ValueError(f"a limit of {self.amount} {self.unit} is negative: use 0 to allow nothing")
        if self.amount > LIMIT_MOST:
            raise ValueError(f"a limit of {self.amount} {self.unit} is beyond what stores count exactly ({LIMIT_MOST})")
        if self.sliding and self.unit != "concurrent" and self.per not in SLIDING_PERIODS:
            raise ValueError(f"a limit per {self.per} cannot slide: use one of {', '.join(SLIDING_PERIODS)}")


@dataclass(frozen=True, slots=True)
class Match:
    """Who a budget is for: every given field must match. `key`, `model` and `upstream` hold glob patterns
    (empty: anyone); `tags` maps a tag to its allowed patterns."""

    key: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    upstream: tuple[str, ...] = ()
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Weights:
    """What a token costs in the budget's unit, for those who budget in cost: per token kind, and a factor per
    model pattern (first match wins)."""

    input: float = 1.0
    output: float = 1.0
    cached: float = 1.0
    reasoning: float = 1.0
    models: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        factors = (self.input, self.output, self.cached, self.reasoning, *(factor for _, factor in self.models))
        if any(factor < 0 for factor in factors):
            raise ValueError("a weight is negative: tokens cannot give budget back")


@dataclass(frozen=True, slots=True)
class Budget:
    """A named set of limits. `each` names what gets a counter of its own: ``key``, a tag, or "" (one shared).

    `output_hold` and `on_exhausted` None take the policy's default. `warn_at` holds fractions of a limit.
    """

    name: str
    limits: tuple[Limit, ...] = ()
    match: Match = Match()
    each: str = ""
    mode: Mode = "enforce"
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    output_hold: OutputHold | None = None
    on_exhausted: OnExhausted | None = None
    allow_models: tuple[str, ...] = ()
    deny_models: tuple[str, ...] = ()
    warn_at: tuple[float, ...] = ()
    weights: Weights = Weights()

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a budget has no name: its counters are kept under it")
        if isinstance(self.output_hold, int) and self.output_hold < 0:
            raise ValueError(f"budget '{self.name}': output_hold {self.output_hold} is negative")
        if any(not 0 < fraction <= 1 for fraction in self.warn_at):
            raise ValueError(f"budget '{self.name}': warn_at takes fractions above 0 and up to 1")
        kinds = [(limit.unit, limit.per, limit.sliding) for limit in self.limits]
        if len(set(kinds)) != len(kinds):
            raise ValueError(
                f"budget '{self.name}': two limits on the same unit and period share one counter; keep one"
            )


@dataclass(frozen=True, slots=True)
class Subject:
    """Who asks, for what."""

    key_id: str
    tags: Mapping[str, str]
    model: str
    upstream: str


class Estimate(NamedTuple):
    """What is known before forwarding.

    `input_tokens` is the upper bound to hold. `output_cap` is the caller's cap for one answer (None: none named),
    `choices` how many answers the request may produce, `model_max_output` the model's own limit where known.
    """

    input_tokens: int
    output_cap: int | None = None
    choices: int = 1
    model_max_output: int | None = None
    requests: int = 1


# Named tuples, where everything else is a dataclass: every request makes several for each limit it meets, and a
# frozen dataclass takes three times as long to make.
class BudgetStatus(NamedTuple):
    """One limit of one budget as it stands for a subject. `resets_at` is a Unix time, None for ``total``;
    `scope` is the counter's owner (``key=alice``, ``team=search``, ``all``)."""

    budget: str
    scope: str
    unit: Unit
    per: Period
    limit: int
    used: int
    held: int
    resets_at: float | None
    mode: Mode = "enforce"
    sliding: bool = False
    granted: int = 0
    """What operators granted on top of the limit for this window. Where it is not looked up, `used` is less by it."""

    @property
    def remaining(self) -> int:
        """What a new request may still take, never negative."""
        return max(0, self.limit + self.granted - self.used - self.held)

    @property
    def over(self) -> int:
        """What is taken beyond the limit: let by in ``shadow`` mode, or owed by answers that outgrew their holds."""
        return max(0, self.used + self.held - self.limit - self.granted)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request may not pass. `retry_after_s` is None where waiting does not help."""

    reason: Literal["window_full", "quota_spent", "never_fits", "model_denied", "output_cap_required"]
    budget: str
    scope: str
    message: str
    unit: Unit = "tokens"
    per: Period = "total"
    asked: int = 0
    available: int = 0
    limit: int = 0
    resets_at: float | None = None
    retry_after_s: float | None = None

    @property
    def limit_named(self) -> str:
        """The limit that refuses, such as ``tokens per minute``; "" where it was none."""
        if self.reason in ("model_denied", "output_cap_required"):
            return ""
        if self.unit == "concurrent":
            return "concurrent requests"
        unit = self.unit.replace("_", " ")
        if self.per != "total":
            return f"{unit} per {self.per}"
        return f"{unit} in one request" if self.reason == "never_fits" else f"{unit} in total"


class Rates(NamedTuple):
    """What one token of each kind costs a budget, in millionths (`MICRO`), the model's factor included."""

    input: int = MICRO
    output: int = MICRO
    cached: int = MICRO
    reasoning: int = MICRO


UNWEIGHTED = Rates()


class Charge(NamedTuple):
    """One line of a reservation: `amount` is held on `counter` (a key that names budget, scope, unit and window
    start, and never the limit's amount) as long as used + held stays within `ceiling` (None: shadow)."""

    counter: str
    amount: int
    ceiling: int | None
    unit: Unit
    expires_at: float | None
    """When the counter may be dropped for good: after its window ended and late settles are over."""
    rates: Rates = UNWEIGHTED
    """How this budget weighs tokens, kept so that settling follows the rules the hold was made under."""


class Reservation(NamedTuple):
    """Tokens held for one request until exactly one of settle, release or the sweeper ends it."""

    id: str
    subject: Subject
    charges: tuple[Charge, ...]
    held_input: int
    held_output: int
    held_at: float
    choices: int = 1


class Decision(NamedTuple):
    """The engine's answer. `output_cap` is set when the request must be forwarded with that cap on one answer
    (``output_hold: clamp``, `Budget.max_output_tokens`). `statuses` are after the hold; `warnings` names the
    ``warn_at`` thresholds just crossed."""

    allowed: bool
    reservation: Reservation | None
    statuses: tuple[BudgetStatus, ...] = ()
    refusal: Refusal | None = None
    output_cap: int | None = None
    warnings: tuple[str, ...] = ()
    degraded: str = ""
    """How the store failed if this decision was made without it (``allow``, ``divide``)."""
    shadowed: tuple[Refusal, ...] = ()
    """What budgets in ``shadow`` mode would have refused."""
    cuts: bool = False
    """Whether a budget wants the answer cut when it outgrows its hold and nothing more is left (`extend`)."""


class KeyRefused(Exception):
    """The credential does not admit the caller. `reason`: ``missing``, ``unknown``, ``disabled``, ``expired``."""

    def __init__(self, reason: Literal["missing", "unknown", "disabled", "expired"], message: str) -> None:
        super().__init__(message)
        self.reason = reason


class StoreLost(Exception):
    """The budget store cannot be reached; the message names it and what failed."""
