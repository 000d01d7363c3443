"""A replay decides what the live engine decides when the same requests are really sent."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.engine import BudgetEngine
from policies.ledger import LedgerEntry
from policies.model import Budget, Estimate, Key, Limit, Match, Reservation, Weights
from policies.policy import Policy
from policies.replay import Outcome, Replay, WindowUse, replayed
from policies.stores.memory import MemoryStore
from policies.usage import Usage

NOW = 1_800_000_000.0
DAY = 86_400.0
MODEL_MOST = 400
ALICE = Key("alice", "sha256:a", {"team": "search"})
BOB = Key("bob", "sha256:b", {"team": "ads"})

limits = st.builds(
    Limit,
    unit=st.sampled_from(["tokens", "input_tokens", "output_tokens", "requests"]),
    amount=st.integers(0, 900),
    per=st.sampled_from(["minute", "hour", "day"]),
    sliding=st.booleans(),
) | st.builds(Limit, unit=st.just("concurrent"), amount=st.integers(0, 3), per=st.just("total"))
budgets = st.builds(
    Budget,
    name=st.just("-"),
    limits=st.lists(limits, max_size=3, unique_by=lambda each: (each.unit, each.per, each.sliding)).map(tuple),
    match=st.sampled_from([Match(), Match(key=("alice",)), Match(tags={"team": ("ads",)}), Match(model=("b*",))]),
    each=st.sampled_from(["", "key", "team", "model"]),
    mode=st.sampled_from(["enforce", "enforce", "shadow"]),
    max_input_tokens=st.none() | st.integers(50, 300),
    max_output_tokens=st.none() | st.integers(5, 100),
    output_hold=st.sampled_from([None, "learned", "model_max", "clamp", "refuse", 40]),
    deny_models=st.sampled_from([(), ("big",)]),
    weights=st.sampled_from([Weights(), Weights(output=4, cached=0.1)]),
)
policies = st.builds(
    Policy,
    keys=st.just((ALICE, BOB)),
    budgets=st.lists(budgets, min_size=1, max_size=3).map(
        lambda found: tuple(
            Budget(**{**{name: getattr(each, name) for name in Budget.__slots__}, "name": f"b{number}"})
            for number, each in enumerate(found)
        )
    ),
    output_hold_floor=st.integers(1, 200),
)


@st.composite
def rows(draw: st.DrawFn) -> list[LedgerEntry]:
    found, at = [], NOW
    for number in range(draw(st.integers(1, 40))):
        at += draw(st.sampled_from([0.0, 0.3, 5.0, 61.0, 4000.0]))
        key = draw(st.sampled_from([ALICE, BOB]))
        tokens, written = draw(st.integers(0, 200)), draw(st.integers(0, 150))
        outcome = draw(st.sampled_from(["ok", "ok", "ok", "refused", "upstream_error"]))
        charged = outcome == "ok"
        found.append(
            LedgerEntry(
                request_id=str(number),
                at=at,
                key_id=key.id,
                model=draw(st.sampled_from(["small", "big"])),
                upstream="u",
                outcome=outcome,
                tags=key.tags,
                held_input=tokens if outcome != "refused" else 0,
                counted_tokens=tokens,
                input_tokens=tokens if charged else 0,
                output_tokens=written if charged else 0,
                cached_tokens=draw(st.integers(0, tokens)) if charged else 0,
                reasoning_tokens=draw(st.integers(0, written)) if charged else 0,
                source=draw(st.sampled_from(["reported", "counted", "held"])) if charged else "",
                choices=draw(st.sampled_from([1, 1, 2])),
                output_cap=draw(st.none() | st.integers(1, 120)),
                endpoint=draw(st.sampled_from(["openai_chat", "openai_embeddings", ""])),
                latency_s=draw(st.sampled_from([0.0, 0.5, 10.0, 70.0])),
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


async def really_sent(policy: Policy, entries: Sequence[LedgerEntry]) -> list[tuple[bool, str, str]]:
    """Drive the live engine through the requests in the order of time: (allowed, refusing budget, reason)."""
    engine = BudgetEngine(policy, MemoryStore(), owner="live")
    keys = {key.id: key for key in policy.keys}
    running: list[tuple[float, int, Reservation, Usage | None, LedgerEntry]] = []
    told = []

    async def end(moment: float) -> None:
        while running and running[0][0] <= moment:
            ends_at, _, reservation, usage, entry = heapq.heappop(running)
            if usage is None:
                await engine.release(reservation, now=ends_at)
            else:
                line = LedgerEntry(
                    entry.request_id, entry.at, entry.key_id, entry.model, "u", "ok", source=usage.source,
                    output_tokens=usage.output_tokens, choices=entry.choices,
                )  # fmt: skip
                await engine.settle(reservation, usage, now=ends_at, entry=line)

    for number, entry in enumerate(entries):
        await end(entry.at)
        writes = entry.endpoint == "openai_chat"
        estimate = Estimate(
            entry.counted_tokens,
            output_cap=entry.output_cap if entry.output_cap is not None or writes else 0,
            choices=entry.choices,
            model_max_output=MODEL_MOST,
        )
        subject = policy.subject(keys[entry.key_id], model=entry.model, upstream="u")
        decision = await engine.reserve(subject, estimate, now=entry.at)
        refusal = decision.refusal
        told.append((decision.allowed, refusal.budget if refusal else "", refusal.reason if refusal else ""))
        if decision.reservation is not None:
            held = decision.reservation.held_output
            usage = usage_of(entry, held=held, cap=decision.output_cap, choices=entry.choices)
            heapq.heappush(running, (entry.at + entry.latency_s, number, decision.reservation, usage, entry))
    await end(float("inf"))
    return told


@settings(max_examples=150, deadline=None)
@given(policy=policies, entries=rows())
async def test_the_verdict_is_the_live_engines(policy: Policy, entries: list[LedgerEntry]) -> None:
    replay = Replay(policy, model_max=lambda model: MODEL_MOST)
    verdicts = [replay.feed(entry) for entry in entries]
    told = [
        (each.allowed, *((each.refusal.budget, each.refusal.reason) if each.refusal else ("", ""))) for each in verdicts
    ]
    assert told == await really_sent(policy, entries)
    outcome = replay.finish()
    assert outcome.requests == len(entries) == outcome.admitted + outcome.refused
    assert outcome.admitted == sum(each.allowed for each in verdicts)


def row(at: float, tokens: int, **more: object) -> LedgerEntry:
    fields = {"outcome": "ok", "source": "reported", "endpoint": "openai_chat", "output_cap": 10, "latency_s": 1.0}
    return LedgerEntry(
        "r", at, "alice", "m", "u", tags=ALICE.tags, held_input=tokens, counted_tokens=tokens, input_tokens=tokens,
        output_tokens=10, **{**fields, **more},
    )  # type: ignore[arg-type]  # fmt: skip


def day_limit(amount: int) -> Policy:
    return Policy(keys=(ALICE,), budgets=(Budget("day", (Limit("tokens", amount, "day"),), each="key"),))


async def stream(entries: Sequence[LedgerEntry]) -> AsyncIterator[LedgerEntry]:
    for entry in entries:
        yield entry


async def outcomes(entries: Sequence[LedgerEntry], **policies: Policy) -> dict[str, Outcome]:
    return await replayed(stream(entries), policies, model_max=lambda model: None)


async def test_days_first_refusals_and_two_policies_side_by_side() -> None:
    entries = [row(NOW + 60 * number, 90) for number in range(5)] + [row(NOW + DAY, 90)]
    found = await outcomes(entries, current=day_limit(10_000), new=day_limit(250))
    assert (found["current"].admitted, found["current"].refused) == (6, 0)
    new = found["new"]
    assert (new.admitted, new.refused, new.tokens_admitted, new.tokens_refused) == (3, 3, 300, 300)
    first, second = (new.days[day] for day in sorted(new.days))
    assert (first.admitted, first.refused, first.first_refusal) == (2, 3, NOW + 120)
    assert (second.admitted, second.refused, second.first_refusal) == (1, 0, None)
    (window,) = new.windows.values()
    assert sorted(window.figures) == [100, 500]  # what was wanted, whatever was admitted


async def test_what_was_refused_in_truth_is_taken_to_use_what_it_would_hold() -> None:
    refused = row(NOW, 90, outcome="refused", source="", output_cap=50)
    found = await outcomes([refused, row(NOW + 60, 90)], new=day_limit(200))
    assert (found["new"].admitted, found["new"].assumed, found["new"].refused) == (1, 1, 1)
    assert found["new"].tokens_admitted == 140


def test_shares_of_windows() -> None:
    window = WindowUse("day", "all", "tokens", "day", False, 100)
    for number in range(1, 101):
        window.add(number, number)
    window.finish()
    assert [window.at(share) for share in (0.5, 0.95, 1.0)] == [50, 95, 100]


def test_counters_that_nothing_can_charge_are_let_go() -> None:
    policy = Policy(
        keys=(ALICE,), budgets=(Budget("fast", (Limit("requests", 10**6, "minute", sliding=True),), each="key"),)
    )
    replay = Replay(policy, model_max=lambda model: None)
    for number in range(45_000):
        replay.feed(row(NOW + number, 1, latency_s=0.1))
    assert len(replay._book.cells) < 25_000
