"""What would this policy have done to that traffic? The engine's own decisions, on counters in memory.

A row of the ledger is a request that begins at its time and ends its latency later; between the two it holds what a
live request would hold. Every policy under comparison sees the same requests.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from policies import answers
from policies.holds import demand, needs_learned, spent
from policies.learned import LearnedOutputs
from policies.ledger import LedgerEntry
from policies.matching import LATE_SETTLES_S, PLANS_KEPT, Plan, PolicyIndex
from policies.model import AMOUNT_MOST, Charge, Estimate, Period, Refusal, Subject, Unit
from policies.policy import Policy
from policies.stores.base import Ask, Denied, Order
from policies.stores.book import Book
from policies.usage import Usage
from policies.windows import SECONDS

PRUNE_EVERY = 20_000
"""Requests between two looks for counters that nothing can charge any more."""

ModelMax = Callable[[str], int | None]
"""The most a model can write, by its name; None where that is not known."""


class Verdict(NamedTuple):
    """What one request would have been answered."""

    allowed: bool
    refusal: Refusal | None
    assumed: bool
    """Whether what it would have used is not known (it was refused in truth) and was taken to be what it held."""


@dataclass(slots=True)
class Tally:
    """What a key would have met at one budget on one day ("" for requests that meet no budget). Tokens are what the
    requests used, or would have held where they were refused in truth."""

    admitted: int = 0
    refused: int = 0
    refused_elsewhere: int = 0
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
    began: float = -1.0
    running: int = 0

    def add(self, window: float, amount: int) -> None:
        """Use `amount` in the window that began then."""
        if window != self.began:
            if self.began >= 0:
                self.figures.append(self.running)
            self.began, self.running = window, 0
        self.running += amount

    def finish(self) -> None:
        """Close the last window."""
        if self.began >= 0:
            self.figures.append(self.running)
            self.began, self.running = -1.0, 0

    def at(self, share: float) -> int:
        """The figure that this share of windows stay within (1.0: the largest)."""
        ordered = sorted(self.figures)
        return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)] if ordered else 0


@dataclass(slots=True)
class Outcome:
    """What a policy would have done. `days` is by (key, budget, start of the day as Unix time)."""

    requests: int = 0
    admitted: int = 0
    refused: int = 0
    assumed: int = 0
    tokens_admitted: int = 0
    tokens_refused: int = 0
    since: float | None = None
    until: float | None = None
    days: dict[tuple[str, str, float], Tally] = field(default_factory=dict)
    windows: dict[str, WindowUse] = field(default_factory=dict)


class _Running(NamedTuple):
    ends_at: float
    number: int
    lines: tuple[tuple[str, int, int, float], ...]
    used: tuple[int, ...] | None
    key_id: str
    model: str
    answer: int
    """Output tokens of one answer, 0 where that teaches nothing."""


class _Known(NamedTuple):
    """What is the same for every request of a plan: its lines as charges of one request, and their windows."""

    charges: tuple[Charge, ...]
    windows: tuple[WindowUse, ...]
    names: tuple[str, ...]


class Replay:
    """One policy, fed requests in the order they began."""

    def __init__(self, policy: Policy, *, model_max: ModelMax) -> None:
        self.outcome = Outcome()
        self._policy = policy
        self._index = PolicyIndex(policy)
        self._calendar = self._index.calendar
        self._tags = {key.id: key.tags for key in policy.keys}
        self._model_max = model_max
        self._book = Book()
        self._learned = LearnedOutputs()
        self._running: list[_Running] = []
        self._number = 0
        self._known: dict[Plan, _Known] = {}

    def feed(self, entry: LedgerEntry) -> Verdict:
        """Decide one request, and count it."""
        now = entry.at
        while self._running and self._running[0].ends_at <= now:
            self._end(heapq.heappop(self._running))
        self._number += 1
        if self._number % PRUNE_EVERY == 0:
            self._prune(now)
        subject = Subject(entry.key_id, self._tags.get(entry.key_id, entry.tags), entry.model, entry.upstream)
        plan = self._index.plan(subject)
        estimate = self._estimate(entry)
        counters = plan.counters(self._calendar, now)
        learned = self._policy.output_hold_floor
        if needs_learned(plan, estimate):
            learned = self._learned.hold(subject.key_id, subject.model, floor=learned)
        asked = demand(plan, estimate, counters, subject=subject, policy=self._policy, learned=learned)
        refusal: Refusal | None = None
        output, cap = asked.output, asked.cap
        amounts: tuple[int, ...] = ()
        if asked.refusals:
            refusal = answers.first_told(asked.refusals)
        elif plan.lines:
            order = Order("", "", asked.asks, estimate.input_tokens, output, estimate.choices, b"")
            outcome = self._book.reserve(order)
            if isinstance(outcome, Denied):
                resets = plan.resets(self._calendar, now)
                refusal = answers.refusal(plan, order, estimate, outcome, resets=resets, now=now)
            else:
                amounts, output = outcome.amounts, outcome.output
                if asked.clamps:
                    cap = outcome.cap
        usage = _usage(entry, estimate, output=output, cap=cap)
        known = self._known.get(plan) or self._know(plan)
        used = spent(known.charges, usage) if usage is not None else None
        if refusal is None:
            self._begin(entry, asked.asks, amounts, usage, used)
        self._count(entry, known, refusal, usage, used)
        return Verdict(refusal is None, refusal, refusal is None and entry.outcome == "refused")

    def finish(self) -> Outcome:
        """End what still runs, and return what it all came to."""
        while self._running:
            self._end(heapq.heappop(self._running))
        for window in self.outcome.windows.values():
            window.finish()
        return self.outcome

    def _estimate(self, entry: LedgerEntry) -> Estimate:
        cap = entry.output_cap
        if cap is None and (not entry.endpoint or "embed" in entry.endpoint):
            cap = 0  # no answer is written there, and the live gateway holds none
        return Estimate(
            entry.held_input or entry.counted_tokens or entry.input_tokens,
            output_cap=cap,
            choices=max(1, entry.choices),
            model_max_output=self._model_max(entry.model) if cap is None else None,
        )

    def _begin(
        self,
        entry: LedgerEntry,
        asks: tuple[Ask, ...],
        amounts: tuple[int, ...],
        usage: Usage | None,
        used: tuple[int, ...] | None,
    ) -> None:
        lines = tuple(
            [
                (ask.counter.series, ask.counter.slot, amount, ask.counter.expires_at)
                for ask, amount in zip(asks, amounts, strict=True)
            ]
        )
        answer = 0
        if usage is not None and usage.source != "held" and usage.output_tokens > 0:
            answer = -(-usage.output_tokens // max(1, entry.choices))
        ends_at = entry.at + entry.latency_s
        heapq.heappush(self._running, _Running(ends_at, self._number, lines, used, entry.key_id, entry.model, answer))

    def _end(self, running: _Running) -> None:
        if running.answer:
            key_id, model = running.key_id, running.model
            if not self._learned.known(key_id, model):
                self._learned.seed(key_id, model, ())
            self._learned.observe(key_id, model, running.answer)
        self._book.settle(running.lines, running.used)
        self._book.clean()

    def _know(self, plan: Plan) -> _Known:
        windows = []
        for line in plan.lines:
            limit = line.limit
            window = self.outcome.windows.get(line.series)
            if window is None:
                window = self.outcome.windows[line.series] = WindowUse(
                    line.budget.name, line.scope, limit.unit, limit.per, limit.sliding, limit.amount
                )
            windows.append(window)
        charges = tuple(Charge("", 1, None, line.limit.unit, None, line.rates) for line in plan.lines)
        names = tuple(stand.budget.name for stand in plan.stands) or ("",)
        if len(self._known) >= PLANS_KEPT:
            self._known.clear()
        known = self._known[plan] = _Known(charges, tuple(windows), names)
        return known

    def _count(
        self,
        entry: LedgerEntry,
        known: _Known,
        refusal: Refusal | None,
        usage: Usage | None,
        used: tuple[int, ...] | None,
    ) -> None:
        outcome, now = self.outcome, entry.at
        outcome.since = now if outcome.since is None else outcome.since
        outcome.until = now
        tokens = usage.input_tokens + usage.output_tokens if usage is not None else 0
        outcome.requests += 1
        if refusal is None:
            outcome.admitted += 1
            outcome.tokens_admitted += tokens
            outcome.assumed += entry.outcome == "refused"
        else:
            outcome.refused += 1
            outcome.tokens_refused += tokens
        day = self._calendar.window("day", now).start
        for name in known.names:
            where = (entry.key_id, name, day)
            tally = outcome.days.get(where)
            if tally is None:
                tally = outcome.days[where] = Tally()
            if refusal is None:
                tally.admitted += 1
                tally.tokens_admitted += tokens
            elif refusal.budget == name:
                tally.refused += 1
                tally.tokens_refused += tokens
                if tally.first_refusal is None:
                    tally.first_refusal = now
            else:
                tally.refused_elsewhere += 1
        if used is not None:
            for window, amount in zip(known.windows, used, strict=True):
                if window.unit == "concurrent":
                    continue
                if window.sliding:
                    length = SECONDS[window.per]
                    window.add(now // length * length, amount)
                else:
                    window.add(self._calendar.window(window.per, now).start, amount)

    def _prune(self, now: float) -> None:
        cells = self._book.cells
        for key in [
            key
            for key, cell in cells.items()
            if not cell.held and 0 < cell.expires_at <= now + LATE_SETTLES_S - SECONDS["minute"]
        ]:
            del cells[key]


def _usage(entry: LedgerEntry, estimate: Estimate, *, output: int, cap: int | None) -> Usage | None:
    """What the request used or, where it was refused in truth, would have held; None where it was given back."""
    if entry.outcome == "refused":
        written = min(output * estimate.choices, AMOUNT_MOST)
        return Usage(entry.counted_tokens or estimate.input_tokens, written, source="held")
    if not entry.source:
        return None
    written = entry.output_tokens if cap is None else min(entry.output_tokens, cap * estimate.choices)
    return Usage(
        entry.input_tokens,
        written,
        cached_tokens=entry.cached_tokens,
        reasoning_tokens=min(entry.reasoning_tokens, written),
        source="held" if entry.source == "held" else "counted" if entry.source == "counted" else "reported",
    )


async def replayed(
    entries: AsyncIterator[LedgerEntry],
    policies: Mapping[str, Policy],
    *,
    model_max: ModelMax,
    told: Callable[[int], None] = lambda requests: None,
) -> dict[str, Outcome]:
    """Replay the same traffic under several policies, by name. `told` is called now and then with the requests done."""
    replays = {name: Replay(policy, model_max=model_max) for name, policy in policies.items()}
    feeds = [replay.feed for replay in replays.values()]
    done = 0
    async for entry in entries:
        for feed in feeds:
            feed(entry)
        done += 1
        if done % 5_000 == 0:
            told(done)
    told(done)
    return {name: replay.finish() for name, replay in replays.items()}
