"""Drift learning: what is learned, how fast, and what cannot be taught by one liar."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenizers_offline.learning import MOST_OVERHEAD, DriftLearner, Situation
from tokenizers_offline.prompt import Accuracy, TokenCount

HERE = Situation(upstream="groq", model="llama-3.3-70b", features=("tools",))


def count_of(tokens: int, accuracy: Accuracy = Accuracy.EXACT) -> TokenCount:
    return TokenCount(input_tokens=tokens, accuracy=accuracy, upper=tokens * 2, encoding="llama-3")


def taught(drifts: list[int], *, estimate: bool = False) -> DriftLearner:
    learner = DriftLearner()
    for index, drift in enumerate(drifts):
        counted = 100 + 17 * index
        learner.observe(HERE, counted=counted, reported=counted + drift, estimate=estimate)
    return learner


def test_hidden_prompt_is_learned_within_twenty_requests() -> None:
    corrected = taught([199] * 20).correct(HERE, count_of(1000))
    assert (corrected.input_tokens, corrected.upper) == (1199, 1199)
    assert corrected.accuracy is Accuracy.BOUNDED
    assert "+199 tokens" in corrected.notes[-1]


def test_one_poisoned_answer_changes_nothing_before_or_after_learning() -> None:
    fresh = taught([0] * 19 + [50_000])
    assert fresh.correct(HERE, count_of(1000)) == count_of(1000)
    learned = taught([199] * 20 + [50_000])
    assert learned.correct(HERE, count_of(1000)).upper == 1199


def test_nothing_is_learned_when_bills_disagree() -> None:
    scattered = random.Random(7).sample(range(-90, 900), 40)
    assert taught(scattered).correct(HERE, count_of(1000)) == count_of(1000)


def test_a_changed_hidden_prompt_replaces_the_old_one() -> None:
    learner = taught([199] * 64 + [240] * 64)
    assert learner.correct(HERE, count_of(1000)).input_tokens == 1240


def test_other_situations_are_left_alone() -> None:
    learner = taught([199] * 20)
    plain = Situation(upstream="groq", model="llama-3.3-70b", features=())
    assert learner.correct(plain, count_of(10)) == count_of(10)


def test_an_overhead_beyond_the_bound_is_not_believed() -> None:
    assert taught([MOST_OVERHEAD + 1] * 30).correct(HERE, count_of(10)) == count_of(10)


@pytest.mark.parametrize("factor", [0.9, 1.1, 1.3])
def test_an_estimate_learns_its_factor(factor: float) -> None:
    learner = DriftLearner()
    for index in range(20):
        counted = 200 + 150 * index
        learner.observe(HERE, counted=counted, reported=round(counted * factor), estimate=True)
    corrected = learner.correct(HERE, count_of(4000, Accuracy.ESTIMATE))
    assert corrected.input_tokens == pytest.approx(4000 * factor, rel=0.01)
    assert corrected.accuracy is Accuracy.ESTIMATE


def test_an_exact_family_never_learns_a_factor() -> None:
    learner = DriftLearner()
    for index in range(20):
        counted = 200 + 150 * index
        learner.observe(HERE, counted=counted, reported=round(counted * 1.2), estimate=False)
    assert learner.correct(HERE, count_of(4000)) == count_of(4000)


def test_reset_forgets_by_upstream_and_model() -> None:
    learner = taught([199] * 20)
    assert learner.reset(upstream="other") == 0
    assert learner.reset(upstream="groq", model="llama-3.3-70b") == 1
    assert learner.correct(HERE, count_of(1)) == count_of(1)


def test_observed_tells_share_and_mean_drift() -> None:
    (seen,) = taught([0, 0, 0, 8]).observed("llama-3.3-70b")
    assert (seen.n, seen.exact_share, seen.mean_drift, seen.correction) == (4, 0.75, 2.0, None)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(-5, 10**7)), max_size=90), st.booleans())
def test_a_corrected_upper_bound_never_lies_below_its_count(bills: list[tuple[int, int]], estimate: bool) -> None:
    learner = DriftLearner()
    for counted, reported in bills:
        learner.observe(HERE, counted=counted, reported=reported, estimate=estimate)
    corrected = learner.correct(HERE, count_of(500))
    assert corrected.upper >= corrected.input_tokens >= 0
