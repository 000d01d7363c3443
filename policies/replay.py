"""What would this policy have done to that traffic? The engine's own decisions, on counters in memory.

A request begins at its time and ends its latency later; between the two it holds what a live request would hold.
Every policy under comparison sees the same requests. What the live engine's rules make of a request is worked out
once for all that ask alike (`replay_terms`); only what they do not settle is asked of them again.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from operator import sub
from typing import NamedTuple

from policies import answers
from policies.gauge import Gauge
from policies.learned import LearnedOutputs
from policies.matching import PLANS_KEPT, PolicyIndex
from policies.model import AMOUNT_MOST, MICRO, Subject
from policies.policy import Policy
from policies.replay_findings import Day, Findings, FirstRefusal, Refused, refused_by
from policies.replay_terms import Met, Terms, demanded, full, same_kind, terms_of
from policies.stores.base import State, grant
from policies.traffic import Request, Used
from policies.usage import Usage

TERMS_KEPT = 20_000

ModelMax = Callable[[str], int | None]
"""The most a model can write, by its name; None where that is not known."""


Running = tuple[float, int, Met, Sequence[int] | None, Sequence[int], float, int]
"""A request under way, in the order that they end in: when that is and its number; what it meets; what is then given
back (or owed) of each hold, None where it holds nothing; the slots of its sliding holds; when it was held; and the
output tokens of one answer, 0 where that teaches nothing."""


class _Held(NamedTuple):
    """What a request holds where it is admitted: on each limit, the output of one answer, and its cap. `shadowed` are
    the budgets in ``shadow`` that would refuse it."""

    amounts: Sequence[int]
    output: int
    cap: int | None
    shadowed: Iterable[str]


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
        self._running: list[Running] = []
        self._now = float("-inf")
        self._number = 0
        self._met: dict[tuple[object, ...], Met] = {}
        self._kinds: dict[tuple[object, ...], int] = {}
        self._terms: dict[tuple[int, int | None, int, int], Terms] = {}

    def feed(self, request: Request) -> Refused | None:
        """Decide one request, and count it; the refusal, or None where it is admitted."""
        now = self._now = request.at if request.at > self._now else self._now
        running = self._running
        while running and running[0][0] <= now:
            self._end(heapq.heappop(running))
        self._number += 1
        met = self._met.get((request.key_id, request.model, request.upstream))
        if met is None or (met.untagged and request.tags):
            met = self._met_by(request)
        learned = self._policy.output_hold_floor
        if met.learns and request.cap is None:
            learned = self._learned.hold(request.key_id, request.model, floor=learned)
        kept_as = (met.kind, request.cap, request.choices, learned)
        terms = self._terms.get(kept_as)
        if terms is None:
            terms = self._terms_for(met, request, learned, kept_as)
        verdict = self._decided(met, terms, request, learned)
        if now >= met.day_until:
            self._begin_day(met, now)
        if isinstance(verdict, Refused):
            usage = _usage(request, output=terms.output, cap=terms.refused_cap)
            self._refuse(request, met, usage, verdict)
            return verdict
        self._admit(request, met, verdict, _usage(request, output=verdict.output, cap=verdict.cap))
        return None

    def finish(self) -> Findings:
        """Return what it all came to."""
        found = self.findings
        found.windows = {series: gauge.finish() for series, gauge in self._gauges.items()}
        found.requests = self._number
        for days in found.days.values():
            for day in days.values():
                found.admitted += day.admitted
                found.refused += day.refused
                found.tokens_admitted += day.tokens_admitted
                found.tokens_refused += day.tokens_refused
        if self._number:
            found.until = self._now
        return found

    def _met_by(self, request: Request) -> Met:
        """What this request meets, where it is not known yet. A key of the policy has the policy's tags; what another
        one had is what was written down."""
        key_id, tags = request.key_id, request.tags
        known = self._tags.get(key_id)
        where: tuple[object, ...] = (key_id, request.model, request.upstream)
        if known is None and tags:
            where = (*where, tuple(sorted(tags.items())))
            if (met := self._met.get(where)) is not None:
                return met
        subject = Subject(key_id, tags if known is None else known, request.model, request.upstream)
        plan = self._index.plan(subject)
        gauges = []
        for line in plan.lines:
            gauge = self._gauges.get(line.series)
            if gauge is None:
                gauge = self._gauges[line.series] = Gauge(line, self._calendar, full(line))
            gauges.append(gauge)
        most = self._model_max(request.model)
        kind = self._kinds.setdefault(same_kind(plan, most), len(self._kinds))
        if len(self._met) >= PLANS_KEPT:
            self._met.clear()
        met = self._met[where] = Met(subject, plan, tuple(gauges), most, kind, untagged=known is None and not tags)
        return met

    def _terms_for(self, met: Met, request: Request, learned: int, kept_as: tuple[int, int | None, int, int]) -> Terms:
        if len(self._terms) >= TERMS_KEPT:
            self._terms.clear()
        terms = terms_of(met, request.cap, request.choices, policy=self._policy, learned=learned)
        self._terms[kept_as] = terms
        return terms

    def _decided(self, met: Met, terms: Terms, request: Request, learned: int) -> Refused | _Held:
        """Everything fits in full, or something is full; what lies between is worked out."""
        asked, now = request.asked, self._now
        if not terms.exact or asked > terms.prompt_most:
            for gauge in met.gauges:
                if now >= gauge.until:
                    gauge.turn(now)
            if terms.denied is None:
                return self._worked_out(met, request, learned)
            budget = terms.denied.budget  # the same for all of its kind, but each has a scope of its own
            return terms.denied._replace(
                scope=next(stand.scope for stand in met.plan.stands if stand.budget.name == budget)
            )
        wanted = terms.pick([output - (-(asked * rate + more) // MICRO) for rate, more, output, _ in terms.asks])
        fits = True
        for gauge, amount in zip(met.gauges, wanted, strict=True):
            if now >= gauge.until:
                gauge.turn(now)
            if gauge.taken + amount > gauge.ceiling:
                fits = False
        if fits and not met.shadows:
            return _Held(wanted, terms.output, terms.cap, ())
        least = wanted
        if not terms.rigid:
            least = terms.pick([output - (-(asked * rate + more) // MICRO) for rate, more, _, output in terms.asks])
        if fits:
            return _Held(wanted, terms.output, terms.cap, _shadowed(met, terms, asked, least))
        refused: Refused | None = None
        longest = -1.0
        for gauge, amount in zip(met.gauges, least, strict=True):
            if gauge.taken + amount <= gauge.ceiling:
                continue
            if amount > gauge.limit:
                return self._worked_out(met, request, learned)
            if (until := gauge.refuses_until(amount)) > longest:
                refused, longest = gauge.refused, until
        return refused or self._worked_out(met, request, learned)

    def _worked_out(self, met: Met, request: Request, learned: int) -> Refused | _Held:
        """Ask the engine's rules about this very request."""
        policy, choices = self._policy, request.choices
        found = demanded(met, request.asked, request.cap, choices, policy=policy, learned=learned)
        if found.refusals:
            return refused_by(answers.first_told(found.refusals))
        states = [State(gauge.taken, 0) for gauge in met.gauges]
        outcome = grant(found.asks, states, output=min(found.output, AMOUNT_MOST))
        if isinstance(outcome, list):
            index = max(outcome, key=lambda each: met.gauges[each].refuses_until(found.asks[each].least))
            return met.gauges[index].refused
        shadowed = {refusal.budget: None for refusal in found.shadowed}
        for line, ask, state in zip(met.plan.lines, found.asks, states, strict=True):
            if ask.ceiling < 0 and state.used + ask.least > line.limit.amount:
                shadowed[line.budget.name] = None
        amounts, output, cap = outcome
        return _Held(amounts, output, cap if found.clamps else found.cap, shadowed)

    def _admit(self, request: Request, met: Met, verdict: _Held, usage: Used | None) -> None:
        now, amounts, day = self._now, verdict.amounts, met.day
        day.admitted += 1
        answer = 0
        if usage is None:
            changes = [-amount for amount in amounts]
            for gauge, amount in zip(met.gauges, amounts, strict=True):
                gauge.taken += amount
        else:
            day.tokens_admitted += usage.input_tokens + usage.output_tokens
            used = met.spends.amounts(usage)
            changes = list(map(sub, used, amounts))
            for gauge, amount, cost in zip(met.gauges, amounts, used, strict=True):
                gauge.taken += amount
                gauge.wanted += cost
            if met.sliding:
                _want(met, used)
            if request.refused:
                self.findings.assumed += 1
            elif self._learns and request.source != "held" and usage.output_tokens > 0:
                answer = -(-usage.output_tokens // request.choices)
        slots: Sequence[int] = ()
        if met.sliding:
            slots = [gauge.slot for _, gauge in met.sliding]
            for index, gauge in met.sliding:
                gauge.slots[gauge.slot] += amounts[index]
        for gauge in met.concurrent:
            gauge.run()
        if verdict.shadowed:
            self.findings.would_refuse += 1
            for name in verdict.shadowed:
                day.of(name).would_refuse += 1
        ends_at = request.ends_at if request.ends_at > now else now
        heapq.heappush(self._running, (ends_at, self._number, met, changes, slots, now, answer))

    def _refuse(self, request: Request, met: Met, usage: Used | None, refused: Refused) -> None:
        now, day, tokens = self._now, met.day, 0
        if usage is not None:
            tokens = usage.input_tokens + usage.output_tokens
            used = met.spends.amounts(usage)
            for gauge, cost in zip(met.gauges, used, strict=True):
                gauge.wanted += cost
            if met.sliding:
                _want(met, used)
        day.refused += 1
        day.tokens_refused += tokens
        tally = day.of(refused.budget)
        tally.refused += 1
        tally.tokens_refused += tokens
        if tally.first_refusal is None:
            tally.first_refusal = FirstRefusal(now, request.request_id, refused)
        if met.concurrent and request.ends_at > now:
            for gauge in met.concurrent:
                gauge.run()
            heapq.heappush(self._running, (request.ends_at, self._number, met, None, (), now, 0))

    def _end(self, running: Running) -> None:
        _, _, met, changes, slots, held_at, answer = running
        for gauge in met.concurrent:
            gauge.wanted -= 1
        if changes is None:
            return
        for gauge, change in zip(met.gauges, changes, strict=True):
            if held_at >= gauge.since:
                gauge.taken += change
        for (index, gauge), slot in zip(met.sliding, slots, strict=True):
            if slot in gauge.slots:
                gauge.slots[slot] += changes[index]
        if answer:
            key_id, model = met.subject.key_id, met.subject.model
            if not self._learned.known(key_id, model):
                self._learned.seed(key_id, model, ())
            self._learned.observe(key_id, model, answer)

    def _begin_day(self, met: Met, now: float) -> None:
        found = self.findings
        if found.since is None:
            found.since = now
        day = self._calendar.window("day", now)
        met.day_until = day.end if day.end is not None else float("inf")
        met.day = found.days.setdefault(day.start, {}).setdefault((met.subject.key_id, met.names), Day())


def _want(met: Met, used: Sequence[int]) -> None:
    for index, gauge in met.sliding:
        gauge.wanted_slots[gauge.slot] += used[index]


def _shadowed(met: Met, terms: Terms, asked: int, least: Sequence[int]) -> Iterable[str]:
    """The budgets in ``shadow`` that would refuse; to be asked before anything is held."""
    names = set(terms.shadowed)
    for most, name in met.shadow_prompts:
        if asked > most:
            names.add(name)
    for index, gauge in met.shadowed:
        if gauge.taken + least[index] > gauge.limit:
            names.add(gauge.use.budget)
    return names


def _usage(request: Request, *, output: int, cap: int | None) -> Used | None:
    """What the request used or, where it was refused in truth, would have held; None where it was given back."""
    if request.refused:
        return Usage(request.input_tokens, min(output * request.choices, AMOUNT_MOST), source="held")
    if not request.source:
        return None
    if cap is None or cap * request.choices >= request.output_tokens:
        return request
    written = cap * request.choices
    return Usage(request.input_tokens, written, request.cached_tokens, min(request.reasoning_tokens, written))


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
