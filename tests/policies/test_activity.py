"""What happened lately, summed up for people who watch."""

from __future__ import annotations

from typing import Any

from policies.activity import MOST_RANKED, Refused, Scope, summarize
from policies.ledger import LedgerEntry

SCOPE = Scope(1_000.0, 1_480.0, steps=48)


def line(at: float = 1_000.0, key: str = "alice", model: str = "gpt-4o", **fields: Any) -> LedgerEntry:
    fields = {"upstream": "openai", "outcome": "ok", **fields}
    return LedgerEntry(f"q{at}", at, key, model, **fields)


def test_tokens_fall_into_their_step_and_into_those_of_their_key_and_model() -> None:
    seen = summarize(
        [
            line(1_000.0, input_tokens=5),
            line(1_010.0, "bob", output_tokens=7),
            line(1_480.0, model="o3", input_tokens=1),
            line(999.9, input_tokens=100),
        ],
        SCOPE,
    )
    assert (seen.total.tokens, seen.total.requests) == (13, 3)
    assert (seen.total.series[0], seen.total.series[1], seen.total.series[47]) == (5, 7, 1)
    assert [(each.name, each.tokens) for each in seen.keys] == [("bob", 7), ("alice", 6)]
    assert [(each.name, each.series[47]) for each in seen.models] == [("gpt-4o", 0), ("o3", 1)]


def test_only_lines_of_the_scope_are_looked_at() -> None:
    lines = [line(key="alice", tags={"team": "a:b"}), line(key="bob", tags={"team": "a"}), line(model="o3")]
    for scope, count in (
        (Scope(0, 2_000, key_id="bob"), 1),
        (Scope(0, 2_000, model="o3"), 1),
        (Scope(0, 2_000, tag="team:a:b"), 1),
        (Scope(0, 2_000, key_id="bob", tag="team:a:b"), 0),
    ):
        assert summarize(lines, scope).total.requests == count


def test_refusals_are_told_apart_by_their_reason() -> None:
    full = {"outcome": "refused", "refused_by": "plan", "refused_for": "window_full", "refused_limit": "tokens per day"}
    seen = summarize([line(1_001.0, **full), line(1_009.0, **full), line(1_005.0, outcome="refused")], SCOPE)
    assert seen.refusals == [
        Refused("alice", "gpt-4o", "plan", "window_full", "tokens per day", 2, 1_009.0),
        Refused("alice", "gpt-4o", "", "", "", 1, 1_005.0),
    ]
    assert seen.upstreams == []


def test_counts_are_compared_with_bills_only() -> None:
    billed = {"source": "reported", "accuracy": "exact", "counted_tokens": 100}
    seen = summarize(
        [line(input_tokens=100, **billed), line(input_tokens=104, **billed), line(input_tokens=98, **billed), line()],
        SCOPE,
    )
    (counted,) = seen.counted
    assert (counted.bills, counted.equal, counted.low, counted.high) == (3, 1, -2, 4)
    assert round(counted.drift, 4) == round(2 / 302, 4)


def test_upstreams_tell_failures_apart_and_how_long_answers_took() -> None:
    answered = [line(latency_s=each / 10, stream=True, first_byte_s=each / 100) for each in range(1, 21)]
    failed = [line(1_100.0, outcome="upstream_error"), line(1_200.0, outcome="cut"), line(1_050.0, outcome="released")]
    (served,) = summarize(answered + failed, SCOPE).upstreams
    assert (served.requests, served.broken, served.declined, served.failed_at) == (23, 2, 1, 1_200.0)
    assert (served.p50_s, served.p95_s, served.first_byte_s) == (1.1, 2.0, 0.11)


def test_lists_end_and_say_how_many_there_are() -> None:
    seen = summarize([line(1_000.0 + each, f"user-{each}") for each in range(40)], SCOPE)
    assert (len(seen.keys), seen.key_count, seen.model_count) == (MOST_RANKED, 40, 1)
    assert [each.at for each in seen.latest][:2] == [1_039.0, 1_038.0]
