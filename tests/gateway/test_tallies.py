"""Sums passed on now and then come to what each observation by itself would have come to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from gateway.tallies import Tallies

BUCKETS = (0.5, 1.0, 4.0, 16.0)
AMOUNTS = st.lists(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 3.0, 16.0, 17.0, 1e9]), max_size=8), max_size=4)


def exposed(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@given(AMOUNTS)
def test_sums_equal_single_observations_however_often_they_are_told(rounds: list[list[float]]) -> None:
    plain, summed = CollectorRegistry(), CollectorRegistry()
    tallies = Tallies()
    series = []
    for registry in (plain, summed):
        histogram = Histogram("h", "", ("l",), buckets=BUCKETS, registry=registry).labels("a")
        series.append((histogram, Counter("c", "", ("l",), registry=registry).labels("a")))
    tallied = tallies.histogram(series[1][0]), tallies.counter(series[1][1])
    for amounts in rounds:
        for amount in amounts:
            series[0][0].observe(amount)
            series[0][1].inc(amount)
            tallied[0].observe(amount)
            tallied[1].inc(amount)
        tallies.tell()
    assert exposed(summed) == exposed(plain)
    tallies.tell()
    assert exposed(summed) == exposed(plain)
