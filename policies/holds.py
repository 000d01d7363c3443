"""How much a request must hold on each limit it meets, before anything goes upstream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from policies import refusals
from policies.matching import Line, Plan, Stand
from policies.model import AMOUNT_MOST, MICRO, Charge, Estimate, Refusal, Subject
from policies.policy import Policy
from policies.stores.base import Ask, Counter, Stretch
from policies.usage import Usage


class Demand(NamedTuple):
    """What a request asks of its budgets.

    `output` is the output wanted for one answer. `cap` is what the request must be forwarded with (None: as it
    is); `clamps` says that a clamp may lower `output`, which then becomes the cap. `refusals` hold from budgets
    that enforce, `shadowed` from those that only report.
    """

    asks: tuple[Ask, ...]
    output: int
    cap: int | None
    clamps: bool
    refusals: tuple[Refusal, ...]
    shadowed: tuple[Refusal, ...]


class OutputTerms(NamedTuple):
    """How a budget holds the output of one answer."""

    most: int
    stretch: Stretch


def needs_learned(plan: Plan, estimate: Estimate) -> bool:
    """Whether the hold depends on what this key and model wrote before."""
    return estimate.output_cap is None and any(stand.output_hold == "learned" for stand in plan.stands)


def demand(
    plan: Plan,
    estimate: Estimate,
    counters: Sequence[Counter],
    *,
    subject: Subject,
    policy: Policy,
    learned: int,
) -> Demand:
    """Work out a request's asks, and what can be refused without looking at any counter.

    `learned` is the hold for one answer whose length nobody named.
    """
    refused: list[Refusal] = []
    shadowed: list[Refusal] = []
    cap = estimate.output_cap
    for stand in plan.stands:
        budget = stand.budget
        found = refused if stand.enforced else shadowed
        if not stand.allows:
            found.append(refusals.model_denied(stand, subject.model))
        if budget.max_input_tokens is not None and estimate.input_tokens > budget.max_input_tokens:
            found.append(refusals.input_too_long(stand, estimate, budget.max_input_tokens))
        most = budget.max_output_tokens
        if most is not None and stand.enforced and (cap is None or cap > most):
            cap = most
    terms: dict[str, OutputTerms] = {}
    if estimate.output_cap is None:
        for stand in plan.stands:
            held = _output_terms(stand, estimate, subject=subject, policy=policy, learned=learned, cap=cap)
            if isinstance(held, Refusal):
                (refused if stand.enforced else shadowed).append(held)
                held = OutputTerms(learned, Stretch.SHRINK)
            terms[stand.budget.name] = held
    else:
        assert cap is not None
        capped = OutputTerms(cap, Stretch.RIGID)
        terms = {stand.budget.name: capped for stand in plan.stands}
    asks = tuple(
        _ask(line, estimate, counter, terms[line.budget.name])
        for line, counter in zip(plan.lines, counters, strict=True)
    )
    for line, ask in zip(plan.lines, asks, strict=True):
        if ask.least > line.limit.amount:
            (shadowed if ask.ceiling < 0 else refused).append(refusals.never_fits(line, ask, estimate))
    clamped = [ask.most for ask in asks if ask.stretch == Stretch.CLAMP and ask.ceiling >= 0]
    # A clamp caps the whole request, so nothing else needs to hold more; otherwise the largest hold is the request's.
    output = min(clamped) if clamped else max((held.most for held in terms.values()), default=0)
    new_cap = cap if cap != estimate.output_cap else None
    return Demand(asks, output, new_cap, bool(clamped), tuple(refused), tuple(shadowed))


def spent(charge: Charge, usage: Usage) -> int:
    """Return what a charge comes to once the truth is known, in the limit's own unit, rounded up."""
    match charge.unit:
        case "requests":
            return charge.amount
        case "concurrent":
            return 0
    if usage.source == "held":
        return charge.amount
    rates = charge.rates
    total = 0
    if charge.unit != "output_tokens":
        total += _weighed(usage.input_tokens, usage.cached_tokens, rates.input, rates.cached)
    if charge.unit != "input_tokens":
        total += _weighed(usage.output_tokens, usage.reasoning_tokens, rates.output, rates.reasoning)
    return min(AMOUNT_MOST, -(-total // MICRO))


def _weighed(tokens: int, special: int, rate: int, special_rate: int) -> int:
    """Millionths for `tokens`, of which `special` cost otherwise. An upstream that reports more special tokens than
    tokens, or fewer than none, gains nothing by it."""
    special = min(max(0, special), max(0, tokens))
    return (max(0, tokens) - special) * rate + special * special_rate


def _output_terms(
    stand: Stand, estimate: Estimate, *, subject: Subject, policy: Policy, learned: int, cap: int | None
) -> OutputTerms | Refusal:
    """The terms for a request that names no cap. `cap` is what budgets' `max_output_tokens` will make of it."""
    hold = stand.output_hold
    limits_output = any(limit.unit in ("tokens", "output_tokens") for limit in stand.budget.limits)
    if hold == "refuse":
        if limits_output or stand.budget.output_hold == "refuse":
            return refusals.cap_required(stand, model=subject.model, unknown_max=False)
        return OutputTerms(0, Stretch.RIGID)
    if hold == "model_max":
        most = estimate.model_max_output
        if most is None and cap is None and limits_output:
            return refusals.cap_required(stand, model=subject.model, unknown_max=True)
        return OutputTerms(_least(most, cap), Stretch.RIGID)
    if hold == "clamp":
        most = estimate.model_max_output if estimate.model_max_output is not None else policy.clamp_most
        return OutputTerms(_least(most, cap), Stretch.CLAMP)
    if hold == "learned":
        return OutputTerms(_least(learned, cap, estimate.model_max_output), Stretch.SHRINK)
    return OutputTerms(_least(hold, cap), Stretch.RIGID)


def _least(*figures: int | None) -> int:
    return min((figure for figure in figures if figure is not None), default=0)


def _ask(line: Line, estimate: Estimate, counter: Counter, terms: OutputTerms) -> Ask:
    unit = line.limit.unit
    if unit == "requests":
        return Ask(counter, line.ceiling, estimate.requests, 0, 0, Stretch.RIGID)
    if unit == "concurrent":
        return Ask(counter, line.ceiling, 1, 0, 0, Stretch.RIGID)
    rates = line.rates
    if line.ceiling < 0 and estimate.input_tokens + terms.most * estimate.choices > AMOUNT_MOST:
        return Ask(counter, line.ceiling, AMOUNT_MOST, 0, 0, Stretch.RIGID)
    read = 0 if unit == "output_tokens" else estimate.input_tokens * max(rates.input, rates.cached)
    per_output = 0 if unit == "input_tokens" else estimate.choices * max(rates.output, rates.reasoning)
    if terms.stretch == Stretch.RIGID:
        return Ask(counter, line.ceiling, -(-(read + per_output * terms.most) // MICRO), 0, 0, Stretch.RIGID)
    if not per_output or not terms.most:
        return Ask(counter, line.ceiling, -(-read // MICRO), 0, 0, Stretch.RIGID)
    return Ask(counter, line.ceiling, -(-read // MICRO), per_output, terms.most, terms.stretch)
