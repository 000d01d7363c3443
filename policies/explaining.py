"""What budgets would make of a request: which meet it and why, what each would hold, and the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.holds import demand
from policies.learned import HISTORY, LearnedOutputs
from policies.matching import PolicyIndex
from policies.model import Budget, BudgetStatus, Decision, Estimate, Match, Subject
from policies.policy import Policy

if TYPE_CHECKING:
    from policies.engine import BudgetEngine


@dataclass(frozen=True, slots=True)
class Meeting:
    """One budget and one subject. `reasons` are all fields that fit when it matches, else those that do not.

    `output_hold` says how the output of one answer is held, "" for a budget that does not match.
    """

    budget: Budget
    matches: bool
    reasons: tuple[str, ...]
    output_hold: str


@dataclass(frozen=True, slots=True)
class Holding:
    """What a request asks of one limit. `status` is before it, `since` when its window began (Unix time, 0: ever),
    `asked` what would be held, `least` what admits it when less is left (the same, unless the hold can shrink)."""

    status: BudgetStatus
    since: int
    asked: int
    least: int

    @property
    def fits(self) -> bool:
        """Whether the request fits by itself. A shadow budget refuses nothing, whether it does or not."""
        return self.least <= self.status.remaining


@dataclass(frozen=True, slots=True)
class Explanation:
    """`learned` is what is held for an answer whose length nobody named, where a budget goes by that."""

    meetings: tuple[Meeting, ...]
    holdings: tuple[Holding, ...]
    learned: int
    decision: Decision


async def explain(engine: BudgetEngine, subject: Subject, estimate: Estimate, *, now: float) -> Explanation:
    """Work out what a reservation would be answered now, and why; nothing is held. Raises `StoreLost`."""
    policy, calendar = engine.policy, engine.calendar
    moment = engine.store.aligned(now)
    learned = LearnedOutputs()
    learned.seed(
        subject.key_id, subject.model, await engine.store.recent_outputs(subject.key_id, subject.model, limit=HISTORY)
    )
    hold = learned.hold(subject.key_id, subject.model, floor=policy.output_hold_floor)
    plan = PolicyIndex(policy).plan(subject)
    counters = plan.counters(calendar, moment)
    asked = demand(plan, estimate, counters, subject=subject, policy=policy, learned=hold)
    statuses = await engine.status(subject, now=now)
    decision = await engine.preview(subject, estimate, now=now)
    # A hold that shrinks to what remains is told as it would be made, not as it was wished for.
    held = [charge.amount for charge in decision.reservation.charges] if decision.reservation is not None else None
    amounts = held if held is not None and len(held) == len(asked.asks) else [ask.wanted for ask in asked.asks]
    return Explanation(
        meetings(policy, subject, estimate),
        tuple(
            Holding(status, ask.counter.since, amount, ask.least)
            for status, ask, amount in zip(statuses, asked.asks, amounts, strict=True)
        ),
        hold,
        decision,
    )


def meetings(policy: Policy, subject: Subject, estimate: Estimate) -> tuple[Meeting, ...]:
    """Return how each budget of a policy meets a subject, in the policy's order."""
    return tuple(_meeting(policy, budget, subject, estimate) for budget in policy.budgets)


def _meeting(policy: Policy, budget: Budget, subject: Subject, estimate: Estimate) -> Meeting:
    fitting: list[str] = []
    missing: list[str] = []
    for fits, said in _fields(budget.match, subject):
        (fitting if fits else missing).append(said)
    if missing:
        return Meeting(budget, False, tuple(missing), "")
    return Meeting(budget, True, tuple(fitting) or ("it is for everyone",), _output_hold(policy, budget, estimate))


def _fields(match: Match, subject: Subject) -> list[tuple[bool, str]]:
    """Whether each given field of a match fits by itself, and how to say it."""
    asked = (
        ("key", Match(key=match.key), match.key, subject.key_id),
        ("model", Match(model=match.model), match.model, subject.model),
        ("upstream", Match(upstream=match.upstream), match.upstream, subject.upstream),
        *(
            (f"tag {tag}", Match(tags={tag: patterns}), patterns, subject.tags.get(tag))
            for tag, patterns in match.tags.items()
        ),
    )
    return [_field(name, alone, patterns, value, subject) for name, alone, patterns, value in asked if patterns]


def _field(name: str, alone: Match, patterns: Sequence[str], value: str | None, subject: Subject) -> tuple[bool, str]:
    wanted = ", ".join(patterns)
    if value is None:
        return False, f"the key has no {name} (asked for: {wanted})"
    fits = _fits(alone, subject)
    return fits, f"{name} '{value}' {'is among' if fits else 'is not among'} {wanted}"


def _fits(match: Match, subject: Subject) -> bool:
    return bool(PolicyIndex(Policy(budgets=(Budget("asked", match=match),))).plan(subject).stands)


def _output_hold(policy: Policy, budget: Budget, estimate: Estimate) -> str:
    most = budget.max_output_tokens
    if estimate.output_cap is not None:
        capped = most is not None and most < estimate.output_cap and budget.mode == "enforce"
        by = f", lowered to this budget's max_output_tokens {most:,}" if capped and most is not None else ""
        return f"the request's own cap of {estimate.output_cap:,}{by}"
    rule = budget.output_hold if budget.output_hold is not None else policy.output_hold
    where = "its own" if budget.output_hold is not None else "the file's"
    if isinstance(rule, int):
        return f"{rule:,} tokens ({where} output_hold)"
    return f"{where} output_hold: {rule} ({_MEANING[rule]})"


_MEANING: Mapping[str, str] = {
    "learned": "99th percentile of what this key's requests to this model wrote, or output_hold_floor before that",
    "model_max": "the most this model can write",
    "clamp": "what remains, written into the request as its cap",
    "refuse": "a request must name a cap",
}
