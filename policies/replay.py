"""What would this policy have done to that traffic? The engine's own decisions, on counters in memory.

A request begins at its time and ends its latency later; between the two it holds what a live request would hold.
Every policy under comparison sees the same requests. What the live engine's rules make of a request is worked out
once for all that ask alike (`replay_terms`); only what they do not settle is asked of them again.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from policies import answers
from policies.gauge import Cell, Gauge
from policies.holds import spent
from policies.learned import LearnedOutputs
from policies.matching import PLANS_KEPT, PolicyIndex
from policies.model import AMOUNT_MOST, MICRO, Rates, Subject
from policies.policy import Policy
from policies.replay_findings import Findings, Tally
from policies.replay_terms import Met, Refused, Terms, demanded, reason_of, same_kind, terms_of
from policies.stores.base import State, grant
from policies.traffic import Request
from policies.usage import Usage

TERMS_KEPT = 20_000

ModelMax = Callable[[str], int | None]
"""The most a model can write, by its name; None where that is not known."""


class _Running(NamedTuple):
    """A request under way: when it ends, what of its holds is then given back or owed, and what its answer teaches."""

    ends_at: float
    number: int
    met: Met
    cells: Sequence[Cell]
    changes: Sequence[int]
    answer: int
    """Output tokens of one answer, 0 where that teaches nothing."""


class _Held(NamedTuple):
    """What a request holds where it is admitted: on each limit, the output of one answer, and its cap."""

    amounts: Sequence[int]
    output: int
    cap: int | None


class Replay:
    """One policy, fed requests in the order they began; one that comes late is taken to begin when it comes."""

    def __init__(self, policy: Policy, *, model_max: ModelMax) -> None:
        self.findings = Findings()
        self._policy = policy
        self._index = PolicyIndex(policy)
        self._calendar = self._index.calendar
        self._tags = {key.id: key.tags for key in policy.keys}
        self._model_max = model_max
        self._gauges: dict[str, Gauge] = {}
        self._learned = LearnedOutputs()
        holds = [policy.output_hold if each.output_hold is None else each.output_hold for each in policy.budgets]
        self._learns = "learned" in holds
        self._running: list[_Running] = []
        self._now = float("-inf")
        self._met: dict[tuple[object, ...], Met] = {}
        self._kinds: dict[tuple[object, ...], int] = {}
        self._terms: dict[tuple[int, int | None, int, int], Terms] = {}

    def feed(self, request: Request) -> Refused | None:
        """Decide one request, and count it; the refusal, or None where it is admitted."""
        now = self._now = request.at if request.at > self._now else self._now
        running = self._running
        while running and running[0].ends_at <= now:
            self._end(heapq.heappop(running))
        met = self._met_by(request)
        learned = self._policy.output_hold_floor
        if met.learns and request.cap is None:
            learned = self._learned.hold(request.key_id, request.model, floor=learned)
        kept_as = (met.kind, request.cap, request.choices, learned)
        terms = self._terms.get(kept_as)
        if terms is None:
            terms = self._terms_for(met, request, learned, kept_as)
        for gauge in met.gauges:
            if now >= gauge.until:
                gauge.turn(now)
        shadowed: Iterable[str] = ()
        if terms.denied is not None:
            verdict: Refused | _Held = terms.denied
        elif terms.exact and request.asked <= terms.prompt_most:
            verdict = self._decided(met, terms, request, learned)
            if met.shadows:
                shadowed = _shadowed(met, terms, request.asked)
        else:
            verdict, shadowed = self._worked_out(met, request, learned)
        if isinstance(verdict, Refused):
            usage = _usage(request, output=terms.output, cap=terms.refused_cap)
            self._count(request, met, usage, verdict, ())
            return verdict
        usage = _usage(request, output=verdict.output, cap=verdict.cap)
        used = self._count(request, met, usage, None, shadowed)
        self._begin(request, met, verdict.amounts, usage, used)
        return None

    def finish(self) -> Findings:
        """Return what it all came to."""
        self.findings.windows = {series: gauge.finish() for series, gauge in self._gauges.items()}
        return self.findings

    def _met_by(self, request: Request) -> Met:
        key_id, tags = request.key_id, request.tags
        known = self._tags.get(key_id)
        where: tuple[object, ...] = (key_id, request.model, request.upstream)
        if known is None and tags:
            where = (*where, tuple(sorted(tags.items())))
        met = self._met.get(where)
        if met is not None:
            return met
        subject = Subject(key_id, tags if known is None else known, request.model, request.upstream)
        plan = self._index.plan(subject)
        gauges = []
        for line in plan.lines:
            gauge = self._gauges.get(line.series)
            if gauge is None:
                gauge = self._gauges[line.series] = Gauge(line, self._calendar)
            gauges.append(gauge)
        most = self._model_max(request.model)
        kind = self._kinds.setdefault(same_kind(plan, most), len(self._kinds))
        if len(self._met) >= PLANS_KEPT:
            self._met.clear()
        met = self._met[where] = Met(subject, plan, tuple(gauges), most, kind)
        return met

    def _terms_for(self, met: Met, request: Request, learned: int, kept_as: tuple[int, int | None, int, int]) -> Terms:
        if len(self._terms) >= TERMS_KEPT:
            self._terms.clear()
        terms = terms_of(met, request.cap, request.choices, policy=self._policy, learned=learned)
        self._terms[kept_as] = terms
        return terms

    def _decided(self, met: Met, terms: Terms, request: Request, learned: int) -> Refused | _Held:
        """Everything fits in full, or something is full; what lies between is worked out."""
        asked, amounts, fits = request.asked, [], True
        for gauge, (rate, more, output, _, ceiling, _) in zip(met.gauges, terms.asks, strict=True):
            amount = output - (-(asked * rate + more) // MICRO)
            amounts.append(amount)
            if gauge.taken + amount > ceiling >= 0:
                fits = False
        if fits:
            return _Held(amounts, terms.output, terms.cap)
        refused: Refused | None = None
        longest = -1.0
        for gauge, (rate, more, _, output, ceiling, limit), line in zip(
            met.gauges, terms.asks, met.plan.lines, strict=True
        ):
            if ceiling < 0:
                continue
            least = output - (-(asked * rate + more) // MICRO)
            if least > limit:
                refused = None
                break
            if gauge.taken + least > ceiling and (until := gauge.refuses_until(least)) > longest:
                refused, longest = Refused(line.budget.name, reason_of(line)), until
        return refused if refused is not None else self._worked_out(met, request, learned)[0]

    def _worked_out(self, met: Met, request: Request, learned: int) -> tuple[Refused | _Held, Iterable[str]]:
        """Ask the engine's rules about this very request; also which budgets in ``shadow`` would refuse it."""
        policy, choices = self._policy, request.choices
        found = demanded(met, request.asked, request.cap, choices, policy=policy, learned=learned)
        if found.refusals:
            first = answers.first_told(found.refusals)
            return Refused(first.budget, first.reason), ()
        states = [State(gauge.taken, 0) for gauge in met.gauges]
        outcome = grant(found.asks, states, output=min(found.output, AMOUNT_MOST))
        lines = met.plan.lines
        if isinstance(outcome, list):
            index = max(outcome, key=lambda each: met.gauges[each].refuses_until(found.asks[each].least))
            return Refused(lines[index].budget.name, reason_of(lines[index])), ()
        shadowed = {refusal.budget: None for refusal in found.shadowed}
        for line, ask, state in zip(lines, found.asks, states, strict=True):
            if ask.ceiling < 0 and state.used + ask.least > line.limit.amount:
                shadowed[line.budget.name] = None
        amounts, output, cap = outcome
        return _Held(amounts, output, cap if found.clamps else found.cap), shadowed

    def _begin(
        self, request: Request, met: Met, amounts: Sequence[int], usage: Usage | None, used: Sequence[int] | None
    ) -> None:
        cells, changes = [], []
        which = met.spends.which
        for index, gauge in enumerate(met.gauges):
            amount = amounts[index]
            cell = gauge.cell
            gauge.taken += amount
            cell[1] += amount
            cells.append(cell)
            changes.append(used[which[index]] - amount if used is not None else -amount)
        answer = 0
        if self._learns and usage is not None and usage.source != "held" and usage.output_tokens > 0:
            answer = -(-usage.output_tokens // request.choices)
        ends_at = max(request.ends_at, self._now)
        heapq.heappush(self._running, _Running(ends_at, self.findings.requests, met, cells, changes, answer))

    def _end(self, running: _Running) -> None:
        for gauge, cell, change in zip(running.met.gauges, running.cells, running.changes, strict=True):
            if change:
                cell[1] += change
                if cell[0] >= gauge.since:
                    gauge.taken += change
        if running.answer:
            subject = running.met.subject
            key_id, model = subject.key_id, subject.model
            if not self._learned.known(key_id, model):
                self._learned.seed(key_id, model, ())
            self._learned.observe(key_id, model, running.answer)

    def _count(
        self, request: Request, met: Met, usage: Usage | None, refused: Refused | None, shadowed: Iterable[str]
    ) -> Sequence[int] | None:
        """Note a verdict; return what the request comes to, one figure for each of the plan's kinds of charges."""
        found, now = self.findings, self._now
        if found.since is None:
            found.since = now
        found.until = now
        found.requests += 1
        if now >= met.day_until:
            self._begin_day(met, now)
        tokens, used = 0, None
        if usage is not None:
            tokens = usage.input_tokens + usage.output_tokens
            used = _spent(met, usage)
            for gauge, which in zip(met.gauges, met.spends.which, strict=True):
                if now >= gauge.wanted_until:
                    gauge.turn_wanted(now)
                gauge.wanted += used[which]
        if refused is None:
            found.admitted += 1
            found.tokens_admitted += tokens
            found.assumed += request.refused
            for tally in met.tallies:
                tally.admitted += 1
                tally.tokens_admitted += tokens
            if shadowed:
                self._count_shadowed(met, shadowed)
            return used
        found.refused += 1
        found.tokens_refused += tokens
        for name, tally in zip(met.names, met.tallies, strict=True):
            if name != refused.budget:
                tally.refused_elsewhere += 1
                continue
            tally.refused += 1
            tally.tokens_refused += tokens
            if tally.first_refusal is None:
                tally.first_refusal = now
        return used

    def _count_shadowed(self, met: Met, shadowed: Iterable[str]) -> None:
        self.findings.would_refuse += 1
        for name, tally in zip(met.names, met.tallies, strict=True):
            if name in shadowed:
                tally.would_refuse += 1

    def _begin_day(self, met: Met, now: float) -> None:
        day = self._calendar.window("day", now)
        met.day_until = day.end if day.end is not None else float("inf")
        key_id, days = met.subject.key_id, self.findings.days
        met.tallies = tuple(days.setdefault((key_id, name, day.start), Tally()) for name in met.names)


_PLAIN = Rates()


def _spent(met: Met, usage: Usage) -> Sequence[int]:
    """What a request comes to, one figure for each kind of charge; the engine's rule, with the plainest put first."""
    found = []
    for charge in met.spends.charges:
        if charge.unit == "tokens" and charge.rates == _PLAIN:
            found.append(min(AMOUNT_MOST, max(0, usage.input_tokens) + max(0, usage.output_tokens)))
        else:
            found += spent((charge,), usage)
    return found


def _shadowed(met: Met, terms: Terms, asked: int) -> Iterable[str]:
    """The budgets in ``shadow`` that would refuse; to be asked before anything is held."""
    names = dict.fromkeys(terms.shadowed)
    for most, name in met.shadow_prompts:
        if asked > most:
            names[name] = None
    for gauge, (rate, more, _, output, ceiling, limit), line in zip(
        met.gauges, terms.asks, met.plan.lines, strict=True
    ):
        if ceiling < 0 and gauge.taken + output - (-(asked * rate + more) // MICRO) > limit:
            names[line.budget.name] = None
    return names


def _usage(request: Request, *, output: int, cap: int | None) -> Usage | None:
    """What the request used or, where it was refused in truth, would have held; None where it was given back."""
    if request.refused:
        return Usage(request.input_tokens, min(output * request.choices, AMOUNT_MOST), source="held")
    if not request.source:
        return None
    written = request.output_tokens
    if cap is not None and cap * request.choices < written:
        written = cap * request.choices
    source = request.source
    return Usage(
        request.input_tokens,
        written,
        request.cached_tokens,
        request.reasoning_tokens,
        "held" if source == "held" else "counted" if source == "counted" else "reported",
    )


async def replayed(
    pages: AsyncIterator[Sequence[Request]],
    policies: Mapping[str, Policy],
    *,
    model_max: ModelMax,
    told: Callable[[int], None] = lambda requests: None,
) -> dict[str, Findings]:
    """Replay the same traffic under several policies, by name. `told` is called now and then with the requests done."""
    replays = {name: Replay(policy, model_max=model_max) for name, policy in policies.items()}
    done = 0
    async for page in pages:
        for replay in replays.values():
            feed = replay.feed
            for request in page:
                feed(request)
        done += len(page)
        told(done)
    return {name: replay.finish() for name, replay in replays.items()}
