"""Windows follow each other without gap or overlap and begin where people expect them to."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.model import SLIDING_PERIODS, Period
from policies.windows import SECONDS, Calendar, oldest_slot, slot, slot_leaves_at, slot_width_s, time_zone, window

PERIODS: tuple[Period, ...] = ("minute", "hour", "day", "week", "month", "year", "total")
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",  # half an hour of summer time
    "America/Havana",  # clocks change at midnight
    "Africa/Cairo",
    "Pacific/Apia",  # skipped a whole day
    "Asia/Kathmandu",
    "America/St_Johns",
    "Antarctica/Troll",  # two hours of summer time
)
MOMENTS = st.integers(datetime(1995, 1, 1, tzinfo=UTC).timestamp().__int__(), 2_200_000_000)


def at(text: str, zone: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def spans(period: Period, text: str, zone: str) -> tuple[str, str, float]:
    """The window around a local time, as local times, and its length in hours."""
    found = window(period, at(text, zone), zone=time_zone(zone))
    assert found.end is not None
    local = [
        datetime.fromtimestamp(edge, ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M") for edge in (found.start, found.end)
    ]
    return local[0], local[1], (found.end - found.start) / 3600


@given(st.sampled_from(PERIODS), st.sampled_from(ZONES), MOMENTS)
def test_window_contains_its_now(period: Period, zone: str, now: int) -> None:
    assert now in window(period, now, zone=time_zone(zone))


@given(st.sampled_from(PERIODS[:-1]), st.sampled_from(ZONES), MOMENTS)
def test_windows_follow_each_other_without_gap_or_overlap(period: Period, zone: str, now: int) -> None:
    where = time_zone(zone)
    here = window(period, now, zone=where)
    assert here.end is not None
    assert window(period, here.end, zone=where).start == here.end
    assert window(period, here.start - 1, zone=where).end == here.start
    assert window(period, here.end - 1, zone=where) == here
    assert window(period, here.start, zone=where) == here


@pytest.mark.parametrize(
    ("period", "text", "zone", "start", "end", "hours"),
    [
        ("day", "2026-03-29 12:00", "Europe/Berlin", "2026-03-29 00:00", "2026-03-30 00:00", 23),
        ("day", "2026-10-25 12:00", "Europe/Berlin", "2026-10-25 00:00", "2026-10-26 00:00", 25),
        ("day", "2026-03-08 12:00", "America/New_York", "2026-03-08 00:00", "2026-03-09 00:00", 23),
        ("day", "2026-11-01 12:00", "America/New_York", "2026-11-01 00:00", "2026-11-02 00:00", 25),
        ("week", "2026-03-29 23:59", "Europe/Berlin", "2026-03-23 00:00", "2026-03-30 00:00", 167),
        ("month", "2026-10-31 23:59", "Europe/Berlin", "2026-10-01 00:00", "2026-11-01 00:00", 745),
        ("month", "2024-02-29 10:00", "UTC", "2024-02-01 00:00", "2024-03-01 00:00", 29 * 24),
        ("day", "2024-02-29 10:00", "UTC", "2024-02-29 00:00", "2024-03-01 00:00", 24),
        ("month", "2023-02-28 23:59", "UTC", "2023-02-01 00:00", "2023-03-01 00:00", 28 * 24),
        ("month", "2026-12-31 23:59", "America/New_York", "2026-12-01 00:00", "2027-01-01 00:00", 31 * 24),
        ("year", "2026-12-31 23:59", "Asia/Kolkata", "2026-01-01 00:00", "2027-01-01 00:00", 365 * 24),
        ("year", "2024-06-01 00:00", "UTC", "2024-01-01 00:00", "2025-01-01 00:00", 366 * 24),
        ("hour", "2026-06-01 10:59", "Asia/Kolkata", "2026-06-01 10:00", "2026-06-01 11:00", 1),
        ("minute", "2026-06-01 10:59", "Asia/Kolkata", "2026-06-01 10:59", "2026-06-01 11:00", 1 / 60),
        ("day", "2026-06-01 00:00", "Asia/Kolkata", "2026-06-01 00:00", "2026-06-02 00:00", 24),
        ("week", "2026-01-01 00:00", "UTC", "2025-12-29 00:00", "2026-01-05 00:00", 168),
    ],
)
def test_window_is_aligned_with_the_local_calendar(
    period: Period, text: str, zone: str, start: str, end: str, hours: float
) -> None:
    assert spans(period, text, zone) == (start, end, pytest.approx(hours))


def test_hour_that_comes_twice_is_two_windows() -> None:
    zone = time_zone("Europe/Berlin")
    first = at("2026-10-25 02:30", "Europe/Berlin")
    assert window("hour", first, zone=zone).end == window("hour", first + 3600, zone=zone).start
    assert window("hour", first, zone=zone) != window("hour", first + 3600, zone=zone)


def test_hour_ends_early_when_clocks_change_by_half_an_hour() -> None:
    zone = time_zone("Australia/Lord_Howe")
    # On 5 April 2026 clocks went back from 02:00 to 01:30: the second half hour is a window of its own.
    change = datetime(2026, 4, 4, 15, 0, tzinfo=UTC).timestamp()
    assert window("hour", change + 60, zone=zone).start == change
    assert window("hour", change - 60, zone=zone).end == change


def test_day_begins_after_a_midnight_that_does_not_exist() -> None:
    # In Cairo clocks go from 00:00 to 01:00 on 24 April 2026.
    start, end, hours = spans("day", "2026-04-24 12:00", "Africa/Cairo")
    assert (start, end, hours) == ("2026-04-24 01:00", "2026-04-25 00:00", 23)


def test_total_never_ends() -> None:
    assert window("total", 0.0, zone=time_zone("UTC")) == window("total", 4e9, zone=time_zone("UTC"))


@given(st.sampled_from(SLIDING_PERIODS), MOMENTS, st.floats(0, 2))
def test_slot_counts_as_long_as_any_of_it_is_within_the_period(period: Period, charged: int, share: float) -> None:
    width, start = slot_width_s(period), slot(period, charged)
    now = start + share * SECONDS[period]
    counts = oldest_slot(period, now) <= start
    assert counts == (now < slot_leaves_at(period, start))
    latest_charge_there = start + width
    if now < latest_charge_there + SECONDS[period]:
        assert counts


def test_calendar_remembers_its_window_until_it_ends() -> None:
    calendar = Calendar("UTC")
    first = calendar.window("minute", 120.0)
    assert calendar.window("minute", 179.9) is first
    assert calendar.window("minute", 180.0).start == 180.0
    assert calendar.window("minute", 60.0).start == 60.0  # a clock that was set back


def test_time_zone_is_refused_when_it_is_no_iana_name() -> None:
    for name in ("Europe/Berlim", "", "../etc/passwd", "/etc/localtime"):
        with pytest.raises(ValueError, match="IANA"):
            time_zone(name)
