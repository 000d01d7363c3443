"""What a replay found, as figures beside each other: the configuration that was tried, and the current one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, tzinfo
from typing import Any, NamedTuple

from gateway.refusals import write_time
from policies.policy import Policy
from policies.replay_findings import Findings, FirstRefusal, Refused, Tally, WindowUse
from policies.windows import SECONDS, time_zone

Row = dict[str, Any]

_HEADROOM = 5
"""A suggested limit is the most that was used in a window, and a fifth of it more."""

_MONTH_S, _YEAR_S = 28 * 86_400, 365 * 86_400


class Compared(NamedTuple):
    """Both sides of a replay: what was tried, and what is there now."""

    new: Findings
    current: Findings
    new_policy: Policy
    current_policy: Policy


def summary(both: Compared) -> Row:
    """All but the days: totals, and per day, budget, key and limit."""
    new, current = both.new, both.current
    return {
        "since": write_time(new.since),
        "until": write_time(new.until),
        "time_zone": both.new_policy.time_zone,
        "new": _total(new),
        "current": _total(current),
        "per_day": list(_beside(_by_day(new, _zone(both.new_policy)), _by_day(current, _zone(both.current_policy)))),
        "budgets": _most_refused(_beside(_by_budget(new), _by_budget(current), name="budget")),
        "keys": _most_refused(_beside(_by_key(new), _by_key(current), name="key")),
        "windows": [
            _window(use, current.windows.get(series), span=(new.until or 0.0) - (new.since or 0.0))
            for series, use in sorted(new.windows.items(), key=lambda item: (_nearness(item[1]), item[0]))
            if use.figures
        ],
    }


def day_rows(both: Compared) -> Iterator[Row]:
    """One row for each key, budget and day, in the order of days; ``..._now`` is what the current configuration does.
    What a configuration does not have is None."""
    new, current = _starts(both.new, both.new_policy), _starts(both.current, both.current_policy)
    for day in sorted(new.keys() | current.keys()):
        tried = both.new.tallies(new[day]) if day in new else {}
        before = both.current.tallies(current[day]) if day in current else {}
        for key_id, budget in sorted(tried.keys() | before.keys()):
            of_new, of_now = tried.get((key_id, budget)), before.get((key_id, budget))
            yield {
                "key": key_id,
                "budget": budget or None,
                "day": day,
                **_tally(of_new),
                **{f"{name}_now": figure for name, figure in _tally(of_now).items()},
            }


def describe_limit(refused: Row | None) -> str:
    """Say in a few words what refused."""
    if refused is None:
        return ""
    if refused["reason"] == "model_denied":
        return "model not allowed"
    if refused["reason"] == "output_cap_required":
        return "no output cap named"
    per = {"total": "in total" if refused["unit"] != "concurrent" else "at once"}.get(
        refused["per"], f"per {refused['per']}"
    )
    unit = refused["unit"].replace("_", " ")
    if refused["reason"] == "never_fits" and unit == "input tokens" and refused["per"] == "total":
        return f"more than {refused['limit']:,} input tokens in one request"
    more = "more at once than " if refused["reason"] == "never_fits" else ""
    return f"{more}{refused['limit']:,} {unit} {per} ({refused['scope']})"


def suggested(largest: int) -> int:
    """Return a limit that would not have refused: the largest use and a fifth, rounded up to two digits."""
    wanted = largest + -(-largest // _HEADROOM)
    step: int = 10 ** max(0, len(str(wanted)) - 2)
    return -(-wanted // step) * step


def _zone(policy: Policy) -> tzinfo:
    return time_zone(policy.time_zone)


def _date(start: float, zone: tzinfo) -> str:
    return datetime.fromtimestamp(start, zone).strftime("%Y-%m-%d")


def _starts(found: Findings, policy: Policy) -> dict[str, float]:
    return {_date(start, _zone(policy)): start for start in found.days}


def _total(found: Findings) -> Row:
    return {
        "requests": found.requests,
        "admitted": found.admitted,
        "refused": found.refused,
        "would_refuse": found.would_refuse,
        "tokens_admitted": found.tokens_admitted,
        "tokens_refused": found.tokens_refused,
        "assumed": found.assumed,
    }


def _tally(tally: Tally | None) -> Row:
    if tally is None:
        names = ("admitted", "refused", "refused_elsewhere", "would_refuse", "tokens_admitted", "tokens_refused")
        return dict.fromkeys((*names, "first_refusal", "first_refusal_request", "first_refusal_by"))
    first = tally.first_refusal or FirstRefusal(0.0, "", Refused("", "", "", "tokens", "total", 0))
    return {
        "admitted": tally.admitted,
        "refused": tally.refused,
        "refused_elsewhere": tally.refused_elsewhere,
        "would_refuse": tally.would_refuse,
        "tokens_admitted": tally.tokens_admitted,
        "tokens_refused": tally.tokens_refused,
        "first_refusal": write_time(first.at) if tally.first_refusal else None,
        "first_refusal_request": first.request_id or None,
        "first_refusal_by": _limit(first.refused) if tally.first_refusal else None,
    }


def _limit(refused: Refused) -> Row:
    per = f"sliding {refused.per}" if refused.sliding else refused.per
    return {"reason": refused.reason, "scope": refused.scope, "unit": refused.unit, "per": per, "limit": refused.limit}


_NONE = {"admitted": 0, "refused": 0, "would_refuse": 0, "tokens_admitted": 0, "tokens_refused": 0}


def _by_day(found: Findings, zone: tzinfo) -> dict[str, Row]:
    sums: dict[str, Row] = {}
    for start, days in sorted(found.days.items()):
        row = sums.setdefault(_date(start, zone), dict(_NONE))
        for day in days.values():
            row["admitted"] += day.admitted
            row["refused"] += day.refused
            row["tokens_admitted"] += day.tokens_admitted
            row["tokens_refused"] += day.tokens_refused
            # A request that several budgets in shadow would refuse counts for each of them.
            row["would_refuse"] += sum(own.would_refuse for own in day.at.values())
    return sums


def _by_key(found: Findings) -> dict[str, Row]:
    sums: dict[str, Row] = {}
    for days in found.days.values():
        for (key_id, _), day in days.items():
            row = sums.setdefault(key_id, dict(_NONE))
            row["admitted"] += day.admitted
            row["refused"] += day.refused
            row["tokens_admitted"] += day.tokens_admitted
            row["tokens_refused"] += day.tokens_refused
            row["would_refuse"] += sum(own.would_refuse for own in day.at.values())
    return sums


def _by_budget(found: Findings) -> dict[str, Row]:
    sums: dict[str, Row] = {}
    for days in found.days.values():
        for (_, names), day in days.items():
            for name in names:
                row = sums.setdefault(name, dict(_NONE))
                row["admitted"] += day.admitted
                row["tokens_admitted"] += day.tokens_admitted
                if own := day.at.get(name):
                    row["refused"] += own.refused
                    row["tokens_refused"] += own.tokens_refused
                    row["would_refuse"] += own.would_refuse
    return sums


def _beside(new: dict[str, Row], current: dict[str, Row], *, name: str = "day") -> Iterator[Row]:
    for each in sorted(new.keys() | current.keys()):
        yield {name: each, "new": new.get(each), "current": current.get(each)}


def _most_refused(rows: Iterator[Row]) -> list[Row]:
    def hit(row: Row) -> tuple[int, int]:
        sides = [side for side in (row["new"], row["current"]) if side]
        return -max(side["refused"] for side in sides), -max(side["would_refuse"] for side in sides)

    return sorted(rows, key=hit)


def _nearness(use: WindowUse) -> float:
    return -use.shares(1.0)[0] / max(1, use.limit)


def _window(use: WindowUse, now: WindowUse | None, *, span: float) -> Row:
    half, most, largest = use.shares(0.5, 0.95, 1.0)
    length = {**SECONDS, "month": _MONTH_S, "year": _YEAR_S}.get(use.per, float("inf"))
    return {
        "budget": use.budget,
        "scope": use.scope,
        "unit": use.unit,
        "per": "at once" if use.unit == "concurrent" else f"sliding {use.per}" if use.sliding else use.per,
        "limit": use.limit,
        "limit_now": now.limit if now is not None else None,
        "windows": len(use.figures),
        "p50": half,
        "p95": most,
        "max": largest,
        "over_limit": sum(figure > use.limit for figure in use.figures),
        "suggested": suggested(largest),
        "partial": use.unit != "concurrent" and span < length,
    }
