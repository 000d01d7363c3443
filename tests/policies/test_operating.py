"""More output held for an answer that is to be cut, grants, and holds ended by hand, on every store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import operating
from policies.engine import BudgetEngine
from policies.model import Budget, Estimate, Key, Limit, Reservation
from policies.policy import Policy
from policies.stores.base import BudgetStore
from policies.stores.memory import MemoryStore
from policies.usage import Usage
from tests.policies.conftest import ALICE, NOON, engine, policy

MINUTE, DAY = Limit("tokens", 100, "minute"), Limit("tokens", 100, "day")


def cutting(*limits: Limit, **more: object) -> Policy:
    return policy(*limits, output_hold=10, on_exhausted="cut", **more)


async def held(under: BudgetEngine, input_tokens: int = 20, *, now: float = NOON) -> Reservation:
    decision = await under.reserve(ALICE, Estimate(input_tokens), now=now)
    assert decision.reservation is not None
    assert decision.cuts
    return decision.reservation


async def stand(under: BudgetEngine, *, now: float = NOON) -> tuple[int, int]:
    (status,) = await under.status(ALICE, now=now)
    return status.used, status.held


async def test_an_extension_holds_what_is_wanted_then_what_is_left_then_nothing(store: BudgetStore) -> None:
    under = engine(cutting(DAY), store)
    reservation = await held(under)
    first = await under.extend(reservation, 50, now=NOON)
    second = await under.extend(reservation, 50, now=NOON)
    assert first is not None
    assert second is not None
    assert (first.held_output, second.held_output) == (50, 20)
    assert await under.extend(reservation, 50, now=NOON) is None
    assert await stand(under) == (0, 100)
    await under.settle(reservation, Usage(20, 80), now=NOON)
    for extension in (first, second):
        await under.release(extension, now=NOON)
    assert await stand(under) == (100, 0)
    assert await store.holds() == []


async def test_an_extension_falls_into_the_window_that_will_be_charged(store: BudgetStore) -> None:
    under = engine(cutting(MINUTE), store)
    reservation = await held(under)
    later = NOON + 60
    assert (await held(under, 90, now=later)).held_input == 90
    extension = await under.extend(reservation, 50, now=later)
    assert extension is not None
    assert extension.held_output == 50
    assert extension.charges[0].counter == reservation.charges[0].counter


async def test_nothing_is_extended_where_budgets_let_answers_finish() -> None:
    under = engine(policy(DAY, output_hold=10))
    decision = await under.reserve(ALICE, Estimate(20), now=NOON)
    assert decision.reservation is not None
    assert not decision.cuts
    assert await under.extend(decision.reservation, 5, now=NOON) is None


async def test_only_limits_on_output_are_extended() -> None:
    limits = (Limit("requests", 1, "day"), Limit("input_tokens", 20, "day"), Limit("output_tokens", 15, "day"))
    under = engine(cutting(*limits, Limit("concurrent", 1, "total")))
    extension = await under.extend(await held(under), 50, now=NOON)
    assert extension is not None
    assert [(charge.unit, charge.amount) for charge in extension.charges] == [("output_tokens", 5)]


async def test_the_policy_decides_for_budgets_that_do_not() -> None:
    budget = Budget("plan", (DAY,), output_hold=10)
    under = engine(Policy(budgets=(budget,), on_exhausted="cut"))
    assert (await under.reserve(ALICE, Estimate(1), now=NOON)).cuts
    finishing = engine(Policy(budgets=(Budget("plan", (DAY,), on_exhausted="finish"),), on_exhausted="cut"))
    assert not (await finishing.reserve(ALICE, Estimate(1), now=NOON)).cuts


async def test_an_extension_whose_worker_died_is_settled_as_held(store: BudgetStore) -> None:
    under = engine(cutting(DAY), store)
    await under.extend(await held(under), 30, now=NOON)
    other = BudgetEngine(under.policy, store, owner="another")
    assert len(await other.sweep(now=NOON, dead_owners=["here"])) == 2
    assert await stand(under) == (60, 0)


async def test_a_hold_given_back_by_hand_is_charged_in_full_by_an_owner_who_comes_late(store: BudgetStore) -> None:
    under = engine(policy(DAY), store)
    decision = await under.reserve(ALICE, Estimate(20, 30), now=NOON)
    assert decision.reservation is not None
    (hold,) = await operating.open_holds(under, now=NOON + 5)
    assert (hold.reservation.id, hold.owner, hold.age_s) == (decision.reservation.id, "here", 5)
    assert await operating.release(under, hold, now=NOON, entry=None)
    assert not await operating.release(under, hold, now=NOON, entry=None)
    assert await stand(under) == (0, 0)
    await under.settle(decision.reservation, Usage(20, 55), now=NOON)
    assert await stand(under) == (75, 0)


@pytest.mark.parametrize("used", [10, 50, 70])
async def test_a_hold_that_was_swept_is_never_charged_less_than_held_nor_twice(store: BudgetStore, used: int) -> None:
    under = engine(policy(DAY), store)
    decision = await under.reserve(ALICE, Estimate(20, 30), now=NOON)
    assert decision.reservation is not None
    await BudgetEngine(under.policy, store, owner="another").sweep(now=NOON, dead_owners=["here"])
    await under.settle(decision.reservation, Usage(used, 0), now=NOON)
    assert await stand(under) == (max(50, used), 0)


async def test_counters_of_every_scope_are_live_until_their_window_ends(store: BudgetStore) -> None:
    by_model = Budget("models", (DAY, Limit("tokens", 900, "minute", sliding=True)), each="model")
    under = engine(Policy(budgets=(by_model, Budget("all", (Limit("requests", 9, "total"),)))), store)
    for model in ("gpt-4o", "claude|3@x"):
        decision = await under.reserve(ALICE.__class__("alice", {}, model, "up"), Estimate(7, 0), now=NOON)
        assert decision.reservation is not None
        await under.settle(decision.reservation, Usage(7, 0), now=NOON)
    found = await operating.live_counters(under, now=NOON)
    assert sorted((each.budget, each.scope, each.per, each.used) for each in found) == [
        ("all", "all", "total", 2),
        ("models", "model=claude|3@x", "day", 7),
        ("models", "model=claude|3@x", "minute", 7),
        ("models", "model=gpt-4o", "day", 7),
        ("models", "model=gpt-4o", "minute", 7),
    ]
    tomorrow = await operating.live_counters(under, now=NOON + 86_400)
    assert [(each.budget, each.used) for each in tomorrow] == [("all", 2)]


@given(grants=st.lists(st.integers(-200, 200).filter(bool), max_size=6), spent=st.integers(0, 100))
async def test_a_limit_is_what_the_policy_says_and_what_was_granted(grants: list[int], spent: int) -> None:
    under = engine(policy(DAY), MemoryStore())
    if spent:
        decision = await under.reserve(ALICE, Estimate(spent, 0), now=NOON)
        assert decision.reservation is not None
        await under.settle(decision.reservation, Usage(spent, 0), now=NOON)
    line = operating.find_line(under, "plan", scope="key=alice")
    for amount in grants:
        await operating.top_up(under, line, amount, now=NOON)
    (status,) = await under.status(Key("alice", ""), now=NOON)
    assert (status.used, status.granted, status.limit) == (spent, sum(grants), 100)
    assert status.remaining == max(0, 100 + sum(grants) - spent)
    for more, fits in ((status.remaining, True), (status.remaining + 1, False)):
        if more <= 100:
            assert (await under.preview(ALICE, Estimate(more, 0), now=NOON)).allowed is (
                fits and 100 + sum(grants) >= spent + more
            )
