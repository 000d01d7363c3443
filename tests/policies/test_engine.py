"""The engine's promises, on every store."""

from __future__ import annotations

import asyncio

import pytest

from policies.engine import BudgetEngine
from policies.ledger import LedgerEntry
from policies.model import Budget, Decision, Estimate, Key, Limit, Match, Refusal, Reservation, Subject, Weights
from policies.policy import Policy
from policies.stores.base import BudgetStore
from policies.usage import Usage
from tests.policies.conftest import ALICE, BOB, NOON, engine, policy

DAY = 86_400.0


async def held(budgets: BudgetEngine, estimate: Estimate, *, subject: Subject = ALICE, now: float = NOON) -> Decision:
    decision = await budgets.reserve(subject, estimate, now=now)
    assert decision.allowed, decision.refusal
    assert decision.reservation is not None
    return decision


async def refused(budgets: BudgetEngine, estimate: Estimate, *, subject: Subject = ALICE, now: float = NOON) -> Refusal:
    decision = await budgets.reserve(subject, estimate, now=now)
    assert not decision.allowed
    assert decision.reservation is None
    assert decision.refusal is not None
    return decision.refusal


def reservation_of(decision: Decision) -> Reservation:
    assert decision.reservation is not None
    return decision.reservation


def entry_of(reservation: Reservation, usage: Usage, request_id: str = "q1") -> LedgerEntry:
    subject = reservation.subject
    return LedgerEntry(
        request_id,
        NOON,
        subject.key_id,
        subject.model,
        subject.upstream,
        "ok",
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        source=usage.source,
    )


async def figures(budgets: BudgetEngine, *, subject: Subject = ALICE, now: float = NOON) -> list[tuple[int, int]]:
    return [(status.used, status.held) for status in await budgets.status(subject, now=now)]


async def test_reserve_holds_input_and_output_then_settle_charges_the_truth(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("tokens", 1000, "day"), Limit("requests", 5, "day")), store)
    decision = await held(budgets, Estimate(100, 200, choices=2))
    assert [(status.used, status.held, status.remaining) for status in decision.statuses] == [(0, 500, 500), (0, 1, 4)]
    assert (reservation_of(decision).held_input, reservation_of(decision).held_output) == (100, 400)
    statuses = await budgets.settle(reservation_of(decision), Usage(90, 30), now=NOON)
    assert [(status.used, status.held) for status in statuses] == [(120, 0), (1, 0)]


async def test_refused_request_changes_nothing(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("tokens", 1000, "day"), Limit("requests", 5, "day")), store)
    await held(budgets, Estimate(600, 0))
    before = await figures(budgets)
    assert (await refused(budgets, Estimate(500, 0))).reason == "quota_spent"
    assert await figures(budgets) == before
    assert len(await store.holds()) == 1


async def test_concurrent_requests_cannot_overspend(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("tokens", 100, "minute")), store)
    decisions = await asyncio.gather(*(budgets.reserve(ALICE, Estimate(3, 10), now=NOON) for _ in range(51)))
    assert sum(decision.allowed for decision in decisions) == 7


async def test_five_hundred_requests_against_a_budget_that_fits_a_hundred(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("tokens", 10_000, "day")), store)

    async def call() -> int:
        decision = await budgets.reserve(ALICE, Estimate(60, 40), now=NOON)
        if decision.allowed:
            await asyncio.sleep(0)
            return 1
        return 0

    assert sum(await asyncio.gather(*(call() for _ in range(500)))) == 100


async def test_settle_charges_the_window_that_was_held_when_it_has_rolled_over(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("tokens", 1000, "minute")), store)
    decision = await held(budgets, Estimate(100, 200))
    next_minute = await budgets.settle(reservation_of(decision), Usage(100, 900), now=NOON + 60)
    assert [(status.used, status.held) for status in next_minute] == [(0, 0)]
    assert await figures(budgets, now=NOON) == [(1000, 0)]


async def test_debt_is_recorded_past_the_limit(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("tokens", 1000, "day")), store)
    decision = await held(budgets, Estimate(100, 200))
    (status,) = await budgets.settle(reservation_of(decision), Usage(100, 5000), now=NOON)
    assert (status.used, status.remaining) == (5100, 0)
    assert (await refused(budgets, Estimate(1, 0))).available == 0


async def test_release_gives_back_in_full(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("tokens", 1000, "day"), Limit("requests", 1, "day")), store)
    decision = await held(budgets, Estimate(100, 200))
    await budgets.release(reservation_of(decision), now=NOON)
    assert await figures(budgets) == [(0, 0), (0, 0)]


async def test_exactly_one_of_settle_and_release_wins(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("tokens", 1000, "day")), store)
    reservation = reservation_of(await held(budgets, Estimate(100, 200)))
    await budgets.settle(reservation, Usage(10, 10), now=NOON, entry=entry_of(reservation, Usage(10, 10)))
    await budgets.release(reservation, now=NOON)
    await budgets.settle(reservation, Usage(500, 500), now=NOON, entry=entry_of(reservation, Usage(500, 500)))
    assert await figures(budgets) == [(20, 0)]
    assert [line.input_tokens async for line in store.entries()] == [10]


async def test_ledger_adds_up_to_the_counters(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("tokens", 100_000, "day")), store)
    for number in range(20):
        reservation = reservation_of(await held(budgets, Estimate(100, 200)))
        usage = Usage(90 + number, 7 * number)
        await budgets.settle(reservation, usage, now=NOON, entry=entry_of(reservation, usage, f"q{number}"))
    total = sum([line.input_tokens + line.output_tokens async for line in store.entries()])
    assert await figures(budgets) == [(total, 0)]


async def test_usage_and_limit_stay_apart_when_the_limit_changes(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("tokens", 1000, "month")), store)
    reservation = reservation_of(await held(budgets, Estimate(100, 300)))
    raised = budgets.with_policy(policy(Limit("tokens", 5000, "month")))
    assert await figures(raised) == [(0, 400)]
    await raised.settle(reservation, Usage(100, 250), now=NOON)
    lowered = raised.with_policy(policy(Limit("tokens", 300, "month"), Limit("tokens", 10_000, "day")))
    assert await figures(lowered) == [(350, 0), (0, 0)]
    assert (await refused(lowered, Estimate(1, 1))).reason == "quota_spent"
    assert await figures(lowered.with_policy(policy(Limit("tokens", 1000, "month")))) == [(350, 0)]


async def test_usage_is_kept_when_budgets_come_and_go_and_tags_change(store: BudgetStore) -> None:
    team = Budget("team", (Limit("tokens", 1000, "day"),), each="team")
    mine = Budget("mine", (Limit("tokens", 1000, "day"),), each="key")
    both = engine(Policy(budgets=(team, mine)), store)
    await both.settle(reservation_of(await held(both, Estimate(10, 20))), Usage(10, 20), now=NOON)
    without = both.with_policy(Policy(budgets=(team,)))
    await without.settle(reservation_of(await held(without, Estimate(10, 20))), Usage(10, 20), now=NOON)
    again = without.with_policy(Policy(budgets=(mine, team)))
    assert await figures(again) == [(30, 0), (60, 0)]
    moved = Subject("alice", {"team": "maps"}, "gpt-4o", "openai")
    assert await figures(again, subject=moved) == [(30, 0), (0, 0)]
    assert await figures(again, subject=BOB) == [(0, 0), (60, 0)]


async def test_hold_made_before_a_reload_is_settled_by_the_rules_it_was_made_under(store: BudgetStore) -> None:
    doubled = engine(policy(Limit("tokens", 1000, "day"), weights=Weights(output=2.0)), store)
    reservation = reservation_of(await held(doubled, Estimate(100, 100)))
    plain = doubled.with_policy(policy(Limit("tokens", 1000, "day")))
    await plain.settle(reservation, Usage(100, 100), now=NOON)
    assert await figures(plain) == [(300, 0)]


async def test_each_tag_has_a_counter_of_its_own_and_shared_budgets_one(store: BudgetStore) -> None:
    budgets = engine(
        Policy(
            budgets=(
                Budget("keys", (Limit("requests", 2, "day"),), each="key"),
                Budget("all", (Limit("requests", 3, "day"),)),
            )
        ),
        store,
    )
    await held(budgets, Estimate(1, 1))
    await held(budgets, Estimate(1, 1))
    assert (await refused(budgets, Estimate(1, 1))).scope == "key=alice"
    await held(budgets, Estimate(1, 1), subject=BOB)
    refusal = await refused(budgets, Estimate(1, 1), subject=BOB)
    assert (refusal.budget, refusal.scope) == ("all", "all")


async def test_concurrent_limit_counts_requests_in_flight(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("concurrent", 2, "total")), store)
    first = reservation_of(await held(budgets, Estimate(1, 1)))
    await held(budgets, Estimate(1, 1))
    refusal = await refused(budgets, Estimate(1, 1))
    assert (refusal.reason, refusal.unit, refusal.retry_after_s) == ("window_full", "concurrent", None)
    await budgets.settle(first, Usage(1, 1), now=NOON)
    await held(budgets, Estimate(1, 1))
    assert await figures(budgets) == [(0, 2)]


async def test_shadow_budget_counts_and_reports_but_never_refuses(store: BudgetStore) -> None:
    shadow = Budget(
        "trial",
        (Limit("tokens", 100, "minute"),),
        mode="shadow",
        max_input_tokens=50,
        max_output_tokens=10,
        deny_models=("gpt-*",),
    )
    budgets = engine(Policy(budgets=(shadow,)), store)
    first = await held(budgets, Estimate(60, 30))
    assert first.output_cap is None
    assert [refusal.reason for refusal in first.shadowed] == ["model_denied", "never_fits"]
    second = await held(budgets, Estimate(20, 30))
    assert [refusal.reason for refusal in second.shadowed] == ["model_denied", "window_full"]
    assert await figures(budgets) == [(0, 140)]
    third = await held(budgets, Estimate(2000, 10**30))
    await budgets.settle(reservation_of(third), Usage(10**30, 10**30), now=NOON)


async def test_warnings_name_a_threshold_once_a_window(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("tokens", 100, "minute"), warn_at=(0.5, 0.8)), store)
    assert (await held(budgets, Estimate(49, 0))).warnings == ()
    (half,) = (await held(budgets, Estimate(1, 0))).warnings
    assert "'plan' (key=alice) has passed 50% of its 100 tokens" in half
    (eighty,) = (await held(budgets, Estimate(30, 0))).warnings
    assert "80%" in eighty
    assert (await held(budgets, Estimate(1, 0))).warnings == ()
    assert len((await held(budgets, Estimate(90, 0), now=NOON + 60)).warnings) == 2


async def test_weights_make_budgets_count_cost(store: BudgetStore) -> None:
    weights = Weights(input=1.0, output=4.0, cached=0.1, reasoning=8.0, models=(("gpt-4o*", 2.5), ("*", 1.0)))
    budgets = engine(policy(Limit("tokens", 10_000, "day"), weights=weights), store)
    decision = await held(budgets, Estimate(100, 50))
    assert decision.statuses[0].held == 100 * 2.5 + 50 * 8 * 2.5
    usage = Usage(100, 50, cached_tokens=40, reasoning_tokens=10)
    (status,) = await budgets.settle(reservation_of(decision), usage, now=NOON)
    assert status.used == (60 * 1 + 40 * 0.1 + 40 * 4 + 10 * 8) * 2.5


async def test_upstream_gains_nothing_by_reporting_nonsense(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("tokens", 10_000, "day"), weights=Weights(cached=0.0)), store)
    decision = await held(budgets, Estimate(100, 50))
    usage = Usage(100, -50, cached_tokens=900, reasoning_tokens=-7)
    (status,) = await budgets.settle(reservation_of(decision), usage, now=NOON)
    assert status.used == 0


@pytest.mark.parametrize("unit", ["input_tokens", "output_tokens"])
async def test_input_and_output_are_limited_apart(store: BudgetStore, unit: str) -> None:
    budgets = engine(policy(Limit(unit, 100, "day")), store)  # type: ignore[arg-type]
    await held(budgets, Estimate(90, 95) if unit == "input_tokens" else Estimate(95, 90))
    refusal = await refused(budgets, Estimate(50, 50))
    assert (refusal.unit, refusal.asked, refusal.available) == (unit, 50, 10)


async def test_status_of_a_key_tells_all_it_can_meet(store: BudgetStore) -> None:
    budgets = engine(
        Policy(
            budgets=(
                Budget("big", (Limit("tokens", 10, "day"),), match=Match(model=("gpt-5*",)), each="key"),
                Budget("team", (Limit("tokens", 20, "day"),), match=Match(tags={"team": ("search",)})),
                Budget("others", (Limit("tokens", 30, "day"),), match=Match(key=("bob",))),
            )
        ),
        store,
    )
    statuses = await budgets.status(Key("alice", "sha256:x", {"team": "search"}), now=NOON)
    assert [(status.budget, status.scope, status.limit) for status in statuses] == [
        ("big", "key=alice", 10),
        ("team", "all", 20),
    ]


async def test_preview_answers_as_reserve_would_and_holds_nothing(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("tokens", 100, "day")), store)
    shown = await budgets.preview(ALICE, Estimate(10, 50), now=NOON)
    assert shown.allowed
    assert reservation_of(shown).held_output == 50
    assert await figures(budgets) == [(0, 0)]
    await held(budgets, Estimate(10, 50))
    again = await budgets.preview(ALICE, Estimate(10, 50), now=NOON)
    assert again.refusal is not None
    assert (await refused(budgets, Estimate(10, 50))) == again.refusal


async def test_cancelled_reserve_leaves_no_hold(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("tokens", 1000, "day")), store)
    await budgets.status(ALICE, now=NOON)
    tasks = [asyncio.ensure_future(budgets.reserve(ALICE, Estimate(10, 10), now=NOON)) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    made = sum(not task.cancelled() for task in tasks)
    assert await figures(budgets) == [(0, 20 * made)]
    assert len(await store.holds()) == budgets.in_flight == made


async def test_cancelled_settle_still_settles(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("tokens", 1000, "day")), store)
    reservation = reservation_of(await held(budgets, Estimate(10, 10)))
    settling = asyncio.ensure_future(budgets.settle(reservation, Usage(7, 7), now=NOON))
    await asyncio.sleep(0)
    settling.cancel()
    await asyncio.gather(settling, return_exceptions=True)
    assert await figures(budgets) == [(14, 0)]


async def test_request_that_no_budget_meets_passes_and_reaches_the_ledger_once(store: BudgetStore) -> None:
    budgets = engine(Policy(), store)
    decision = await held(budgets, Estimate(10, 10))
    for _ in range(2):
        reservation = reservation_of(decision)
        await budgets.settle(reservation, Usage(7, 7), now=NOON, entry=entry_of(reservation, Usage(7, 7)))
    assert len([line async for line in store.entries()]) == 1


async def test_refused_request_is_recorded_without_being_waited_for(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("tokens", 1, "day")), store)
    await budgets.record(LedgerEntry("q", NOON, "alice", "gpt-4o", "", "refused", refused_by="plan"))
    assert [line.refused_by async for line in store.entries()] == ["plan"]
