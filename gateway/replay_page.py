"""A replay's report as one HTML file: charts drawn as SVG, no script, nothing loaded from anywhere.

Every value is escaped by the template, for keys, budgets and models may be named by anybody; its style is allowed by
its digest, so that the page also holds under a strict Content-Security-Policy.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from gateway.replay_report import Row, describe_limit

MOST_BARS = 15
MOST_WINDOWS = 60
MOST_DAY_ROWS = 400

_HIGH = 130
"""Height of a day's column in its chart."""
_WIDE = 1000
"""Width that horizontal bars are drawn in, stretched to the page's."""


class Column(NamedTuple):
    """One day's bar of one side: heights of what was admitted and refused."""

    admitted: float
    refused: float


class Bar(NamedTuple):
    """One name's bars: widths and figures of the current and the new side. None: it is not in that configuration."""

    name: str
    current: float
    new: float
    current_figure: int | None
    new_figure: int | None


class Gauge(NamedTuple):
    """One limit's use on one scale: where the p50, p95, largest use, the limits and the suggestion stand."""

    row: Row
    p50: float
    p95: float
    largest: float
    limit: float
    limit_now: float | None
    suggested: float


def write_page(path: Path, report: Row, days: Iterable[Row], *, names: tuple[str, str]) -> None:
    """Write the report of a replay; `names` are those of the current and the new configuration. Raises OSError."""
    path.write_text(page(report, days, names=names), encoding="utf-8", errors="backslashreplace")


def page(report: Row, days: Iterable[Row], *, names: tuple[str, str]) -> str:
    """Return the report of a replay as HTML."""
    web = resources.files("gateway").joinpath("web")
    style = web.joinpath("replay.css").read_text(encoding="utf-8")
    sheets = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    sheets.filters |= {"n": _figure, "short": _short}
    template = sheets.from_string(web.joinpath("replay.html").read_text(encoding="utf-8"))
    hit = (row for row in days if row["refused"] or row["refused_now"] or row["would_refuse"])
    shown = list(islice(hit, MOST_DAY_ROWS))
    return template.render(
        report=report,
        names={"current": names[0], "new": names[1]},
        style=Markup(style),  # noqa: S704 - our own file
        style_digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        columns=_columns(report["per_day"]),
        high=_HIGH,
        wide=_WIDE,
        budgets=_bars(report["budgets"], "budget"),
        keys=_bars(report["keys"], "key"),
        gauges=[_gauge(row) for row in report["windows"][:MOST_WINDOWS]],
        more_windows=max(0, len(report["windows"]) - MOST_WINDOWS),
        days=[{**row, "limit": describe_limit(row["first_refusal_by"])} for row in shown],
        more_days=sum(1 for _ in hit),
    )


def _columns(per_day: Sequence[Row]) -> list[Row]:
    sides = [side for row in per_day for side in (row["new"], row["current"]) if side]
    most = max((side["tokens_admitted"] + side["tokens_refused"] for side in sides), default=0) or 1

    def column(side: Row | None) -> Column | None:
        if side is None:
            return None
        return Column(_HIGH * side["tokens_admitted"] / most, _HIGH * side["tokens_refused"] / most)

    return [
        {**row, "current_column": column(row["current"]), "new_column": column(row["new"]), "most": most}
        for row in per_day
    ]


def _bars(rows: Sequence[Row], name: str) -> list[Bar]:
    """Those with the most refusals; nothing where there are none."""

    def figure(side: Row | None) -> int | None:
        return side["refused"] + side["would_refuse"] if side else None

    hit = [row for row in rows if figure(row["new"]) or figure(row["current"])][:MOST_BARS]
    most = max((figure(side) or 0 for row in hit for side in (row["new"], row["current"])), default=0) or 1
    return [
        Bar(
            row[name],
            _WIDE * (figure(row["current"]) or 0) / most,
            _WIDE * (figure(row["new"]) or 0) / most,
            figure(row["current"]),
            figure(row["new"]),
        )
        for row in hit
    ]


def _gauge(row: Row) -> Gauge:
    most: int = max(row["limit"], row["limit_now"] or 0, row["suggested"], 1)

    def at(figure: int) -> float:
        return _WIDE * figure / most

    now = row["limit_now"]
    return Gauge(
        row,
        at(row["p50"]),
        at(row["p95"]),
        at(row["max"]),
        at(row["limit"]),
        at(now) if now is not None else None,
        at(row["suggested"]),
    )


def _figure(value: Any) -> str:
    return "–" if value is None else f"{value:,}"


def _short(value: int | None) -> str:
    if value is None:
        return "–"
    for size, sign in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:.3g}{sign}"
    return str(value)
