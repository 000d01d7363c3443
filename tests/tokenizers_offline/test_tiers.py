"""Encodings move to the fast engine when they are given much long text, if there is a place, and count meanwhile."""

from __future__ import annotations

import threading

import pytest

from tokenizers_offline.engines import Encoder
from tokenizers_offline.store import InstalledEncoding
from tokenizers_offline.tiers import LONG_TEXT, MUCH_TEXT, Places, TieredEncoder

LONG = "a" * 100_000
ENOUGH = MUCH_TEXT // len(LONG)


class FakeEncoder:
    """Counts characters, and says by which engine."""

    def __init__(self, engine: str) -> None:
        self.name, self.revision, self.specials = "tiny", "r", True
        self.engine = engine
        self.at_once = 10

    def named(self, record: InstalledEncoding) -> Encoder:
        raise NotImplementedError

    def count(self, text: str, *, specials: bool) -> int:
        return len(text)


def tiered(places: Places) -> TieredEncoder:
    return TieredEncoder(FakeEncoder("light"), lambda: FakeEncoder("fast"), places)


def count(encoder: Encoder, text: str, times: int) -> None:
    for _ in range(times):
        assert encoder.count(text, specials=True) == len(text)
    for thread in threading.enumerate():
        if thread.name == "tokenizer":
            thread.join()


def test_moves_when_much_long_text_has_come() -> None:
    encoder = tiered(Places())
    count(encoder, LONG, ENOUGH - 1)
    assert encoder.engine == "light"
    count(encoder, LONG, 1)
    assert encoder.engine == "fast"


def test_short_text_is_no_need() -> None:
    encoder = tiered(Places())
    count(encoder, "a" * (LONG_TEXT - 1), 2 * MUCH_TEXT // LONG_TEXT)
    assert encoder.engine == "light"


def test_stays_when_all_places_are_taken() -> None:
    places = Places(1)
    first, second = tiered(places), tiered(places)
    count(first, LONG, ENOUGH)
    count(second, LONG, 2 * ENOUGH)
    assert (first.engine, second.engine) == ("fast", "light")


def test_place_is_given_back_when_loading_fails(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Encoder:
        raise OSError("the disk is gone")

    places = Places(1)
    encoder = TieredEncoder(FakeEncoder("light"), fail, places)
    count(encoder, LONG, 2 * ENOUGH)
    assert encoder.engine == "light"
    assert "stays with light: the disk is gone" in caplog.text
    assert places.take()


def test_all_names_of_a_vocabulary_move_together() -> None:
    one = tiered(Places())
    other = one.named(InstalledEncoding("other", "", False, "r", "", "c", {}))
    count(one, LONG, ENOUGH // 2)
    count(other, LONG, ENOUGH - ENOUGH // 2)
    assert (one.name, other.name, other.specials) == ("tiny", "other", False)
    assert (one.engine, other.engine) == ("fast", "fast")


def test_counts_on_while_the_fast_engine_is_loaded() -> None:
    go = threading.Event()

    def slowly() -> Encoder:
        assert go.wait(10)
        return FakeEncoder("fast")

    encoder = TieredEncoder(FakeEncoder("light"), slowly, Places())
    for _ in range(2 * ENOUGH):
        encoder.count(LONG, specials=True)
    assert encoder.engine == "light"
    go.set()
    count(encoder, LONG, 1)
    assert encoder.engine == "fast"
