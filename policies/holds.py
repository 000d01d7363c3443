"""How much a request must hold on each limit it meets, before anything goes upstream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from policies import refusals
from policies.matching import Line, Plan, Stand
from policies.model import AMOUNT_MOST, MICRO, UNWEIGHTED, Charge, Estimate, Rates, Refusal, Subject, Unit
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


_NOTHING = OutputTerms(0, Stretch.RIGID)


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
    asks = _asks(plan.lines, estimate, counters, terms)
    for line, ask in zip(plan.lines, asks, strict=True):
        if ask.base > line.limit.amount or (ask.per_output and ask.least > line.limit.amount):
            (shadowed if ask.ceiling < 0 else refused).append(refusals.never_fits(line, ask, estimate))
    clamped = [ask.most for ask in asks if ask.stretch == Stretch.CLAMP and ask.ceiling >= 0]
    # A clamp caps the whole request, so nothing else needs to hold more; otherwise the largest hold is the request's.
    output = min(clamped) if clamped else max((held.most for held in terms.values()), default=0)
    new_cap = cap if cap != estimate.output_cap else None
    return Demand(asks, output, new_cap, bool(clamped), tuple(refused), tuple(shadowed))


def extension(plan: Plan, counters: Sequence[Counter], *, output: int) -> tuple[Ask, ...]:
    """Return the asks for up to `output` more output tokens of one request, as many as are left."""
    return tuple(
        Ask(counter, line.ceiling, 0, max(line.rates.output, line.rates.reasoning), output, Stretch.SHRINK)
        for line, counter in zip(plan.lines, counters, strict=True)
    )


def spent(charges: Sequence[Charge], usage: Usage) -> tuple[int, ...]:
    """Return what charges come to once the truth is known, each in its limit's own unit, rounded up."""
    found = []
    counted: Unit | None = None
    weighed_by, amount = UNWEIGHTED, 0
    for charge in charges:
        unit = charge.unit
        if unit == "concurrent":
            found.append(0)
        elif unit == "requests":
            found.append(charge.amount)
        else:
            if unit != counted or charge.rates != weighed_by:
                counted, weighed_by = unit, charge.rates
                amount = _spent(unit, weighed_by, usage)
            found.append(amount)
    return tuple(found)


def _spent(unit: Unit, rates: Rates, usage: Usage) -> int:
    total = 0
    if unit != "output_tokens":
        total += _weighed(usage.input_tokens, usage.cached_tokens, rates.input, rates.cached)
    if unit != "input_tokens":
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


def _asks(
    lines: Sequence[Line], estimate: Estimate, counters: Sequence[Counter], terms: dict[str, OutputTerms]
) -> tuple[Ask, ...]:
    # Limits that follow each other mostly count alike, so that their figures need working out once.
    asks = []
    unit: Unit | None = None
    rates, held, figure = UNWEIGHTED, _NOTHING, (0, 0, 0, Stretch.RIGID)
    for line, counter in zip(lines, counters, strict=True):
        line_held = terms[line.budget.name]
        if line.limit.unit != unit or line.rates != rates or line_held is not held:
            unit, rates, held = line.limit.unit, line.rates, line_held
            figure = _figure(unit, rates, held, estimate)
        base, per_output, most, stretch = figure
        if line.ceiling < 0 and base + per_output * most > AMOUNT_MOST:
            base, per_output, most, stretch = AMOUNT_MOST, 0, 0, Stretch.RIGID
        asks.append(Ask(counter, line.ceiling, base, per_output, most, stretch))
    return tuple(asks)


def _figure(unit: Unit, rates: Rates, terms: OutputTerms, estimate: Estimate) -> tuple[int, int, int, Stretch]:
    if unit == "requests":
        return estimate.requests, 0, 0, Stretch.RIGID
    if unit == "concurrent":
        return 1, 0, 0, Stretch.RIGID
    read = 0 if unit == "output_tokens" else estimate.input_tokens * max(rates.input, rates.cached)
    per_output = 0 if unit == "input_tokens" else estimate.choices * max(rates.output, rates.reasoning)
    if terms.stretch == Stretch.RIGID:
        return -(-(read + per_output * terms.most) // MICRO), 0, 0, Stretch.RIGID
    if not per_output or not terms.most:
        return -(-read // MICRO), 0, 0, Stretch.RIGID
    return -(-read // MICRO), per_output, terms.most, terms.stretch
