"""Which window of time a moment falls into: calendar windows in a time zone, and windows that slide."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from policies.model import Period

SECONDS: dict[Period, int] = {"minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
SLOTS = 60
"""A sliding window moves in steps of a sixtieth of its period: one second for a minute, one minute for an hour."""


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` up to, not including, `end` (Unix times). `end` is None for ``total``."""

    start: float
    end: float | None

    def __contains__(self, now: float) -> bool:
        return self.start <= now and (self.end is None or now < self.end)


@cache
def time_zone(name: str) -> tzinfo:
    """Return an IANA time zone, read from disk once (UTC never). Raises ValueError for a name that is none."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"'{name}' is not an IANA time zone; write one like Europe/Berlin or UTC") from error


def window(period: Period, now: float, *, zone: tzinfo) -> Window:
    """Return the calendar window around `now`.

    Windows of one period follow each other without gap or overlap, whatever the zone's clocks do. Days, weeks
    (from Monday), months and years begin at local midnight (its first occurrence), hours and minutes at the local
    clock's; a clock change inside an hour that is no multiple of an hour (Lord Howe) ends the hour's window there.
    """
    if period == "total":
        return Window(0.0, None)
    if period in ("minute", "hour"):
        return _clock_window(SECONDS[period], now, zone=zone)
    day = _local(now, zone).date()
    start = _first_day(period, day)
    end = _following(period, start)
    # Where clocks jump across midnight a local date can come before its own midnight, or after the next one.
    while now < _midnight(start, zone):
        start, end = _first_day(period, start - timedelta(days=1)), start
    while now >= _midnight(end, zone):
        start, end = end, _following(period, end)
    return Window(_midnight(start, zone), _midnight(end, zone))


def slot_width_s(period: Period) -> int:
    """Return the step of a sliding window. Raises KeyError for periods without a fixed length."""
    return max(1, SECONDS[period] // SLOTS)


def slot(period: Period, now: float) -> int:
    """Return the start of the sliding window's slot around `now`: what is charged now is charged there."""
    width = slot_width_s(period)
    return math.floor(now / width) * width


def oldest_slot(period: Period, now: float) -> int:
    """Return the oldest slot that still counts at `now`.

    A slot counts until the last moment it covers is a full period ago, so that no stretch of one period, wherever
    it begins, ever holds more than the limit.
    """
    return slot(period, now) - SECONDS[period]


def slot_leaves_at(period: Period, start: int) -> int:
    """Return when a slot stops counting."""
    return start + slot_width_s(period) + SECONDS[period]


class Calendar:
    """The windows of one time zone, each worked out once and kept while it lasts."""

    __slots__ = ("_current", "zone")

    def __init__(self, zone: str = "UTC") -> None:
        self.zone = time_zone(zone)
        self._current: dict[Period, Window] = {}

    def window(self, period: Period, now: float) -> Window:
        """Return the calendar window of `period` around `now`."""
        kept = self._current.get(period)
        if kept is None or not (kept.start <= now and (kept.end is None or now < kept.end)):
            kept = self._current[period] = window(period, now, zone=self.zone)
        return kept


def _local(now: float, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(now, zone)


def _offset_s(now: float, zone: tzinfo) -> float:
    offset = _local(now, zone).utcoffset()
    return offset.total_seconds() if offset is not None else 0.0


def _clock_window(length: int, now: float, *, zone: tzinfo) -> Window:
    offset = _offset_s(now, zone)
    start = math.floor((now + offset) / length) * length - offset
    end = start + length
    if _offset_s(start, zone) != offset:
        start = _clock_change(start, now, zone)
    if _offset_s(end - 1, zone) != offset:
        end = _clock_change(now, end - 1, zone)
    return Window(start, end)


def _clock_change(before: float, after: float, zone: tzinfo) -> float:
    """The whole second in (before, after] from which `after`'s offset from UTC holds."""
    low, high = math.floor(before), math.floor(after)
    offset = _offset_s(high, zone)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset_s(middle, zone) == offset:
            high = middle
        else:
            low = middle
    return float(high)


def _first_day(period: Period, day: date) -> date:
    if period == "week":
        return day - timedelta(days=day.weekday())
    if period == "month":
        return day.replace(day=1)
    if period == "year":
        return day.replace(month=1, day=1)
    return day


def _following(period: Period, first: date) -> date:
    if period == "week":
        return first + timedelta(days=7)
    if period == "month":
        return first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    if period == "year":
        return first.replace(year=first.year + 1)
    return first + timedelta(days=1)


def _midnight(day: date, zone: tzinfo) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()
