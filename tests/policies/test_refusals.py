"""Refusals tell the truth: which budget, how much is left, and when waiting helps."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.model import Budget, Estimate, Limit, Period, Refusal
from policies.policy import Policy
from policies.refusals import iso
from policies.usage import Usage
from tests.policies.conftest import ALICE, NOON, engine, policy
from tests.policies.test_engine import held, refused, reservation_of


async def test_full_minute_names_the_wait_until_the_next() -> None:
    budgets = engine(policy(Limit("tokens", 1000, "minute"), name="burst"))
    await held(budgets, Estimate(600, 300))
    refusal = await refused(budgets, Estimate(100, 50))
    assert refusal == Refusal(
        reason="window_full",
        budget="burst",
        scope="key=alice",
        message=(
            "Budget 'burst' (key=alice): this request needs 150 tokens (100 input + 50 output held), "
            "100 of 1,000 tokens per minute are left; it resets at 2026-03-10T12:01:00Z."
        ),
        unit="tokens",
        per="minute",
        asked=150,
        available=100,
        limit=1000,
        resets_at=NOON + 30,
        retry_after_s=30.001,
    )


@pytest.mark.parametrize(
    ("per", "resets"),
    [
        ("day", "2026-03-11T00:00:00Z"),
        ("week", "2026-03-16T00:00:00Z"),
        ("month", "2026-04-01T00:00:00Z"),
        ("year", "2027-01-01T00:00:00Z"),
    ],
)
async def test_spent_quota_names_its_true_reset_and_no_wait(per: Period, resets: str) -> None:
    budgets = engine(policy(Limit("requests", 1, per)))
    await held(budgets, Estimate(1, 1))
    refusal = await refused(budgets, Estimate(1, 1))
    assert (refusal.reason, refusal.retry_after_s) == ("quota_spent", None)
    assert refusal.resets_at == datetime.fromisoformat(resets).timestamp()
    assert resets in refusal.message


async def test_spent_total_never_resets() -> None:
    budgets = engine(policy(Limit("tokens", 10, "total")))
    await held(budgets, Estimate(9, 1))
    refusal = await refused(budgets, Estimate(1, 1))
    assert (refusal.reason, refusal.resets_at, refusal.retry_after_s) == ("quota_spent", None, None)
    assert "does not reset" in refusal.message


async def test_request_larger_than_the_whole_limit_never_fits() -> None:
    budgets = engine(policy(Limit("tokens", 1000, "minute")))
    refusal = await refused(budgets, Estimate(900, 101))
    assert (refusal.reason, refusal.asked, refusal.limit, refusal.retry_after_s) == ("never_fits", 1001, 1000, None)


async def test_budget_that_stands_longest_is_the_one_told() -> None:
    budgets = engine(
        Policy(
            budgets=(
                Budget("minute", (Limit("requests", 1, "minute"),)),
                Budget("month", (Limit("requests", 1, "month"),)),
                Budget("hour", (Limit("requests", 1, "hour"),)),
                Budget("flight", (Limit("concurrent", 1, "total"),)),
            )
        )
    )
    await held(budgets, Estimate(1, 1))
    assert (await refused(budgets, Estimate(1, 1))).budget == "month"


async def test_denied_model_is_told_before_anything_else() -> None:
    budgets = engine(policy(Limit("tokens", 1, "day"), deny_models=("gpt-4*",)))
    refusal = await refused(budgets, Estimate(100, 100))
    assert refusal.reason == "model_denied"
    assert "'gpt-4o'" in refusal.message


LIMITS = st.lists(
    st.tuples(
        st.sampled_from(["tokens", "input_tokens", "requests"]),
        st.integers(1, 60),
        st.sampled_from(["minute", "hour"]),
        st.booleans(),
    ).map(lambda fields: Limit(*fields)),
    min_size=1,
    max_size=3,
    unique_by=lambda limit: (limit.unit, limit.per, limit.sliding),
)
REQUESTS = st.lists(
    st.tuples(st.integers(0, 20), st.one_of(st.none(), st.integers(0, 20)), st.integers(0, 40), st.floats(0, 40)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(LIMITS, REQUESTS, st.tuples(st.integers(0, 20), st.one_of(st.none(), st.integers(0, 20))))
async def test_same_request_passes_after_the_wait_it_was_told(
    limits: list[Limit], requests: list[tuple[int, int | None, int, float]], last: tuple[int, int | None]
) -> None:
    budgets = engine(policy(*limits))
    now = NOON
    for input_tokens, output_cap, used, pause in requests:
        now += pause
        decision = await budgets.reserve(ALICE, Estimate(input_tokens, output_cap), now=now)
        if decision.allowed and used % 3:
            await budgets.settle(reservation_of(decision), Usage(input_tokens, used), now=now)
    estimate = Estimate(*last)
    decision = await budgets.reserve(ALICE, estimate, now=now)
    if decision.refusal is None or decision.refusal.reason == "never_fits":
        return
    wait = decision.refusal.retry_after_s
    assert wait is not None
    assert 0 < wait <= 2 * 3600 + 60
    assert (await budgets.reserve(ALICE, estimate, now=now + wait)).allowed
    if len(limits) == 1 and estimate.output_cap is not None:
        # Nor is the wait longer than it must be: a sliding window moves in steps, so one step earlier is too early.
        step = wait if not limits[0].sliding else {"minute": 1, "hour": 60}[limits[0].per]
        fresh = engine(policy(*limits), budgets.store)
        early = now + wait - step - 0.002
        if early > now:
            assert not (
                await fresh.preview(ALICE, Estimate(estimate.input_tokens, estimate.output_cap), now=early)
            ).allowed


def test_moment_is_told_in_whole_seconds_rounded_up() -> None:
    assert iso(NOON - 0.5) == "2026-03-10T12:00:30Z"


@pytest.mark.parametrize(
    ("refusal", "limit"),
    [
        (Refusal("window_full", "b", "all", "", unit="input_tokens", per="minute"), "input tokens per minute"),
        (Refusal("window_full", "b", "all", "", unit="concurrent", per="total"), "concurrent requests"),
        (Refusal("quota_spent", "b", "all", "", unit="requests", per="total"), "requests in total"),
        (Refusal("never_fits", "b", "all", "", unit="input_tokens"), "input tokens in one request"),
        (Refusal("model_denied", "b", "all", ""), ""),
        (Refusal("output_cap_required", "b", "all", "", unit="output_tokens"), ""),
    ],
)
def test_refusal_names_its_limit_where_it_was_one(refusal: Refusal, limit: str) -> None:
    assert refusal.limit_named == limit
