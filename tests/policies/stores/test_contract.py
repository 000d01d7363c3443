"""One suite for every store: what holds for one must hold for all."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.ledger import LedgerEntry
from policies.model import MICRO
from policies.stores.base import (
    Ask,
    BudgetStore,
    Counter,
    Denied,
    Granted,
    HeldLine,
    Order,
    Settled,
    State,
    Stretch,
    grant,
)

NOW = 1_000_000.0
DAY = Counter("plan|key=alice|tokens|day", 960_000, 960_000, 0, 2_000_000.0)
TEAM = Counter("team|team=search|tokens|day", 960_000, 960_000, 0, 2_000_000.0)
MINUTE = Counter("plan|key=alice|tokens|sliding-minute", 1_000_000, 999_940, 1, 2_000_000.0)


def rigid(counter: Counter, amount: int, ceiling: int) -> Ask:
    return Ask(counter, ceiling, amount, 0, 0, Stretch.RIGID)


def order(*asks: Ask, hold_id: str = "r1", owner: str = "me", output: int = 0, choices: int = 1) -> Order:
    return Order(hold_id, owner, asks, 10, output, choices, b'{"memo":1}')


def entry(request_id: str = "q1", *, at: float = NOW, **more: object) -> LedgerEntry:
    return LedgerEntry(request_id, at, "alice", "gpt-4o", "openai", "ok", source="reported", **more)  # type: ignore[arg-type]


async def granted(store: BudgetStore, placed: Order) -> Granted:
    outcome = await store.reserve(placed, now=NOW)
    assert isinstance(outcome, Granted)
    return outcome


async def denied(store: BudgetStore, placed: Order) -> Denied:
    outcome = await store.reserve(placed, now=NOW)
    assert isinstance(outcome, Denied)
    return outcome


async def test_reserve_holds_when_it_fits(store: BudgetStore) -> None:
    outcome = await granted(store, order(rigid(DAY, 60, 100), rigid(TEAM, 60, 60)))
    assert outcome == Granted((60, 60), 0, 0, (State(0, 60), State(0, 60)))
    assert await store.read([DAY, TEAM], now=NOW) == (State(0, 60), State(0, 60))


async def test_reserve_changes_nothing_when_one_of_many_does_not_fit(store: BudgetStore) -> None:
    await granted(store, order(rigid(DAY, 50, 100)))
    outcome = await denied(store, order(rigid(TEAM, 51, 60), rigid(DAY, 51, 100), hold_id="r2"))
    assert outcome == Denied((1,), (State(0, 0), State(0, 50)), {})
    assert await store.read([DAY, TEAM], now=NOW) == (State(0, 50), State(0, 0))
    assert [hold.id for hold in await store.holds()] == ["r1"]


async def test_a_late_reserve_counts_what_later_ones_have_put_into_its_window(store: BudgetStore) -> None:
    """Processes reach the store in another order than they looked at the clock."""
    later = MINUTE._replace(slot=MINUTE.slot + 1, since=MINUTE.since + 1)
    await granted(store, order(rigid(later, 60, 100)))
    outcome = await denied(store, order(rigid(MINUTE, 60, 100), hold_id="r2"))
    assert outcome.states == (State(0, 60),)
    assert outcome.slots == {0: ((later.slot, 60),)}
    assert await store.read([MINUTE, later], now=NOW) == (State(0, 60), State(0, 60))


async def test_reserve_counts_but_never_refuses_when_in_shadow(store: BudgetStore) -> None:
    assert (await granted(store, order(rigid(DAY, 500, -1)))).states == (State(0, 500),)


async def test_settle_moves_from_held_to_used(store: BudgetStore) -> None:
    await granted(store, order(rigid(DAY, 60, 100), rigid(TEAM, 60, 100)))
    settled = await store.settle("r1", (25, 30), read=[DAY, TEAM], now=NOW)
    assert settled == Settled(True, (State(25, 0), State(30, 0)))
    assert await store.holds() == []


async def test_settle_records_the_debt_when_more_was_used_than_held(store: BudgetStore) -> None:
    await granted(store, order(rigid(DAY, 60, 100)))
    await store.settle("r1", (250,), read=[], now=NOW)
    assert await store.read([DAY], now=NOW) == (State(250, 0),)
    await denied(store, order(rigid(DAY, 1, 100), hold_id="r2"))


async def test_settle_counts_once_when_called_often(store: BudgetStore) -> None:
    await granted(store, order(rigid(DAY, 60, 100)))
    ends = [store.settle("r1", (20,), read=[], now=NOW, entry=entry("a")), store.settle("r1", None, read=[], now=NOW)]
    won = [end.won for end in await asyncio.gather(*ends)]
    assert sorted(won) == [False, True]
    assert not (await store.settle("r1", (99,), read=[], now=NOW, entry=entry("b"))).won
    (state,) = await store.read([DAY], now=NOW)
    assert state in (State(20, 0), State(0, 0))
    assert [line.request_id async for line in store.entries()] == (["a"] if state.used else [])


async def test_settle_reaches_the_window_that_was_held_when_it_has_rolled_over(store: BudgetStore) -> None:
    await granted(store, order(rigid(DAY, 60, 100)))
    tomorrow = Counter(DAY.series, DAY.slot + 86_400, DAY.slot + 86_400, 0, 3_000_000.0)
    settled = await store.settle("r1", (70,), read=[tomorrow], now=NOW + 86_400)
    assert settled.states == (State(0, 0),)
    assert await store.read([DAY, tomorrow], now=NOW) == (State(70, 0), State(0, 0))


async def test_release_gives_everything_back(store: BudgetStore) -> None:
    await granted(store, order(rigid(DAY, 60, 100)))
    assert (await store.settle("r1", None, read=[DAY], now=NOW)).states == (State(0, 0),)


async def test_sliding_window_sums_its_slots_until_they_leave(store: BudgetStore) -> None:
    def at(second: int) -> Counter:
        return MINUTE._replace(slot=1_000_000 + second, since=999_940 + second)

    await granted(store, order(rigid(at(0), 40, 100)))
    await granted(store, order(rigid(at(30), 40, 100), hold_id="r2"))
    await store.settle("r2", (50,), read=[], now=NOW + 31)
    outcome = await denied(store, order(rigid(at(60), 20, 100), hold_id="r3"))
    assert outcome.states == (State(50, 40),)
    assert outcome.slots == {0: ((1_000_000, 40), (1_000_030, 50))}
    assert (await granted(store, order(rigid(at(61), 20, 100), hold_id="r4"))).states == (State(50, 20),)
    assert await store.read([at(91)], now=NOW) == (State(0, 20),)


async def test_shrinking_ask_holds_what_is_left(store: BudgetStore) -> None:
    await granted(store, order(rigid(DAY, 60, 100)))
    ask = Ask(DAY, 100, 10, MICRO, 500, Stretch.SHRINK)
    outcome = await granted(store, order(ask, hold_id="r2", output=500))
    assert outcome == Granted((40,), 30, 500, (State(0, 100),))
    (hold,) = await store.holds(hold_id="r2")
    assert hold.output_tokens == 30
    outcome2 = await denied(store, order(ask, hold_id="r3", output=500))
    assert outcome2.refusing == (0,)


async def test_clamp_lowers_the_whole_request(store: BudgetStore) -> None:
    clamp = Ask(DAY, 100, 10, 2 * MICRO, 500, Stretch.CLAMP)
    other = Ask(TEAM, 1000, 10, 2 * MICRO, 500, Stretch.CLAMP)
    outcome = await granted(store, order(other, clamp, output=500, choices=2))
    assert outcome == Granted((100, 100), 45, 45, (State(0, 100), State(0, 100)))
    (hold,) = await store.holds()
    assert (hold.output_tokens, hold.choices) == (90, 2)


async def test_charge_counts_once_when_its_batch_is_sent_twice(store: BudgetStore) -> None:
    lines = [HeldLine(DAY.series, DAY.slot, 70, DAY.expires_at)]
    for _ in range(2):
        await store.charge(lines, batch="b1", now=NOW)
    assert await store.read([DAY], now=NOW) == (State(70, 0),)


async def test_hold_is_journalled_with_its_owner_and_lines(store: BudgetStore) -> None:
    await granted(store, order(rigid(DAY, 60, 100), rigid(MINUTE, 5, 10)))
    await store.beat("me", now=NOW + 5)
    (hold,) = await store.holds()
    assert (hold.id, hold.owner, hold.held_at, hold.beat_at) == ("r1", "me", NOW, NOW + 5)
    assert (hold.input_tokens, hold.output_tokens, hold.choices, hold.memo) == (10, 0, 1, b'{"memo":1}')
    assert hold.lines == (
        HeldLine(DAY.series, DAY.slot, 60, DAY.expires_at),
        HeldLine(MINUTE.series, MINUTE.slot, 5, MINUTE.expires_at),
    )
    assert await store.holds(hold_id="other") == []


async def test_hold_without_any_line_is_kept_until_it_ends(store: BudgetStore) -> None:
    await granted(store, order())
    assert (await store.settle("r1", (), read=[], now=NOW)).won
    assert not (await store.settle("r1", (), read=[], now=NOW)).won


async def test_ledger_keeps_every_field(store: BudgetStore) -> None:
    line = LedgerEntry(
        "q1", NOW, "alice", "gpt-4o", "openai", "cut", {"team": "sé|rch"}, 10, 20, 11, 22, 3, 4, 9, "exact", "counted",
        2, 50, True, "/v1/chat/completions", "", 1.5, 0.25, ("text", "tools"),
    )  # fmt: skip
    store.record(line)
    store.record(entry("q2", at=NOW + 1, output_cap=None))
    assert [kept async for kept in store.entries()] == [line, entry("q2", at=NOW + 1)]


async def test_ledger_is_searched_by_time_key_and_model(store: BudgetStore) -> None:
    for second in range(5):
        store.record(entry(f"q{second}", at=NOW + second))
    found = [line.request_id async for line in store.entries(since=NOW + 1, until=NOW + 3)]
    assert found == ["q1", "q2"]
    assert [line async for line in store.entries(key_id="bob")] == []
    assert [line async for line in store.entries(model="gpt-4")] == []
    assert len([line async for line in store.entries(key_id="alice", model="gpt-4o")]) == 5


async def test_recent_outputs_come_newest_first_and_per_answer(store: BudgetStore) -> None:
    for output in (10, 20, 0, 31):
        store.record(entry(output_tokens=output, choices=2))
    await store.ping()
    assert await store.recent_outputs("alice", "gpt-4o", limit=2) == [16, 10]
    assert await store.recent_outputs("alice", "other", limit=2) == []


async def test_prune_drops_what_has_expired_and_is_not_held(pruned_store: BudgetStore) -> None:
    store = pruned_store
    await granted(store, order(rigid(DAY, 60, 100), rigid(TEAM._replace(expires_at=0.0), 60, 100)))
    await store.prune(now=3_000_000.0, ledger_before=None)
    assert (await store.read([DAY], now=NOW))[0].held == 60
    await store.settle("r1", (60, 60), read=[], now=NOW, entry=entry())
    await store.prune(now=3_000_000.0, ledger_before=NOW + 1)
    assert [(row.series, row.used) for row in await store.counters()] == [(TEAM.series, 60)]
    assert [line async for line in store.entries()] == []


async def test_reset_clears_what_it_names_and_nothing_else(store: BudgetStore) -> None:
    await store.charge([HeldLine(DAY.series, 1, 5, 0.0), HeldLine(TEAM.series, 1, 6, 0.0)], batch="b", now=NOW)
    assert await store.reset("plan|key=alice|") == 1
    assert await store.reset("plan|key=al") == 0
    assert {row.series: row.used for row in await store.counters() if row.used} == {TEAM.series: 6}
    assert await store.reset(TEAM.series) == 1
    assert all(row.used == 0 for row in await store.counters())


async def test_reserve_admits_exactly_what_fits_when_many_come_at_once(store: BudgetStore) -> None:
    orders = [order(rigid(DAY, 10, 1000), rigid(TEAM, 10, 1500), hold_id=f"r{i}") for i in range(500)]
    outcomes = await asyncio.gather(*(store.reserve(each, now=NOW) for each in orders))
    assert sum(isinstance(outcome, Granted) for outcome in outcomes) == 100
    assert await store.read([DAY, TEAM], now=NOW) == (State(0, 1000), State(0, 1000))


async def test_reserve_and_settle_take_effect_in_the_order_they_were_called(store: BudgetStore) -> None:
    reserved = asyncio.ensure_future(store.reserve(order(rigid(DAY, 10, 100)), now=NOW))
    await asyncio.sleep(0)
    reserved.cancel()
    settled = await store.settle("r1", None, read=[DAY], now=NOW)
    assert settled.states == (State(0, 0),)
    assert await store.holds() == []


async def test_owners_are_known_until_they_leave(store: BudgetStore) -> None:
    await store.beat("one", now=NOW)
    await store.beat("two", now=NOW)
    await store.beat("one", now=NOW + 5)
    assert await store.owners() == {"one": NOW + 5, "two": NOW}
    await store.leave("two")
    await store.leave("nobody")
    assert await store.owners() == {"one": NOW + 5}


AMOUNTS = st.integers(0, 60)
ASKS = st.lists(
    st.tuples(
        st.sampled_from([DAY, TEAM, MINUTE]),
        st.one_of(st.just(-1), st.integers(0, 200)),
        AMOUNTS,
        st.sampled_from([0, MICRO // 4, MICRO, 3 * MICRO]),
        AMOUNTS,
        st.sampled_from(list(Stretch)),
    ).map(lambda fields: Ask(*fields)),
    max_size=3,
    unique_by=lambda ask: ask.counter.series,
)


@pytest.mark.parametrize("seed", range(3))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asks=st.lists(st.tuples(ASKS, AMOUNTS, st.integers(0, 80)), max_size=8))
def test_store_decides_as_the_rule_says(seed: int, open_fresh: object, asks: list[tuple[list[Ask], int, int]]) -> None:
    """Every store, its scripts included, against `grant` and plain sums."""

    async def play() -> None:
        chance = random.Random(seed)
        store = open_fresh()  # type: ignore[operator]
        totals: dict[str, list[int]] = {}
        try:
            for number, (some, output, used) in enumerate(asks):
                counters = [ask.counter for ask in some]
                states = [State(*totals.setdefault(counter.series, [0, 0])) for counter in counters]
                expected = grant(some, states, output=output)
                outcome = await store.reserve(order(*some, hold_id=f"h{number}", output=output), now=NOW)
                if isinstance(expected, list):
                    assert isinstance(outcome, Denied)
                    assert (list(outcome.refusing), list(outcome.states)) == (expected, states)
                    continue
                assert isinstance(outcome, Granted)
                assert outcome[:3] == expected
                for counter, amount in zip(counters, outcome.amounts, strict=True):
                    totals[counter.series][1] += amount
                if chance.random() < 0.7:
                    figures = None if chance.random() < 0.3 else tuple(used for _ in some)
                    await store.settle(f"h{number}", figures, read=[], now=NOW)
                    for counter, amount in zip(counters, outcome.amounts, strict=True):
                        totals[counter.series][1] -= amount
                        totals[counter.series][0] += used if figures else 0
                assert await store.read(counters, now=NOW) == tuple(State(*totals[c.series]) for c in counters)
        finally:
            await store.close()

    asyncio.run(play())
