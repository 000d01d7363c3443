"""Holds that nobody attends are settled as held; those of the living are left alone."""

from __future__ import annotations

from policies.engine import BudgetEngine
from policies.model import Estimate, Limit, Reservation, Weights
from policies.policy import Policy
from policies.stores import open_store
from policies.stores.base import BudgetStore
from policies.stores.memory import MemoryStore
from policies.usage import Usage
from tests.policies.conftest import ALICE, NOON, policy
from tests.policies.test_engine import entry_of, figures, held, reservation_of

TIMEOUT = 60.0
PLAN = policy(Limit("tokens", 1000, "day"), Limit("concurrent", 5, "total"))


def process(store: BudgetStore, owner: str, plan: Policy = PLAN) -> BudgetEngine:
    return BudgetEngine(plan, store, owner=owner, hold_timeout_s=TIMEOUT)


async def hold(budgets: BudgetEngine, *, detached: bool = False) -> Reservation:
    decision = await budgets.reserve(ALICE, Estimate(100, 50), now=NOON, detached=detached)
    assert decision.reservation is not None
    return decision.reservation


async def test_hold_of_a_dead_process_is_settled_as_held_and_marked(store: BudgetStore) -> None:
    dead, alive = process(store, "dead"), process(store, "alive")
    reservation = await hold(dead)
    assert await alive.sweep(now=NOON + TIMEOUT - 1) == []
    (abandoned,) = await alive.sweep(now=NOON + TIMEOUT)
    assert (abandoned.id, abandoned.subject, abandoned.held_output) == (reservation.id, ALICE, 50)
    assert await figures(alive) == [(150, 0), (0, 0)]
    (line,) = [line async for line in store.entries()]
    assert (line.outcome, line.source, line.key_id, line.tags) == ("abandoned", "held", "alice", ALICE.tags)
    assert line.input_tokens + line.output_tokens == 150
    assert await alive.sweep(now=NOON + 2 * TIMEOUT) == []


async def test_hold_of_a_process_known_to_be_dead_is_not_waited_for(store: BudgetStore) -> None:
    dead, alive = process(store, "dead"), process(store, "alive")
    await hold(dead)
    await dead.sweep(now=NOON)
    assert len(await alive.sweep(now=NOON + 1, dead_owners={"dead"})) == 1


async def test_long_stream_is_left_alone_while_its_process_lives(store: BudgetStore) -> None:
    streaming, other = process(store, "streaming"), process(store, "other")
    reservation = await hold(streaming)
    for minute in range(1, 120):
        await streaming.sweep(now=NOON + minute * 30)
        assert await other.sweep(now=NOON + minute * 30) == []
    await streaming.settle(reservation, Usage(100, 20), now=NOON + 3600)
    assert await figures(streaming) == [(120, 0), (0, 0)]


async def test_hold_without_a_request_is_not_kept_by_a_living_owner(store: BudgetStore) -> None:
    # The same owner name after a restart, or an answer of the store that never arrived.
    before, after = process(store, "worker"), process(store, "worker")
    await hold(before)
    await after.sweep(now=NOON + 1)
    assert len(await after.sweep(now=NOON + TIMEOUT)) == 1


async def test_late_settle_adds_what_outgrew_the_hold(store: BudgetStore) -> None:
    frozen, other = process(store, "frozen"), process(store, "other")
    reservation = await hold(frozen)
    await other.sweep(now=NOON + TIMEOUT)
    statuses = await frozen.settle(reservation, Usage(100, 350), now=NOON + TIMEOUT)
    assert await figures(frozen) == [(450, 0), (0, 0)]
    assert statuses
    await frozen.settle(reservation, Usage(100, 900), now=NOON + TIMEOUT)
    assert await figures(frozen) == [(450, 0), (0, 0)]


async def test_late_settle_refunds_nothing_when_the_hold_was_charged(store: BudgetStore) -> None:
    frozen, other = process(store, "frozen"), process(store, "other")
    reservation = await hold(frozen)
    await other.sweep(now=NOON + TIMEOUT)
    await frozen.settle(reservation, Usage(1, 1), now=NOON + TIMEOUT, entry=entry_of(reservation, Usage(1, 1)))
    assert await figures(frozen) == [(150, 0), (0, 0)]
    assert [line.outcome async for line in store.entries()] == ["abandoned"]


async def test_detached_hold_is_found_and_settled_by_another_process(store: BudgetStore) -> None:
    plan = policy(Limit("tokens", 1000, "day"), weights=Weights(output=2.0))
    made, ends = process(store, "one", plan), process(store, "two", plan)
    reservation = await hold(made, detached=True)
    found = await ends.find(reservation.id)
    assert found is not None
    assert (found.subject, found.held_input, found.held_output) == (ALICE, 100, 50)
    await ends.settle(found, Usage(100, 10), now=NOON)
    assert await figures(ends) == [(120, 0)]
    assert await ends.find(reservation.id) is None
    await made.settle(reservation, Usage(100, 500), now=NOON)
    assert await figures(ends) == [(120, 0)]


async def test_detached_hold_ends_with_the_timeout_though_its_maker_lives(store: BudgetStore) -> None:
    made = process(store, "one")
    await hold(made, detached=True)
    await made.sweep(now=NOON + TIMEOUT - 1)
    assert len(await made.sweep(now=NOON + TIMEOUT)) == 1


async def test_detached_request_that_no_budget_meets_can_be_settled_once() -> None:
    store = MemoryStore()
    budgets = process(store, "one", Policy())
    reservation = await hold(budgets, detached=True)
    for _ in range(2):
        found = await budgets.find(reservation.id)
        if found is not None:
            await budgets.settle(found, Usage(1, 1), now=NOON, entry=entry_of(found, Usage(1, 1)))
    assert len([line async for line in store.entries()]) == 1


async def test_sweep_drops_counters_and_ledger_lines_whose_time_is_over(pruned_store: BudgetStore) -> None:
    store = pruned_store
    budgets = BudgetEngine(PLAN, store, owner="me", hold_timeout_s=TIMEOUT, ledger_keep_s=86_400.0)
    reservation = reservation_of(await held(budgets, Estimate(1, 1)))
    await budgets.settle(reservation, Usage(1, 1), now=NOON, entry=entry_of(reservation, Usage(1, 1)))
    await budgets.sweep(now=NOON + 3 * 86_400)
    assert [row.series for row in await store.counters()] == ["plan|key=alice|concurrent|now"]
    assert [line async for line in store.entries()] == []


async def test_counters_and_holds_outlive_a_restart(kept_url: str) -> None:
    first = open_store(kept_url, server_time=False)
    budgets = process(first, "first")
    reservation = await hold(budgets)
    await hold(budgets)
    await budgets.settle(reservation, Usage(100, 1), now=NOON)
    await first.close()
    second = open_store(kept_url, server_time=False)
    assert await figures(process(second, "second")) == [(101, 150), (0, 1)]
    await second.close()


async def test_hundreds_of_orphans_are_all_settled_in_one_sweep(store: BudgetStore) -> None:
    plan = policy(Limit("tokens", 100_000, "day"))
    gone, heir = process(store, "gone", plan), process(store, "heir", plan)
    for _ in range(250):
        await held(gone, Estimate(10, 10))
    abandoned = await heir.sweep(now=NOON, dead_owners={"gone"})
    assert len({reservation.id for reservation in abandoned}) == 250
    assert await store.holds() == []
    assert await figures(heir) == [(250 * 20, 0)]
    assert [line.outcome async for line in store.entries()] == ["abandoned"] * 250


async def test_an_owner_that_ends_in_good_order_is_seen_no_more(kept_url: str) -> None:
    ending, staying = process(open_store(kept_url), "ending"), process(open_store(kept_url), "staying")
    for each in (ending, staying):
        await each.sweep(now=NOON)
    assert set(await staying.store.owners()) == {"ending", "staying"}
    await ending.close(now=NOON)
    assert set(await staying.store.owners()) == {"staying"}
    await staying.close(now=NOON)
