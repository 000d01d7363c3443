"""How much a request holds: caps, choices, and what happens when nobody named a cap."""

from __future__ import annotations

import pytest

from policies.engine import BudgetEngine
from policies.learned import ENOUGH
from policies.ledger import LedgerEntry
from policies.model import Budget, Estimate, Limit, OutputHold
from policies.policy import Policy
from policies.stores.base import BudgetStore
from policies.stores.memory import MemoryStore
from policies.usage import Usage
from tests.policies.conftest import BOB, NOON, engine, policy
from tests.policies.test_engine import figures, held, refused, reservation_of

DAILY = Limit("tokens", 10_000, "day")


async def answer(budgets: BudgetEngine, output: int, *, choices: int = 1) -> None:
    reservation = reservation_of(await held(budgets, Estimate(0, output, choices=choices)))
    await budgets.settle(reservation, Usage(0, output * choices), now=NOON)


async def test_named_cap_is_held_for_every_choice() -> None:
    budgets = engine(policy(DAILY))
    assert (await held(budgets, Estimate(10, 100, choices=5))).statuses[0].held == 510


async def test_named_cap_is_never_lowered_to_what_is_left() -> None:
    for hold in ("clamp", "learned"):
        budgets = engine(policy(Limit("tokens", 100, "day"), output_hold=hold))
        await held(budgets, Estimate(10, 50))
        assert (await refused(budgets, Estimate(10, 50))).reason == "quota_spent"


async def test_cap_of_one_with_many_choices_does_not_slip_through() -> None:
    budgets = engine(policy(Limit("tokens", 1000, "minute")))
    assert (await refused(budgets, Estimate(10, 1, choices=5000))).reason == "never_fits"


async def test_learned_holds_the_floor_before_there_is_history() -> None:
    budgets = engine(Policy(budgets=(Budget("plan", (DAILY,)),), output_hold_floor=300))
    assert (await held(budgets, Estimate(10))).statuses[0].held == 310


async def test_learned_holds_the_99th_percentile_of_this_key_and_model() -> None:
    budgets = engine(Policy(budgets=(Budget("plan", (Limit("tokens", 10**6, "day"),), each="key"),)))
    await held(budgets, Estimate(10))
    for output in [50] * 197 + [900, 70, 800]:
        await answer(budgets, output)
    decision = await held(budgets, Estimate(10, choices=2))
    assert reservation_of(decision).held_output == 2 * 70
    other = await held(budgets, Estimate(10), subject=BOB)
    assert reservation_of(other).held_output == 1024


async def test_learned_is_the_longest_answer_or_the_floor_while_history_is_short() -> None:
    budgets = engine(Policy(budgets=(Budget("plan", (Limit("tokens", 10**6, "day"),)),), output_hold_floor=100))
    await held(budgets, Estimate(10))
    for output in [20] * (ENOUGH - 2) + [400]:
        await answer(budgets, output)
    assert reservation_of(await held(budgets, Estimate(10))).held_output == 400
    await answer(budgets, 20)
    assert reservation_of(await held(budgets, Estimate(10))).held_output == 400
    for _ in range(81):
        await answer(budgets, 20)
    assert reservation_of(await held(budgets, Estimate(10))).held_output == 20


async def test_learned_comes_from_the_ledger_after_a_restart() -> None:
    store = MemoryStore()
    for number in range(ENOUGH):
        line = LedgerEntry(str(number), NOON, "alice", "gpt-4o", "openai", "ok", output_tokens=60, source="reported")
        store.record(line)
        store.record(
            LedgerEntry(f"h{number}", NOON, "alice", "gpt-4o", "", "abandoned", output_tokens=9, source="held")
        )
    budgets = engine(policy(DAILY), store)
    assert reservation_of(await held(budgets, Estimate(10))).held_output == 60


async def test_learned_never_starves_requests_that_name_no_cap(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("tokens", 100, "minute")), store)
    decision = await held(budgets, Estimate(10))
    assert decision.output_cap is None
    assert (decision.statuses[0].remaining, reservation_of(decision).held_output) == (0, 90)
    await budgets.settle(reservation_of(decision), Usage(10, 5), now=NOON)
    again = await held(budgets, Estimate(10))
    assert reservation_of(again).held_output == 75
    assert (await refused(budgets, Estimate(10))).reason == "window_full"


async def test_learned_that_outgrows_its_hold_leaves_a_debt(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("tokens", 100, "minute")), store)
    decision = await held(budgets, Estimate(10))
    await budgets.settle(reservation_of(decision), Usage(10, 400), now=NOON)
    assert await figures(budgets) == [(410, 0)]


async def test_number_is_held_when_no_cap_is_named() -> None:
    budgets = engine(policy(DAILY, output_hold=777))
    assert (await held(budgets, Estimate(10, choices=2))).statuses[0].held == 10 + 2 * 777


async def test_model_max_is_held_when_no_cap_is_named() -> None:
    budgets = engine(policy(DAILY, output_hold="model_max"))
    assert (await held(budgets, Estimate(10, model_max_output=4096))).statuses[0].held == 4106


async def test_model_max_asks_for_a_cap_when_the_maximum_is_not_known() -> None:
    budgets = engine(policy(DAILY, output_hold="model_max"))
    refusal = await refused(budgets, Estimate(10))
    assert refusal.reason == "output_cap_required"
    assert "gpt-4o" in refusal.message


async def test_refuse_takes_only_requests_that_name_a_cap() -> None:
    budgets = engine(policy(DAILY, output_hold="refuse"))
    refusal = await refused(budgets, Estimate(10, model_max_output=100))
    assert (refusal.reason, refusal.unit) == ("output_cap_required", "output_tokens")
    await held(budgets, Estimate(10, 20))


async def test_refuse_as_a_default_leaves_budgets_of_requests_alone() -> None:
    budgets = engine(Policy(budgets=(Budget("plan", (Limit("requests", 5, "day"),)),), output_hold="refuse"))
    await held(budgets, Estimate(10))


async def test_clamp_caps_the_request_at_what_is_left(store: BudgetStore) -> None:
    budgets = engine(policy(Limit("tokens", 100, "minute"), output_hold="clamp"), store)
    decision = await held(budgets, Estimate(10, choices=3, model_max_output=4096))
    assert decision.output_cap == 30
    assert decision.statuses[0].remaining == 0
    (status,) = await budgets.settle(reservation_of(decision), Usage(10, 90), now=NOON)
    assert status.used == 100
    assert (await refused(budgets, Estimate(10))).reason == "window_full"


async def test_clamp_caps_at_the_models_maximum_when_there_is_plenty() -> None:
    budgets = engine(policy(Limit("tokens", 10**6, "day"), output_hold="clamp"))
    assert (await held(budgets, Estimate(10, model_max_output=4096))).output_cap == 4096
    assert (await held(budgets, Estimate(10))).output_cap == 32_768


async def test_clamp_follows_the_tightest_of_several_budgets() -> None:
    small = Budget("small", (Limit("tokens", 50, "minute"),))
    large = Budget("large", (Limit("tokens", 10**6, "month"),))
    budgets = engine(Policy(budgets=(large, small), output_hold="clamp"))
    decision = await held(budgets, Estimate(10, model_max_output=4096))
    assert decision.output_cap == 40
    assert [status.held for status in decision.statuses] == [50, 50]


@pytest.mark.parametrize(
    ("asked", "cap", "held_tokens"), [(100, 40, 50), (30, None, 40), (40, None, 50), (None, 40, 50)]
)
async def test_max_output_tokens_lowers_the_cap_of_a_request(
    asked: int | None, cap: int | None, held_tokens: int
) -> None:
    budgets = engine(policy(DAILY, max_output_tokens=40, output_hold="model_max"))
    decision = await held(budgets, Estimate(10, asked, model_max_output=4096))
    assert (decision.output_cap, decision.statuses[0].held) == (cap, held_tokens)


@pytest.mark.parametrize("hold", ["learned", "clamp", 5000, "model_max"])
async def test_max_output_tokens_bounds_every_way_of_holding(hold: OutputHold) -> None:
    budgets = engine(policy(DAILY, max_output_tokens=40, output_hold=hold))
    decision = await held(budgets, Estimate(10))
    assert (decision.output_cap, decision.statuses[0].held) == (40, 50)


async def test_max_input_tokens_refuses_long_prompts_whatever_is_left() -> None:
    budgets = engine(policy(DAILY, max_input_tokens=100))
    await held(budgets, Estimate(100, 0))
    refusal = await refused(budgets, Estimate(101, 0))
    assert (refusal.reason, refusal.asked, refusal.available) == ("never_fits", 101, 100)


async def test_weighted_hold_bounds_whatever_the_answer_is_made_of() -> None:
    from policies.model import Weights

    budgets = engine(policy(DAILY, weights=Weights(input=0.3, output=1.7, cached=0.1, reasoning=0.9)))
    decision = await held(budgets, Estimate(101, 33))
    worst = Usage(101, 33)
    (status,) = await budgets.settle(reservation_of(decision), worst, now=NOON)
    assert status.used <= decision.statuses[0].held
