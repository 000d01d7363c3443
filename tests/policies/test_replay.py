"""A replay decides what the live engine decides, and counts it."""

from __future__ import annotations

import asyncio
import heapq
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.engine import BudgetEngine
from policies.gauge import Gauge
from policies.ledger import LedgerEntry
from policies.matching import Line
from policies.model import Budget, Estimate, Key, Limit, Match, Period, Rates, Reservation, Weights
from policies.policy import Policy
from policies.replay import Replay, replayed
from policies.replay_findings import Findings, Refused, WindowUse, refused_by
from policies.replay_terms import full
from policies.stores.base import BudgetStore
from policies.stores.memory import MemoryStore
from policies.stores.sqlite import SqliteStore
from policies.traffic import LONGEST_S, Request, request_of, traffic
from policies.usage import Usage
from policies.windows import Calendar

BEFORE_CLOCKS_CHANGE = 1_793_480_000.0
"""Saturday noon before Berlin's clocks go back, and a day before a month begins."""
DAY = 86_400.0
NOW = 1_800_000_000.0
MODEL_MOST = 400
ALICE = Key("alice", "sha256:a", {"team": "search"})
BOB = Key("bob", "sha256:b", {"team": "ads"})
GONE = Key("gone", "sha256:g", {"team": "ads", "app": "old"})
"""A key that the policy no longer has: what the ledger says of it must do."""

PERIODS: tuple[Period, ...] = ("minute", "hour", "day", "week", "month", "year", "total")


@st.composite
def limits(draw: st.DrawFn) -> Limit:
    if draw(st.integers(0, 4)) == 0:
        return Limit("concurrent", draw(st.integers(0, 3)), "total")
    per = draw(st.sampled_from(PERIODS))
    sliding = per in ("minute", "hour", "day", "week") and draw(st.booleans())
    unit = draw(st.sampled_from(["tokens", "tokens", "input_tokens", "output_tokens", "requests"]))
    most = 6 if unit == "requests" else 1500
    return Limit(unit, draw(st.integers(0, most)), per, sliding)


WEIGHTS = (
    Weights(),
    Weights(),
    Weights(output=4, cached=0.1),
    Weights(input=0.3, output=1.7, reasoning=2.5, models=(("b*", 0.15), ("*", 1.5))),
    Weights(cached=3.0, models=(("small", 0.5),)),
)


@st.composite
def budgets(draw: st.DrawFn, name: str) -> Budget:
    return Budget(
        name,
        limits=tuple(draw(st.lists(limits(), max_size=3, unique_by=lambda each: (each.unit, each.per, each.sliding)))),
        match=draw(
            st.sampled_from(
                [
                    Match(),
                    Match(),
                    Match(key=("alice",)),
                    Match(key=("a*", "gone")),
                    Match(tags={"team": ("ads",)}),
                    Match(model=("b*",)),
                    Match(upstream=("far",)),
                ]
            )
        ),
        each=draw(st.sampled_from(["", "", "key", "team", "app", "model", "upstream"])),
        mode=draw(st.sampled_from(["enforce", "enforce", "shadow"])),
        max_input_tokens=draw(st.none() | st.integers(20, 300)),
        max_output_tokens=draw(st.none() | st.integers(5, 100)),
        output_hold=draw(st.sampled_from([None, "learned", "learned", "model_max", "clamp", "clamp", "refuse", 0, 40])),
        allow_models=draw(st.sampled_from([(), (), (), ("small", "big"), ("small",)])),
        deny_models=draw(st.sampled_from([(), (), ("big",), ("v/*",)])),
        weights=draw(st.sampled_from(WEIGHTS)),
    )


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    return Policy(
        keys=(ALICE, BOB),
        budgets=tuple(draw(budgets(f"b{number}")) for number in range(draw(st.integers(1, 4)))),
        time_zone=draw(st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"])),
        output_hold=draw(st.sampled_from(["learned", "clamp", 60])),
        output_hold_floor=draw(st.integers(1, 200)),
        clamp_most=500,
    )


@st.composite
def rows(draw: st.DrawFn) -> list[LedgerEntry]:
    found, at = [], draw(st.sampled_from([NOW, BEFORE_CLOCKS_CHANGE]))
    usual = draw(st.integers(0, 150))
    for number in range(draw(st.integers(1, 60))):
        at += draw(st.sampled_from([0.0, 0.0, 0.3, 1.0, 5.0, 61.0, 900.0, 4000.0, 40_000.0]))
        key = draw(st.sampled_from([ALICE, ALICE, BOB, GONE]))
        tokens = draw(st.integers(0, 200))
        written = draw(st.just(usual) | st.integers(0, 150))
        outcome = draw(st.sampled_from(["ok", "ok", "ok", "cut", "refused", "upstream_error"]))
        charged = outcome in ("ok", "cut")
        found.append(
            LedgerEntry(
                request_id=str(number),
                at=at,
                key_id=key.id,
                model=draw(st.sampled_from(["small", "small", "big", "v/big"])),
                upstream=draw(st.sampled_from(["near", "near", "far"])),
                outcome=outcome,
                tags=key.tags,
                held_input=tokens if outcome != "refused" else 0,
                counted_tokens=tokens,
                input_tokens=tokens if charged else 0,
                output_tokens=written if charged else 0,
                cached_tokens=draw(st.integers(0, tokens)) if charged else 0,
                reasoning_tokens=draw(st.integers(0, written)) if charged else 0,
                source=draw(st.sampled_from(["reported", "reported", "counted", "held"])) if charged else "",
                choices=draw(st.sampled_from([1, 1, 1, 2])),
                output_cap=draw(st.none() | st.none() | st.just(50) | st.integers(0, 120)),
                endpoint=draw(st.sampled_from(["openai_chat", "openai_chat", "openai_embeddings", ""])),
                latency_s=draw(st.sampled_from([0.0, 0.5, 0.5, 10.0, 70.0, 5000.0])),
            )
        )
    return found


def usage_of(entry: LedgerEntry, *, held: int, cap: int | None, choices: int) -> Usage | None:
    if entry.outcome == "refused":
        return Usage(entry.counted_tokens, held, source="held")
    if not entry.source:
        return None
    written = entry.output_tokens if cap is None else min(entry.output_tokens, cap * choices)
    reasoning = min(entry.reasoning_tokens, written)
    return Usage(entry.input_tokens, written, entry.cached_tokens, reasoning, entry.source)


class Sent(NamedTuple):
    """What came of sending requests: the refusal of each (None: allowed), how many admitted ones each budget in
    ``shadow`` would have refused, and the tokens that admitted ones used."""

    told: list[Refused | None]
    shadowed: Counter[str]
    tokens: int


async def really_sent(policy: Policy, entries: Sequence[LedgerEntry], store: BudgetStore | None = None) -> Sent:
    """Drive the live engine through the requests in the order of time; each leaves its line in the store's ledger."""
    engine = BudgetEngine(policy, store or MemoryStore(), owner="live")
    keys = {key.id: key for key in (ALICE, BOB, GONE)}
    running: list[tuple[float, int, Reservation, Usage | None, LedgerEntry]] = []
    told: list[Refused | None] = []
    shadowed: Counter[str] = Counter()
    tokens = 0

    async def end(moment: float) -> None:
        while running and running[0][0] <= moment:
            ends_at, _, reservation, usage, entry = heapq.heappop(running)
            line = entry._replace(held_input=reservation.held_input, held_output=reservation.held_output)
            if usage is None:
                line = line._replace(outcome="upstream_error", source="", input_tokens=0, output_tokens=0)
                await engine.release(reservation, now=ends_at, entry=line)
                continue
            line = line._replace(outcome="ok", source=usage.source, input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens, cached_tokens=usage.cached_tokens,
                reasoning_tokens=usage.reasoning_tokens,
            )  # fmt: skip
            await engine.settle(reservation, usage, now=ends_at, entry=line)

    for number, entry in enumerate(entries):
        await end(entry.at)
        writes = entry.endpoint == "openai_chat"
        estimate = Estimate(
            entry.counted_tokens,
            output_cap=entry.output_cap if entry.output_cap is not None or writes else 0,
            choices=entry.choices,
            model_max_output=MODEL_MOST if entry.model != "v/big" else None,
        )
        subject = policy.subject(keys[entry.key_id], model=entry.model, upstream=entry.upstream)
        decision = await engine.reserve(subject, estimate, now=entry.at)
        told.append(refused_by(decision.refusal) if decision.refusal is not None else None)
        if decision.refusal is not None:
            refused = entry._replace(outcome="refused", held_input=0, source="", input_tokens=0, output_tokens=0)
            await engine.record(refused._replace(refused_by=decision.refusal.budget))
        if decision.reservation is not None:
            shadowed.update({each.budget for each in decision.shadowed})
            held = decision.reservation.held_output
            usage = usage_of(entry, held=held, cap=decision.output_cap, choices=entry.choices)
            tokens += usage.input_tokens + usage.output_tokens if usage is not None else 0
            heapq.heappush(running, (entry.at + entry.latency_s, number, decision.reservation, usage, entry))
    await end(float("inf"))
    return Sent(told, shadowed, tokens)


def model_most(model: str) -> int | None:
    return MODEL_MOST if model != "v/big" else None


@settings(max_examples=100, deadline=None)
@given(policy=policies(), entries=rows())
async def test_the_verdict_is_the_live_engines(policy: Policy, entries: list[LedgerEntry]) -> None:
    replay = Replay(policy, model_max=model_most)
    refusals = [replay.feed(request_of(entry)) for entry in entries]
    sent = await really_sent(policy, entries)
    assert [plain(each) for each in refusals] == [plain(each) for each in sent.told]
    found = replay.finish()
    assert found.requests == len(entries) == found.admitted + found.refused
    assert found.admitted == sum(each is None for each in refusals)
    assert found.tokens_admitted == sent.tokens
    would_refuse: Counter[str] = Counter()
    for day in found.days:
        for (_, budget), tally in found.tallies(day).items():
            would_refuse[budget] += tally.would_refuse
    assert +would_refuse == sent.shadowed


def plain(refused: Refused | None) -> tuple[str, str, str] | None:
    """The verdict: which budget refuses whom, and why. Of several full limits of one budget, either may be named."""
    return (refused.budget, refused.reason, refused.scope) if refused is not None else None


@st.composite
def one_after_another(draw: st.DrawFn) -> list[LedgerEntry]:
    """Requests of which no two begin at the same moment: a ledger tells which came first by that alone. None takes so
    long that a store which keeps them as they ended can no longer be put in order."""
    return [
        entry._replace(at=entry.at + number / 1024, latency_s=min(entry.latency_s, LONGEST_S / 2))
        for number, entry in enumerate(draw(rows()))
    ]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@settings(max_examples=20, deadline=None)
@given(policy=policies(), entries=one_after_another())
async def test_a_ledger_under_its_own_policy_gives_the_verdicts_that_were_given(
    kind: str, policy: Policy, entries: list[LedgerEntry]
) -> None:
    folder = await asyncio.to_thread(tempfile.mkdtemp)
    try:
        store = MemoryStore() if kind == "memory" else SqliteStore(Path(folder) / "ledger.db")
        await store.ping()
        sent = await really_sent(policy, entries, store)
        await store.ping()  # what was written without waiting is there now
        replay = Replay(policy, model_max=model_most)
        told = {}
        async for page in traffic(store):
            for request in page:
                told[request.request_id] = plain(replay.feed(request))
        await store.close()
    finally:
        await asyncio.to_thread(shutil.rmtree, folder)
    assert told == {entry.request_id: plain(each) for entry, each in zip(entries, sent.told, strict=True)}


def asked(at: float, tokens: int, **more: object) -> Request:
    return request_of(row(at, tokens, **more))


def row(at: float, tokens: int, **more: object) -> LedgerEntry:
    fields = {"outcome": "ok", "source": "reported", "endpoint": "openai_chat", "output_cap": 10, "latency_s": 1.0}
    return LedgerEntry(
        "r", at, "alice", "m", "u", tags=ALICE.tags, held_input=tokens, counted_tokens=tokens, input_tokens=tokens,
        output_tokens=10, **{**fields, **more},
    )  # type: ignore[arg-type]  # fmt: skip


def day_limit(amount: int) -> Policy:
    return Policy(keys=(ALICE,), budgets=(Budget("day", (Limit("tokens", amount, "day"),), each="key"),))


async def pages(requests: Sequence[Request]) -> AsyncIterator[Sequence[Request]]:
    for start in range(0, len(requests), 4):
        yield requests[start : start + 4]


async def findings(requests: Sequence[Request], **policies: Policy) -> dict[str, Findings]:
    return await replayed(pages(requests), policies, model_max=lambda model: None)


async def test_days_first_refusals_and_two_policies_side_by_side() -> None:
    requests = [asked(NOW + 60 * number, 90) for number in range(5)] + [asked(NOW + DAY, 90)]
    found = await findings(requests, current=day_limit(10_000), new=day_limit(250))
    assert (found["current"].admitted, found["current"].refused) == (6, 0)
    new = found["new"]
    assert (new.admitted, new.refused, new.tokens_admitted, new.tokens_refused) == (3, 3, 300, 300)
    first, second = (new.tallies(day)["alice", "day"] for day in sorted(new.days))
    assert (first.admitted, first.refused, first.first_refusal and first.first_refusal.at) == (2, 3, NOW + 120)
    assert (second.admitted, second.refused, second.first_refusal) == (1, 0, None)
    (window,) = new.windows.values()
    assert sorted(window.figures) == [100, 500]  # what was wanted, whatever was admitted


async def test_what_was_refused_in_truth_is_taken_to_use_what_it_would_hold() -> None:
    refused = asked(NOW, 90, outcome="refused", source="", output_cap=50)
    found = await findings([refused, asked(NOW + 60, 90)], new=day_limit(200))
    assert (found["new"].admitted, found["new"].assumed, found["new"].refused) == (1, 1, 1)
    assert found["new"].tokens_admitted == 140


def test_shares_of_windows() -> None:
    window = WindowUse("day", "all", "tokens", "day", False, 100)
    assert window.shares(0.5) == [0]
    window.figures.extend(range(1, 101))
    assert window.shares(0.5, 0.95, 1.0) == [50, 95, 100]


def test_a_request_that_comes_late_is_taken_to_begin_then() -> None:
    policy = Policy(keys=(ALICE,), budgets=(Budget("fast", (Limit("requests", 1, "minute"),)),))
    replay = Replay(policy, model_max=lambda model: None)
    told = [replay.feed(asked(at, 1, latency_s=0.1)) for at in (NOW, NOW - 300, NOW + 61)]
    assert [each is None for each in told] == [True, False, True]


def test_a_sliding_window_keeps_no_more_slots_than_it_has() -> None:
    policy = Policy(
        keys=(ALICE,), budgets=(Budget("fast", (Limit("requests", 10**6, "minute", sliding=True),), each="key"),)
    )
    replay = Replay(policy, model_max=lambda model: None)
    for number in range(2_000):
        replay.feed(asked(NOW + number, 1, latency_s=0.1))
    (gauge,) = replay._gauges.values()
    assert (len(gauge.slots), len(gauge.wanted_slots), gauge.taken, gauge.wanted) == (61, 61, 61, 61)


def test_a_full_sliding_limit_refuses_until_enough_has_left() -> None:
    line = Line(Budget("-"), Limit("tokens", 100, "minute", sliding=True), "all", Rates())
    gauge = Gauge(line, Calendar(), full(line))
    for at, tokens in ((NOW, 30), (NOW + 10, 20), (NOW + 20, 50)):
        gauge.turn(at)
        gauge.taken += tokens
        gauge.slots[gauge.slot] += tokens
    told = [gauge.refuses_until(least) - NOW for least in (1, 30, 31, 50, 51, 100)]
    assert told == [61, 61, 71, 71, 81, 81]
