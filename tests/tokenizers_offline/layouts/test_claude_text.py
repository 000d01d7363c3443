"""Claude's surplus over o200k is read off the shape of a text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenizers_offline.layouts.claude_text import CLAUDE_3_TO_4_6, CLAUDE_5, count_shape, count_surplus


@pytest.mark.parametrize(
    ("text", "shape", "times"),
    [
        ("2 + 2 is 4", b"D ", 2),
        ("camelCase and TypeScript", b"lU", 2),
        ("it's 'so'", b"'", 3),
        ("a\n  b\n\nc", b"\n", 3),
        ("a\n  b\n\nc", b"\n ", 1),
        ('{"a":[1]}', b"PPP", 1),
        ("na\u00efve \u6f22", b"N", 5),
    ],
)
def test_shape_is_counted_where_it_stands(text: str, shape: bytes, times: int) -> None:
    assert count_shape(text, shape) == times


def test_plain_words_cost_nothing_more() -> None:
    assert count_surplus(["Who are you and what do you want from me"], CLAUDE_3_TO_4_6) == 0


def test_long_words_cost_more_whatever_their_case() -> None:
    assert count_surplus(["Internationalisation"], CLAUDE_3_TO_4_6) == 1.45
    assert count_surplus(["INTERNATIONALISATION"], {b"l" * 12: 1.0}) == 1.0
    assert count_surplus(["internationalisation"], {b"l" * 8: 1.0}) == 2.0


@given(st.lists(st.text(max_size=30), max_size=6))
def test_surplus_of_texts_is_the_sum_of_theirs(texts: list[str]) -> None:
    for weights in (CLAUDE_3_TO_4_6, CLAUDE_5):
        alone = sum(count_surplus([text], weights) for text in texts)
        assert count_surplus(texts, weights) == pytest.approx(alone)
        assert alone >= 0


def test_lone_surrogates_are_counted_like_any_character() -> None:
    assert count_surplus(["\ud800 1 2"], {b"D ": 1.0}) == 1.0


def test_a_remembered_surplus_is_that_of_its_own_weights() -> None:
    for _ in range(2):
        assert count_surplus(["a b"], {b" ": 1.5}) == 1.5
        assert count_surplus(["a b"], {b" ": 2.0}) == 2.0
