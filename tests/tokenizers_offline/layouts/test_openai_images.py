import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenizers_offline.layouts.openai_images import Patches, Tiles, find_image_rule


@pytest.mark.parametrize(
    ("model", "width", "height", "detail", "tokens"),
    [
        # OpenAI's vision guide gives these sums for its own examples
        ("gpt-4o", 1024, 1024, "high", 765),
        ("gpt-4o", 2048, 4096, "high", 1105),
        ("gpt-4o", 4096, 8192, "low", 85),
        ("gpt-4.1-mini", 1024, 1024, "auto", 1660),
        # and these are recorded bills
        ("gpt-4o-mini", 100, 100, "auto", 8500),
        ("gpt-4o-mini", 640, 480, "auto", 2833 + 2 * 5667),
        ("gpt-5", 50, 50, "auto", 210),
    ],
)
def test_images_cost_what_openai_says(model: str, width: int, height: int, detail: str, tokens: int) -> None:
    assert find_image_rule(model).count(width, height, detail=detail) == tokens


@given(
    st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from(["gpt-4o", "gpt-4.1-nano", "o4-mini", "gpt-5.4"])
)
def test_no_image_costs_more_than_the_most(width: int, height: int, model: str) -> None:
    rule = find_image_rule(model)
    assert 0 < rule.count(width, height, detail="auto") <= rule.most


def test_rules_follow_the_model() -> None:
    assert find_image_rule("gpt-5-mini") == Patches(1.2, 2)
    assert find_image_rule("gpt-5.6-terra") == Patches(1.2, 2)
    assert find_image_rule("o3") == Tiles(75, 150)
    assert find_image_rule("something-else") == Tiles(85, 170)
