from __future__ import annotations

import pytest

from gateway.limits_headers import limit_headers, write_duration
from policies.model import BudgetStatus

NOW = 1_800_000_000.0


def status(**changes: object) -> BudgetStatus:
    fields: dict[str, object] = {
        "budget": "main",
        "scope": "key=alice",
        "unit": "tokens",
        "per": "minute",
        "limit": 1000,
        "used": 300,
        "held": 200,
        "resets_at": NOW + 30,
    }
    return BudgetStatus(**{**fields, **changes})  # type: ignore[arg-type]


def test_openai_headers_tell_limit_remaining_and_reset() -> None:
    headers = dict(limit_headers([status(), status(unit="requests", limit=10, used=1, held=1)], now=NOW))
    assert headers["x-ratelimit-limit-tokens"] == "1000"
    assert headers["x-ratelimit-remaining-tokens"] == "500"
    assert headers["x-ratelimit-reset-tokens"] == "30s"
    assert headers["x-ratelimit-remaining-requests"] == "8"
    assert "anthropic-ratelimit-tokens-limit" not in headers


def test_anthropic_headers_are_told_to_anthropic_callers() -> None:
    headers = dict(limit_headers([status(unit="input_tokens")], now=NOW, anthropic=True))
    assert headers["anthropic-ratelimit-input-tokens-remaining"] == "500"
    assert headers["anthropic-ratelimit-input-tokens-reset"] == "2027-01-15T08:00:30Z"


def test_the_tightest_budget_is_told_when_several_match() -> None:
    wide, tight = status(budget="wide", limit=10**6), status(budget="tight", limit=600)
    headers = dict(limit_headers([wide, tight], now=NOW))
    assert headers["x-ratelimit-remaining-tokens"] == "100"
    assert headers["RateLimit"] == '"tight";r=100;t=30'
    assert headers["RateLimit-Policy"] == '"tight";q=600;w=60;qu="tokens"'


def test_shadow_budgets_are_not_told() -> None:
    assert limit_headers([status(mode="shadow"), status(unit="concurrent")], now=NOW) == []


def test_no_reset_is_told_when_nothing_resets() -> None:
    headers = dict(limit_headers([status(per="total", resets_at=None)], now=NOW))
    assert "x-ratelimit-reset-tokens" not in headers
    assert headers["RateLimit"] == '"main";r=500'


def test_a_budget_name_cannot_break_out_of_its_header() -> None:
    headers = dict(limit_headers([status(budget='a"b\\c\r\nSet-Cookie: x\u00e9')], now=NOW))
    assert headers["RateLimit"].startswith('"a\\"b\\\\c??Set-Cookie: x?";r=')


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(-5, "0ms"), (0.25, "250ms"), (1, "1s"), (59.2, "1m0s"), (360, "6m0s"), (3600, "1h0m0s"), (90061, "25h1m1s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, written: str) -> None:
    assert write_duration(seconds) == written
