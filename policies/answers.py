"""What the engine says about counters: how budgets stand, why not, and which thresholds were passed."""

from __future__ import annotations

from collections.abc import Sequence

from policies import refusals, reservations
from policies.holds import Demand
from policies.matching import Plan
from policies.model import BudgetStatus, Decision, Estimate, Refusal, Subject
from policies.stores.base import Counter, Denied, Granted, Order, State, grant

_FIRST_TOLD = ("model_denied", "never_fits", "output_cap_required", "quota_spent", "window_full")


def statuses(plan: Plan, states: Sequence[State], *, resets: Sequence[float | None]) -> tuple[BudgetStatus, ...]:
    """Return a status for each line of a plan."""
    made = BudgetStatus._make
    return tuple(
        [
            made((*line.named, used, held, resets_at, *line.kept))
            for line, (used, held), resets_at in zip(plan.lines, states, resets, strict=True)
        ]
    )


def refusal(
    plan: Plan, order: Order, estimate: Estimate, denied: Denied, *, resets: Sequence[float | None], now: float
) -> Refusal:
    """Return the one refusal to tell: the one that stands longest."""
    return refusals.longest_wait(
        [
            refusals.full(
                plan.lines[index],
                order.asks[index],
                estimate,
                state=denied.states[index],
                slots=denied.slots.get(index, ()),
                resets_at=resets[index],
                now=now,
            )
            for index in denied.refusing
        ]
    )


def previewed(
    plan: Plan,
    asked: Demand,
    subject: Subject,
    estimate: Estimate,
    states: Sequence[State],
    *,
    resets: Sequence[float | None],
    now: float,
) -> Decision:
    """Return what a reservation would be answered by counters in these states."""
    stands = statuses(plan, states, resets=resets) if states else ()
    if asked.refusals:
        return Decision(False, None, stands, first_told(asked.refusals), shadowed=asked.shadowed)
    order = Order("", "", asked.asks, estimate.input_tokens, asked.output, estimate.choices, b"")
    outcome = grant(asked.asks, states, output=asked.output)
    if isinstance(outcome, list):
        denied = Denied(tuple(outcome), tuple(states), {})
        told = refusal(plan, order, estimate, denied, resets=resets, now=now)
        return Decision(False, None, stands, told, shadowed=asked.shadowed)
    amounts, output, cap = outcome
    reservation = reservations.made(subject, plan, order, Granted(amounts, output, cap, tuple(states)), now=now)
    return Decision(True, reservation, stands, output_cap=cap if asked.clamps else asked.cap, shadowed=asked.shadowed)


def first_told(refused: Sequence[Refusal]) -> Refusal:
    """Return the refusal to tell of several that no counter was asked for."""
    return min(refused, key=lambda refusal: _FIRST_TOLD.index(refusal.reason))


def shadowed(
    plan: Plan, order: Order, estimate: Estimate, granted: Granted, *, resets: Sequence[float | None], now: float
) -> tuple[Refusal, ...]:
    """Return what budgets in ``shadow`` mode would have refused, had they been asked."""
    found = []
    for index, line in enumerate(plan.lines):
        if line.ceiling >= 0:
            continue
        used, held = granted.states[index]
        before = State(used, held - granted.amounts[index])
        if before.used + before.held + order.asks[index].least > line.limit.amount >= order.asks[index].least:
            told = refusals.full(
                line, order.asks[index], estimate, state=before, slots=(), resets_at=resets[index], now=now
            )
            found.append(told)
    return tuple(found)


def warnings(
    plan: Plan, counters: Sequence[Counter], states: Sequence[State], *, warned: dict[tuple[str, float], int]
) -> tuple[str, ...]:
    """Name the ``warn_at`` thresholds passed and not yet in `warned`, where they are then noted with their window."""
    found: list[str] = []
    for line, (used, held), counter in zip(plan.lines, states, counters, strict=True):
        for amount, fraction in line.warn_at:
            if used + held < amount:
                break
            # A sliding window is warned of once a period, others once a window.
            window = counter.slot // (counter.slot - counter.since) if counter.step else counter.slot
            if warned.get((line.series, fraction)) != window:
                warned[(line.series, fraction)] = window
                found.append(
                    f"Budget '{line.budget.name}' ({line.scope}) has passed {fraction:.0%} of its "
                    f"{line.limit.amount:,} {refusals.WORDS[line.limit.unit]}: {used + held:,} are taken."
                )
    return tuple(found)
