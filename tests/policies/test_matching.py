"""Which budgets a request meets."""

from __future__ import annotations

import time

import pytest

from policies.matching import PolicyIndex, concerns, series
from policies.model import Budget, Key, Limit, Match, Subject, Weights
from policies.policy import Policy

REQUESTS = (Limit("requests", 10, "day"),)


def met(match: Match, **subject: object) -> bool:
    fields: dict[str, object] = {"key_id": "alice", "tags": {"team": "search"}, "model": "gpt-4o", "upstream": "openai"}
    index = PolicyIndex(Policy(budgets=(Budget("b", REQUESTS, match),)))
    return bool(index.plan(Subject(**{**fields, **subject})).lines)  # type: ignore[arg-type]


def scopes(each: str, *tags: dict[str, str]) -> list[str]:
    index = PolicyIndex(Policy(budgets=(Budget("b", REQUESTS, each=each),)))
    return [index.plan(Subject("alice", each_tags, "m", "u")).lines[0].scope for each_tags in tags]


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (Match(), True),
        (Match(key=("alice",)), True),
        (Match(key=("bob", "al*")), True),
        (Match(key=("Alice",)), False),
        (Match(model=("gpt-4*",)), True),
        (Match(model=("gpt-4",)), False),
        (Match(model=("*-mini", "gpt-?o")), True),
        (Match(upstream=("azure-*",)), False),
        (Match(tags={"team": ("search",)}), True),
        (Match(tags={"team": ("sea*",), "env": ("*",)}), False),
        (Match(key=("alice",), model=("claude*",)), False),
    ],
)
def test_budget_matches_when_every_given_field_does(match: Match, expected: bool) -> None:
    assert met(match) is expected


@pytest.mark.parametrize("model", ["GPT-4o", "openai/gpt-4o", "OpenAI/GPT-4O", "models/openai/gpt-4o"])
def test_model_cannot_dodge_its_budget_by_another_spelling(model: str) -> None:
    assert met(Match(model=("gpt-4o",)), model=model)


def test_pattern_with_a_vendor_matches_that_vendor_only() -> None:
    assert met(Match(model=("openai/*",)), model="openai/gpt-4o")
    assert not met(Match(model=("openai/*",)), model="azure/gpt-4o")


def test_denied_model_cannot_dodge_by_another_spelling() -> None:
    index = PolicyIndex(Policy(budgets=(Budget("b", deny_models=("gpt-4o*",), allow_models=("gpt-*", "claude-*")),)))

    def allows(model: str) -> bool:
        return index.plan(Subject("alice", {}, model, "u")).stands[0].allows

    assert [allows(model) for model in ("gpt-4o", "OPENAI/GPT-4o-mini", "gpt-4.1", "claude-3", "qwen3")] == [
        False,
        False,
        True,
        True,
        False,
    ]


def test_each_gives_every_value_a_counter_of_its_own() -> None:
    assert scopes("", {}) == ["all"]
    assert scopes("key", {}) == ["key=alice"]
    assert scopes("team", {"team": "a"}, {"team": "b"}, {"team": "a"}) == ["team=a", "team=b", "team=a"]
    assert scopes("model", {}) == ["model=m"]
    assert scopes("upstream", {}) == ["upstream=u"]


def test_key_without_the_tag_does_not_slip_past_the_budget() -> None:
    assert scopes("team", {}, {"env": "prod"}) == ["team=", "team="]


def test_tags_of_the_request_decide_when_they_differ_from_the_keys() -> None:
    key = Key("alice", "sha256:x", {"user": "u1"})
    index = PolicyIndex(Policy(keys=(key,), budgets=(Budget("b", REQUESTS, each="user"),)))
    plans = [index.plan(Subject("alice", tags, "m", "u")) for tags in (key.tags, {"user": "u2"}, {"user": "u1"})]
    assert [plan.lines[0].scope for plan in plans] == ["user=u1", "user=u2", "user=u1"]
    assert plans[0] is plans[2]


def test_series_never_holds_the_amount_and_never_confuses_names() -> None:
    small, large = Limit("tokens", 1, "day"), Limit("tokens", 2, "day")
    assert series("b", "all", small) == series("b", "all", large)
    named = {
        series(budget, scope, small)
        for budget, scope in [("a", "key=b|c"), ("a|key=b", "c"), ("a%7C", "x"), ("a|", "x"), ("a@1", "x")]
    }
    assert len(named) == 5
    assert series("b", "all", Limit("tokens", 1, "day", sliding=True)) != series("b", "all", small)


def test_first_matching_weight_of_a_model_wins() -> None:
    weights = Weights(output=2.0, models=(("gpt-4o-mini", 0.5), ("gpt-4o*", 3.0)))
    index = PolicyIndex(Policy(budgets=(Budget("b", REQUESTS, weights=weights),)))
    rates = [index.plan(Subject("a", {}, model, "u")).lines[0].rates for model in ("gpt-4o-mini", "gpt-4o", "o3")]
    assert [(rate.input, rate.output) for rate in rates] == [
        (500_000, 1_000_000),
        (3_000_000, 6_000_000),
        (10**6, 2 * 10**6),
    ]


def test_budgets_for_single_keys_keep_their_place_among_the_others() -> None:
    budgets = [Budget("first", REQUESTS), Budget("own", REQUESTS, Match(key=("alice",))), Budget("last", REQUESTS)]
    plan = PolicyIndex(Policy(budgets=tuple(budgets))).plan(Subject("alice", {}, "m", "u"))
    assert [line.budget.name for line in plan.lines] == ["first", "own", "last"]


def test_matching_stays_flat_when_ten_thousand_keys_have_budgets_of_their_own() -> None:
    def seconds(count: int) -> float:
        keys = tuple(Key(f"k{i}", f"sha256:{i}") for i in range(count))
        budgets = tuple(Budget(f"b{i}", REQUESTS, Match(key=(f"k{i}",))) for i in range(count))
        index = PolicyIndex(Policy(keys=keys, budgets=budgets))
        best = float("inf")
        for attempt in range(5):
            started = time.perf_counter()
            for i in range(100):
                assert len(index.plan(Subject(f"k{i % count}", {}, f"m{attempt}-{i}", "u")).lines) == 1
            best = min(best, time.perf_counter() - started)
        return best

    assert seconds(10_000) < 4 * seconds(10)


@pytest.mark.parametrize(
    ("match", "concerned"),
    [
        (Match(), True),
        (Match(tags={"team": ("sea*",)}), True),
        (Match(tags={"team": ("ads",)}), False),
        (Match(tags={"app": ("web",)}), True),
        (Match(model=("gpt-4*",)), True),
        (Match(model=("claude-*",)), False),
    ],
)
def test_budget_concerns_what_it_can_meet(match: Match, concerned: bool) -> None:
    budget = Budget("b", REQUESTS, match)
    assert concerns(budget, tag="team", value="search", model="openai/gpt-4o") is concerned
    assert concerns(budget)
