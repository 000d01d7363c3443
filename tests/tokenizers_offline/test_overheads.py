import pytest

from tokenizers_offline.catalog import Catalog
from tokenizers_offline.layouts import LAYOUTS
from tokenizers_offline.overheads import OverheadError, OverheadRule, Overheads, read_rule

RULES = Overheads(
    [
        OverheadRule(("big-1*",), platform="host", tokens=5, by_feature={"tools": 100, "calls": -3}),
        OverheadRule(("big-*",), tokens=7),
    ]
)


@pytest.mark.parametrize(
    ("platform", "model", "features", "tokens"),
    [
        ("host", "big-1-mini", ("text",), 5),
        ("host", "Big-1", ("tools", "calls"), 102),
        ("other", "big-1", ("tools",), 7),
        ("host", "big-2", ("tools",), 7),
        ("host", "small", ("tools",), 0),
        ("", "big-1", ("tools",), 0),
    ],
)
def test_tokens_are_those_of_the_first_rule_that_matches(
    platform: str, model: str, features: tuple[str, ...], tokens: int
) -> None:
    assert RULES.tokens(platform, model, features) == tokens


def test_load_puts_the_operator_s_rules_first() -> None:
    shipped = Overheads.load()
    assert shipped.tokens("xai", "grok-3", ("tools",)) > 100
    configured = Overheads.load([OverheadRule(("grok-3*",), tokens=1)])
    assert configured.tokens("xai", "grok-3", ("tools",)) == 1


@pytest.mark.parametrize(
    "raw",
    [
        {"models": []},
        {"tokens": 5},
        {"models": ["a"], "tokens": "5"},
        {"models": ["a"], "tols": 5},
        {"models": ["a"], "tools": True},
    ],
)
def test_read_rule_refuses_when_it_is_wrong(raw: dict[str, object]) -> None:
    with pytest.raises(OverheadError):
        read_rule(raw)


def test_every_model_of_the_catalog_has_a_layout() -> None:
    assert {spec.layout for spec in Catalog.load().models()} <= set(LAYOUTS)


def test_may_add_is_kept_apart_from_what_is_counted() -> None:
    overheads = Overheads([read_rule({"platform": "router", "models": ["m*"], "tokens": 3, "may_add": 40})])
    assert overheads.tokens("router", "M-1", ["tools"]) == 3
    assert (overheads.may_add("router", "M-1"), overheads.may_add("", "m-1"), overheads.may_add("router", "x")) == (
        40,
        0,
        0,
    )
