"""The report of a replay is one file that shows hostile names and obeys none of them."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

from gateway.replay_page import MOST_DAY_ROWS, page
from gateway.replay_report import Compared, day_rows, describe_limit, suggested, summary
from policies.ledger import LedgerEntry
from policies.model import Budget, Limit
from policies.policy import Policy
from policies.replay import Replay
from policies.replay_findings import Findings
from policies.traffic import request_of

NOW = 1_800_000_000.0
HOSTILE = (
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    '" onload="alert(1)',
    "{{ 7 * 7 }}",
    "\u202egpj.exe",
)


def found(policy: Policy, *, keys: tuple[str, ...], each: int = 3) -> Findings:
    replay = Replay(policy, model_max=lambda model: None)
    for number in range(each):
        for key_id in keys:
            entry = LedgerEntry(
                f"<i>{number}", NOW + number, key_id, "m", "u", "ok", held_input=10, counted_tokens=10,
                input_tokens=10, output_tokens=10, source="reported", endpoint="openai_chat", output_cap=10,
            )  # fmt: skip
            replay.feed(request_of(entry))
    return replay.finish()


def compared(keys: tuple[str, ...] = HOSTILE) -> Compared:
    def policy(amount: int) -> Policy:
        limits = (Limit("tokens", amount, "day"), Limit("tokens", 10_000, "minute", sliding=True))
        shadow = Budget("<u>shadow", (Limit("requests", 1, "day"),), mode="shadow", each="key")
        return Policy(budgets=(Budget("<b>bold", limits, each="key"), shadow))

    new, current = policy(25), policy(10_000)
    return Compared(found(new, keys=keys), found(current, keys=keys), new, current)


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.values: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.values += [value or "" for _, value in attrs]


def elements(text: str) -> _Elements:
    parser = _Elements()
    parser.feed(text)
    return parser


def shown(both: Compared) -> str:
    return page(summary(both), day_rows(both), names=("now.yaml", "<new>.yaml"))


def test_hostile_names_are_text_and_nothing_is_loaded() -> None:
    text = shown(compared())
    seen = elements(text)
    assert not seen.tags & {"script", "img", "link", "iframe", "b", "u", "i", "new", "a", "form", "object"}
    assert not any(name.startswith("on") or name in {"style", "src", "href"} for name in seen.attributes)
    assert not any("://" in value for value in seen.values)
    assert "url(" not in text
    assert "@import" not in text
    for name in HOSTILE[:3]:
        assert name not in text
    assert "{{ 7 * 7 }}" in text
    assert "<bdi>\u202egpj.exe</bdi>" in text


def test_the_style_is_the_one_that_its_policy_allows() -> None:
    text = shown(compared())
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"default-src &#39;none&#39;; style-src &#39;sha256-{digest}&#39;" in text.replace("'", "&#39;")


def test_figures_stand_beside_each_other() -> None:
    text = shown(compared(("alice",)))
    assert "2027-01-15" in text
    assert "the current refuses 0" in text
    assert "25 tokens per day (key=alice)" in text
    assert "suggested 72" in text


def test_long_tables_end_and_say_so() -> None:
    text = shown(compared(tuple(f"key-{number}" for number in range(MOST_DAY_ROWS + 7))))
    assert "7 more rows are in" in text


def test_no_request_at_all() -> None:
    policy = Policy()
    nothing = Compared(found(policy, keys=()), found(policy, keys=()), policy, policy)
    assert "There was no request in that time" in shown(nothing)


def test_suggestions_have_room_and_two_digits() -> None:
    assert [suggested(largest) for largest in (0, 1, 4, 100, 600, 1_234_567)] == [0, 2, 5, 120, 720, 1_500_000]


def test_limits_in_words() -> None:
    def told(**more: Any) -> str:
        return describe_limit(
            {"reason": "quota_spent", "scope": "all", "unit": "tokens", "per": "day", "limit": 9, **more}
        )

    assert told() == "9 tokens per day (all)"
    assert told(unit="concurrent", per="total") == "9 concurrent at once (all)"
    assert told(reason="model_denied") == "model not allowed"
    assert told(reason="output_cap_required") == "no output cap named"
    assert told(reason="never_fits", unit="input_tokens", per="total") == "more than 9 input tokens in one request"
    assert describe_limit(None) == ""
