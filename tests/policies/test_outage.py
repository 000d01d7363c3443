"""While the store is lost: what was promised, and nothing forgotten or counted twice once it is back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from policies.engine import BudgetEngine
from policies.ledger import LedgerEntry
from policies.model import Estimate, Limit, StoreLost
from policies.outage import OnStoreError
from policies.stores.base import Counter, Denied, Granted, HeldLine, Hold, Order, Settled, State
from policies.stores.memory import MemoryStore
from policies.usage import Usage
from tests.policies.conftest import ALICE, NOON, policy
from tests.policies.test_engine import entry_of, figures, held, reservation_of

PLAN = policy(Limit("tokens", 1000, "day"))


class FlakyStore(MemoryStore):
    """A store behind a wire that can be cut, before a command arrives or before its answer does."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = False
        self.lose_answers = False
        self.lose_after: int | None = None

    def _wire(self) -> None:
        if self.lose_after is not None:
            self.lose_after -= 1
            if self.lose_after < 0:
                self.lost = True
        if self.lost:
            raise StoreLost("the wire is cut")

    def _back(self) -> None:
        if self.lose_answers:
            raise StoreLost("the answer is lost")

    async def reserve(self, order: Order, *, now: float) -> Granted | Denied:
        self._wire()
        outcome = await super().reserve(order, now=now)
        self._back()
        return outcome

    async def settle(
        self,
        hold_id: str,
        used: Sequence[int] | None,
        *,
        read: Sequence[Counter],
        now: float,
        entry: LedgerEntry | None = None,
    ) -> Settled:
        self._wire()
        outcome = await super().settle(hold_id, used, read=read, now=now, entry=entry)
        self._back()
        return outcome

    async def charge(self, lines: Sequence[HeldLine], *, batch: str, now: float) -> None:
        self._wire()
        await super().charge(lines, batch=batch, now=now)
        self._back()

    async def read(self, counters: Sequence[Counter], *, now: float) -> tuple[State, ...]:
        self._wire()
        return await super().read(counters, now=now)

    async def beat(self, owner: str, *, now: float) -> None:
        self._wire()
        await super().beat(owner, now=now)

    async def holds(self, *, hold_id: str | None = None) -> list[Hold]:
        self._wire()
        return await super().holds(hold_id=hold_id)

    async def recent_outputs(self, key_id: str, model: str, *, limit: int) -> list[int]:
        self._wire()
        return await super().recent_outputs(key_id, model, limit=limit)


def lossy(mode: OnStoreError = "refuse", *, replicas: int = 1) -> tuple[BudgetEngine, FlakyStore]:
    store = FlakyStore()
    return BudgetEngine(PLAN, store, owner="me", hold_timeout_s=60.0, on_store_error=mode, replicas=replicas), store


async def lines_of(store: MemoryStore) -> list[tuple[str, int]]:
    return [(line.request_id, line.input_tokens + line.output_tokens) async for line in store.entries()]


async def test_refuse_raises_and_recovers_by_itself() -> None:
    budgets, store = lossy()
    store.lost = True
    with pytest.raises(StoreLost):
        await budgets.reserve(ALICE, Estimate(10, 10), now=NOON)
    assert "cut" in budgets.store_error
    store.lost = False
    await held(budgets, Estimate(10, 10))
    assert budgets.store_error == ""
    assert await figures(budgets) == [(0, 20)]


async def test_reserve_leaves_no_hold_when_the_answer_was_lost() -> None:
    budgets, store = lossy()
    store.lose_answers = True
    with pytest.raises(StoreLost):
        await budgets.reserve(ALICE, Estimate(10, 10), now=NOON)
    assert len(await store.holds()) == 1
    store.lose_answers = False
    await budgets.sweep(now=NOON)
    assert await store.holds() == []
    assert await figures(budgets) == [(0, 0)]


async def test_settle_is_told_when_the_store_is_back() -> None:
    budgets, store = lossy()
    reservation = reservation_of(await held(budgets, Estimate(10, 10)))
    store.lost = True
    assert await budgets.settle(reservation, Usage(9, 9), now=NOON, entry=entry_of(reservation, Usage(9, 9))) == ()
    assert await budgets.sweep(now=NOON) == []
    store.lost = False
    await budgets.sweep(now=NOON)
    assert await figures(budgets) == [(18, 0)]
    assert await lines_of(store) == [("q1", 18)]


@pytest.mark.parametrize("mode", ["refuse", "allow", "divide"])
async def test_settle_counts_once_when_its_answer_was_lost(mode: OnStoreError) -> None:
    budgets, store = lossy(mode)
    reservation = reservation_of(await held(budgets, Estimate(10, 10)))
    store.lose_answers = True
    await budgets.settle(reservation, Usage(9, 9), now=NOON, entry=entry_of(reservation, Usage(9, 9)))
    store.lose_answers = False
    await held(budgets, Estimate(1, 1))
    assert await figures(budgets) == [(18, 2)]
    assert await lines_of(store) == [("q1", 18)]


async def test_allow_admits_everything_and_says_so() -> None:
    budgets, store = lossy("allow")
    store.lost = True
    decision = await budgets.reserve(ALICE, Estimate(5000, 10), now=NOON)
    assert not decision.allowed  # what can never fit does not fit now either: no counter is needed to know it
    for _ in range(5):
        decision = await held(budgets, Estimate(500, 10))
        assert decision.degraded == "allow: the wire is cut"
        reservation = reservation_of(decision)
        await budgets.settle(reservation, Usage(500, 5), now=NOON, entry=entry_of(reservation, Usage(500, 5)))
    store.lost = False
    assert await figures(budgets) == [(0, 0)]
    assert not (await budgets.reserve(ALICE, Estimate(1, 1), now=NOON)).allowed
    assert await figures(budgets) == [(2525, 0)]
    assert len(await lines_of(store)) == 5


async def test_divide_admits_a_share_of_what_was_left() -> None:
    budgets, store = lossy("divide", replicas=4)
    reservation = reservation_of(await held(budgets, Estimate(100, 100)))
    await budgets.settle(reservation, Usage(100, 100), now=NOON)
    await held(budgets, Estimate(100, 100))
    store.lost = True
    decisions = [await budgets.reserve(ALICE, Estimate(50, 0), now=NOON) for _ in range(5)]
    assert [decision.allowed for decision in decisions] == [True, True, True, False, False]
    assert all(decision.degraded.startswith("divide: ") for decision in decisions)


async def test_divide_takes_what_was_settled_here_into_account() -> None:
    budgets, store = lossy("divide", replicas=2)
    store.lost = True
    first = reservation_of(await held(budgets, Estimate(400, 0)))
    await budgets.settle(first, Usage(100, 0), now=NOON)
    await held(budgets, Estimate(400, 0))
    assert not (await budgets.reserve(ALICE, Estimate(1, 0), now=NOON)).allowed


@pytest.mark.parametrize("mode", ["allow", "divide"])
async def test_holds_made_here_move_to_the_store_when_it_is_back(mode: OnStoreError) -> None:
    budgets, store = lossy(mode)
    store.lost = True
    decision = await held(budgets, Estimate(600, 100))
    done = reservation_of(await held(budgets, Estimate(10, 10)))
    await budgets.settle(done, Usage(10, 5), now=NOON)
    store.lost = False
    # Nobody passes on the strength of room that requests of the outage still hold.
    assert not (await budgets.reserve(ALICE, Estimate(300, 0), now=NOON)).allowed
    assert await figures(budgets) == [(15, 700)]
    await budgets.settle(reservation_of(decision), Usage(600, 150), now=NOON)
    assert await figures(budgets) == [(765, 0)]
    assert budgets.store_error == ""


@pytest.mark.parametrize("answers", [False, True])
@pytest.mark.parametrize("lost_after", range(8))
async def test_nothing_is_counted_twice_when_the_store_is_lost_while_catching_up(
    lost_after: int, answers: bool
) -> None:
    budgets, store = lossy("allow")
    earlier = reservation_of(await held(budgets, Estimate(5, 5)))
    store.lost = True
    await budgets.settle(earlier, Usage(5, 2), now=NOON, entry=entry_of(earlier, Usage(5, 2), "a"))
    open_one = reservation_of(await held(budgets, Estimate(20, 20)))
    done = reservation_of(await held(budgets, Estimate(10, 10)))
    await budgets.settle(done, Usage(10, 3), now=NOON, entry=entry_of(done, Usage(10, 3), "b"))
    store.lost = False
    if answers:
        store.lose_answers = lost_after % 2 == 0
    else:
        store.lose_after = lost_after
    await budgets.sweep(now=NOON)
    if lost_after % 3 == 0:
        await budgets.settle(open_one, Usage(20, 1), now=NOON, entry=entry_of(open_one, Usage(20, 1), "c"))
    store.lost, store.lose_after, store.lose_answers = False, None, False
    await budgets.sweep(now=NOON)
    if lost_after % 3:
        await budgets.settle(open_one, Usage(20, 1), now=NOON, entry=entry_of(open_one, Usage(20, 1), "c"))
    assert await figures(budgets) == [(7 + 13 + 21, 0)]
    assert sorted(await lines_of(store)) == [("a", 7), ("b", 13), ("c", 21)]
    assert await store.holds() == []


async def test_reload_keeps_what_the_store_must_still_be_told() -> None:
    budgets, store = lossy("allow")
    store.lost = True
    reservation = reservation_of(await held(budgets, Estimate(10, 10)))
    reloaded = budgets.with_policy(policy(Limit("tokens", 500, "day")))
    await reloaded.settle(reservation, Usage(4, 4), now=NOON)
    store.lost = False
    await reloaded.close(now=NOON)
    assert [row.used for row in await store.counters()] == [8]


async def test_divide_forgets_what_it_knew_of_a_window_that_is_over() -> None:
    for sliding in (False, True):
        store = FlakyStore()
        plan = policy(Limit("tokens", 100, "minute", sliding))
        budgets: Any = BudgetEngine(plan, store, owner="me", on_store_error="divide")
        await held(budgets, Estimate(100, 0))
        store.lost = True
        assert not (await budgets.reserve(ALICE, Estimate(50, 0), now=NOON + 1)).allowed
        await held(budgets, Estimate(100, 0), now=NOON + 62)


async def test_divide_leaves_room_after_the_loss_for_what_others_have_not_told() -> None:
    one, store = lossy("divide", replicas=2)
    other = BudgetEngine(PLAN, store, owner="other", on_store_error="divide", replicas=2)
    store.lost = True
    assert (await one.reserve(ALICE, Estimate(0, 100), now=NOON)).degraded
    admitted = [await other.reserve(ALICE, Estimate(0, 100), now=NOON) for _ in range(6)]
    assert [decision.allowed for decision in admitted] == [True] * 5 + [False]
    store.lost = False
    # This replica hears from the store first: half of the limit may be taken by the other, which has not told yet.
    decisions = [await one.reserve(ALICE, Estimate(0, 100), now=NOON + 1) for _ in range(6)]
    assert [decision.allowed for decision in decisions] == [True] * 4 + [False] * 2
    refused = decisions[-1].refusal
    assert refused is not None
    assert refused.reason == "window_full"
    assert refused.retry_after_s == pytest.approx(10, abs=0.01)
    await other.sweep(now=NOON + 2)
    assert await figures(one) == [(0, 1000)]
    late = await one.reserve(ALICE, Estimate(0, 100), now=NOON + 12)
    assert late.refusal is not None
    assert late.refusal.reason == "quota_spent"


async def test_divide_uses_the_whole_limit_again_some_time_after_the_loss() -> None:
    budgets, store = lossy("divide", replicas=2)
    store.lost = True
    share = await budgets.reserve(ALICE, Estimate(0, 500), now=NOON)
    told = await budgets.reserve(ALICE, Estimate(0, 100), now=NOON)
    assert share.allowed
    assert told.refusal is not None
    assert (told.refusal.reason, told.refusal.retry_after_s) == ("window_full", pytest.approx(5, abs=0.01))
    store.lost = False
    assert not (await budgets.reserve(ALICE, Estimate(0, 500), now=NOON + 9)).allowed
    assert (await budgets.reserve(ALICE, Estimate(0, 500), now=NOON + 20)).allowed
