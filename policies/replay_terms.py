"""What requests of one kind ask of their limits, worked out once by the engine's own rules.

Budgets, models, caps and holds repeat; between two requests that share them only the prompt's length differs. So the
engine's `demand` is asked once with no prompt at all, and each limit's amount is then a line through that point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from policies import answers
from policies.gauge import Gauge
from policies.holds import Demand, demand
from policies.matching import Line, Plan
from policies.model import AMOUNT_MOST, MICRO, Charge, Estimate, Subject
from policies.policy import Policy
from policies.refusals import SHORT
from policies.replay_findings import Tally
from policies.stores.base import Ask, Counter, Stretch, weighed

LONGEST_PROMPT = 2**30
"""Beyond it amounts meet what one request can charge at most, and are worked out one by one."""


class Refused(NamedTuple):
    """The budget that a refusal names, and why."""

    budget: str
    reason: str


class Asked(NamedTuple):
    """What one limit is asked for: `rate` millionths for each input token, and `more` millionths on top, rounded up;
    then `output` for the answer, at least `least` of it. `ceiling` is -1 for ``shadow``."""

    rate: int
    more: int
    output: int
    least: int
    ceiling: int
    limit: int


class Terms(NamedTuple):
    """What requests of one kind, cap and hold ask. `exact` is False where each must be worked out by itself, and
    `prompt_most` is the longest prompt that may. `output` is wanted for one answer; `cap` is what it is lowered to,
    `refused_cap` the same for requests that are refused. `denied` is the answer to all of them."""

    exact: bool
    denied: Refused | None
    asks: tuple[Asked, ...]
    output: int
    cap: int | None
    refused_cap: int | None
    prompt_most: int
    shadowed: tuple[str, ...]


class Met:
    """What requests of one subject meet. Subjects that meet budgets alike share a `kind`."""

    __slots__ = (
        "counters",
        "day_until",
        "gauges",
        "kind",
        "learns",
        "model_max",
        "names",
        "plan",
        "shadow_prompts",
        "shadows",
        "spends",
        "subject",
        "tallies",
    )

    def __init__(
        self, subject: Subject, plan: Plan, gauges: tuple[Gauge, ...], model_max: int | None, kind: int
    ) -> None:
        self.subject = subject
        self.plan = plan
        self.gauges = gauges
        self.model_max = model_max
        self.kind = kind
        self.counters = tuple(Counter(line.series, 0, 0, 0, 0.0) for line in plan.lines)
        self.learns = any(stand.output_hold == "learned" for stand in plan.stands)
        self.names = tuple(stand.budget.name for stand in plan.stands) or ("",)
        self.shadows = any(not stand.enforced for stand in plan.stands)
        self.shadow_prompts = tuple(
            (stand.budget.max_input_tokens, stand.budget.name)
            for stand in plan.stands
            if not stand.enforced and stand.budget.max_input_tokens is not None
        )
        self.spends = Spending(plan.lines)
        self.day_until = float("-inf")
        self.tallies: tuple[Tally, ...] = ()


class Spending:
    """How a request's usage is charged: `charges` are the distinct ones, `which` the one of each line."""

    __slots__ = ("charges", "which")

    def __init__(self, lines: Sequence[Line]) -> None:
        found: dict[tuple[object, ...], int] = {}
        self.charges: list[Charge] = []
        which = []
        for line in lines:
            kind = (line.limit.unit, line.rates)
            if kind not in found:
                found[kind] = len(self.charges)
                self.charges.append(Charge("", 1, None, line.limit.unit, None, line.rates))
            which.append(found[kind])
        self.which = tuple(which)


def same_kind(plan: Plan, model_max: int | None) -> tuple[object, ...]:
    """Return what two subjects share when the same is asked of their limits."""
    return (
        model_max,
        tuple((id(stand.budget), stand.allows) for stand in plan.stands),
        tuple(line.rates for line in plan.lines),
    )


def demanded(met: Met, asked: int, cap: int | None, choices: int, *, policy: Policy, learned: int) -> Demand:
    """Ask the engine's own rules."""
    estimate = Estimate(asked, output_cap=cap, choices=choices, model_max_output=met.model_max)
    return demand(met.plan, estimate, met.counters, subject=met.subject, policy=policy, learned=learned)


def terms_of(met: Met, cap: int | None, choices: int, *, policy: Policy, learned: int) -> Terms:
    """Work out what requests like this ask."""
    found = demanded(met, 0, cap, choices, policy=policy, learned=learned)
    denied = None
    if any(refusal.reason == "model_denied" for refusal in found.refusals):
        first = answers.first_told(found.refusals)  # nothing that a longer prompt adds is told before it
        denied = Refused(first.budget, first.reason)
    held = found.cap if found.cap is not None else cap
    asks = [_line_of(line, ask, found, held, choices) for line, ask in zip(met.plan.lines, found.asks, strict=True)]
    prompts = [
        stand.budget.max_input_tokens
        for stand in met.plan.stands
        if stand.enforced and stand.budget.max_input_tokens is not None
    ]
    return Terms(
        exact=not found.refusals and None not in asks,
        denied=denied,
        asks=tuple(ask for ask in asks if ask is not None),
        output=min(found.output, AMOUNT_MOST),
        cap=found.output if found.clamps else found.cap,
        refused_cap=found.cap,
        prompt_most=min([*prompts, LONGEST_PROMPT]),
        shadowed=tuple({refusal.budget: None for refusal in found.shadowed}),
    )


def reason_of(line: Line) -> str:
    """Return why a full limit refuses."""
    return "window_full" if line.limit.per in SHORT or line.limit.unit == "concurrent" else "quota_spent"


def _line_of(line: Line, ask: Ask, found: Demand, cap: int | None, choices: int) -> Asked | None:
    """The ask as a function of the prompt; None where what is known does not say."""
    unit, rates, ceiling, limit = line.limit.unit, line.rates, ask.ceiling, line.limit.amount
    if ceiling < 0 and ask.base + ask.per_output * ask.most > AMOUNT_MOST // 2:
        return None
    rate = max(rates.input, rates.cached) if unit in ("tokens", "input_tokens") else 0
    if ask.stretch != Stretch.RIGID:
        output = weighed(0, ask.per_output, min(found.output, ask.most))
        return Asked(rate, 0, output, weighed(0, ask.per_output, 1), ceiling, limit)
    if rate % MICRO == 0 or unit == "input_tokens":
        return Asked(rate, 0, ask.base, ask.base, ceiling, limit)
    if cap is None:
        return None
    return Asked(rate, choices * max(rates.output, rates.reasoning) * cap, 0, 0, ceiling, limit)
