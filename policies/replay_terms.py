"""What requests of one kind ask of their limits, worked out once by the engine's own rules.

Budgets, models, caps and holds repeat; between two requests that share them only the prompt's length differs. So the
engine's `demand` is asked once with no prompt at all, and each limit's amount is then a line through that point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import NamedTuple, TypeVar

from policies import answers
from policies.gauge import NO_CEILING, Gauge
from policies.holds import Demand, demand
from policies.matching import Line, Plan
from policies.model import AMOUNT_MOST, MICRO, UNWEIGHTED, Estimate, Subject, Unit
from policies.policy import Policy
from policies.refusals import SHORT
from policies.replay_findings import Day, Refused, refused_by
from policies.stores.base import Ask, Counter, Stretch, weighed
from policies.traffic import Used

T = TypeVar("T")

LONGEST_PROMPT = 2**30
"""Beyond it amounts meet what one request can charge at most, and are worked out one by one."""


Pick = Callable[[Sequence[int]], Sequence[int]]
"""Spreads the figures of a few kinds over the lines of a plan."""


class Asked(NamedTuple):
    """What one limit is asked for: `rate` millionths for each input token, and `more` millionths on top, rounded up;
    then `output` for the answer, at least `least` of it."""

    rate: int
    more: int
    output: int
    least: int


class Terms(NamedTuple):
    """What requests of one kind, cap and hold ask. `exact` is False where each must be worked out by itself, and
    `prompt_most` is the longest prompt that may. `asks` are the distinct ones, and `pick` gives each line its own;
    `rigid` says that the least is all. `output` is wanted for one answer; `cap` is what it is lowered to,
    `refused_cap` the same for requests that are refused. `denied` is the answer to all of them."""

    exact: bool
    denied: Refused | None
    asks: tuple[Asked, ...]
    pick: Pick
    rigid: bool
    output: int
    cap: int | None
    refused_cap: int | None
    prompt_most: int
    shadowed: tuple[str, ...]


class Met:
    """What requests of one subject meet. Subjects that meet budgets alike share a `kind`; `untagged` is one whose key
    the policy does not know, without tags of its own."""

    __slots__ = (
        "concurrent",
        "counters",
        "day",
        "day_until",
        "gauges",
        "kind",
        "learns",
        "model_max",
        "names",
        "plan",
        "shadow_prompts",
        "shadowed",
        "shadows",
        "sliding",
        "spends",
        "subject",
        "untagged",
    )

    def __init__(
        self,
        subject: Subject,
        plan: Plan,
        gauges: tuple[Gauge, ...],
        model_max: int | None,
        kind: int,
        *,
        untagged: bool,
    ) -> None:
        self.subject = subject
        self.plan = plan
        self.gauges = gauges
        self.model_max = model_max
        self.kind = kind
        self.untagged = untagged
        self.counters = tuple(Counter(line.series, 0, 0, 0, 0.0) for line in plan.lines)
        self.learns = any(stand.output_hold == "learned" for stand in plan.stands)
        self.names = tuple(stand.budget.name for stand in plan.stands) or ("",)
        self.shadows = any(not stand.enforced for stand in plan.stands)
        self.shadow_prompts = tuple(
            (stand.budget.max_input_tokens, stand.budget.name)
            for stand in plan.stands
            if not stand.enforced and stand.budget.max_input_tokens is not None
        )
        self.shadowed = tuple((index, gauge) for index, gauge in enumerate(gauges) if gauge.ceiling == NO_CEILING)
        self.sliding = tuple((index, gauge) for index, gauge in enumerate(gauges) if gauge.slides)
        self.concurrent = tuple(gauge for gauge in gauges if gauge.line.limit.unit == "concurrent")
        self.spends = Spending(plan.lines)
        self.day_until = float("-inf")
        self.day = Day()


class Spending:
    """How a request's usage is charged: the engine's rule (`holds.spent`) as one sum for lines that charge alike."""

    __slots__ = ("_pick", "_sums")

    def __init__(self, lines: Sequence[Line]) -> None:
        places, sums = [], []
        for line in lines:
            unit, rates = line.limit.unit, line.rates
            if unit in ("requests", "concurrent") or rates == UNWEIGHTED:
                places.append(_PLAIN.index(unit))
                continue
            reads = 0 if unit == "output_tokens" else 1
            writes = 0 if unit == "input_tokens" else 1
            weighed = (
                reads * rates.input,
                reads * (rates.cached - rates.input),
                writes * rates.output,
                writes * (rates.reasoning - rates.output),
            )
            if weighed not in sums:
                sums.append(weighed)
            places.append(len(_PLAIN) + sums.index(weighed))
        self._sums = sums
        self._pick: Pick = itemgetter(*places) if len(places) > 1 else lambda figures: [figures[at] for at in places]

    def amounts(self, usage: Used) -> Sequence[int]:
        """Return what each line is charged. `usage` is as `traffic` makes it: nothing negative, no more special tokens
        than tokens."""
        read, written = usage.input_tokens, usage.output_tokens
        figures = [read + written, read, written, 1, 0]
        for for_read, for_cached, for_written, for_reasoning in self._sums:
            total = read * for_read + usage.cached_tokens * for_cached
            figures.append(-(-(total + written * for_written + usage.reasoning_tokens * for_reasoning) // MICRO))
        if max(figures) > AMOUNT_MOST:
            figures = [min(figure, AMOUNT_MOST) for figure in figures]
        return self._pick(figures)


_PLAIN: tuple[Unit, ...] = ("tokens", "input_tokens", "output_tokens", "requests", "concurrent")


def told_apart(values: Sequence[T]) -> tuple[tuple[T, ...], Pick]:
    """Return the distinct values, and what spreads as many figures over all places again."""
    distinct = tuple(dict.fromkeys(values))
    if len(distinct) == len(values):
        return distinct, _as_they_are
    return distinct, itemgetter(*(distinct.index(value) for value in values))


def _as_they_are(figures: Sequence[int]) -> Sequence[int]:
    return figures


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
        denied = refused_by(first)
    held = found.cap if found.cap is not None else cap
    asks = [_line_of(line, ask, found, held, choices) for line, ask in zip(met.plan.lines, found.asks, strict=True)]
    prompts = [
        stand.budget.max_input_tokens
        for stand in met.plan.stands
        if stand.enforced and stand.budget.max_input_tokens is not None
    ]
    distinct, pick = told_apart([ask for ask in asks if ask is not None])
    return Terms(
        exact=not found.refusals and None not in asks,
        denied=denied,
        asks=distinct,
        pick=pick,
        rigid=all(ask.least == ask.output for ask in distinct),
        output=min(found.output, AMOUNT_MOST),
        cap=found.output if found.clamps else found.cap,
        refused_cap=found.cap,
        prompt_most=min([*prompts, LONGEST_PROMPT]),
        shadowed=tuple({refusal.budget: None for refusal in found.shadowed}),
    )


def full(line: Line) -> Refused:
    """Return how a limit refuses that is full."""
    limit = line.limit
    reason = "window_full" if limit.per in SHORT or limit.unit == "concurrent" else "quota_spent"
    return Refused(line.budget.name, reason, line.scope, limit.unit, limit.per, limit.amount, limit.sliding)


def _line_of(line: Line, ask: Ask, found: Demand, cap: int | None, choices: int) -> Asked | None:
    """The ask as a function of the prompt; None where what is known does not say."""
    unit, rates = line.limit.unit, line.rates
    if ask.ceiling < 0 and ask.base + ask.per_output * ask.most > AMOUNT_MOST // 2:
        return None
    rate = max(rates.input, rates.cached) if unit in ("tokens", "input_tokens") else 0
    if ask.stretch != Stretch.RIGID:
        output = weighed(0, ask.per_output, min(found.output, ask.most))
        return Asked(rate, 0, output, weighed(0, ask.per_output, 1))
    if rate % MICRO == 0 or unit == "input_tokens":
        return Asked(rate, 0, ask.base, ask.base)
    if cap is None:
        return None
    return Asked(rate, choices * max(rates.output, rates.reasoning) * cap, 0, 0)
