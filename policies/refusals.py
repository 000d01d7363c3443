"""Why a request may not pass, in words that say which budget, its scope, what was asked and when it is back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from policies.matching import Line, Stand
from policies.model import Estimate, Limit, Period, Refusal, Unit
from policies.stores.base import Ask, State, Stretch
from policies.windows import slot_leaves_at

WORDS: dict[Unit, str] = {
    "tokens": "tokens",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "requests": "requests",
    "concurrent": "concurrent requests",
}
SHORT: tuple[Period, ...] = ("minute", "hour")
"""Periods a caller can wait out; everything longer counts as spent until it resets."""


def model_denied(stand: Stand, model: str) -> Refusal:
    """The model is denied, or not among those allowed."""
    return Refusal(
        "model_denied",
        stand.budget.name,
        stand.scope,
        f"Budget '{stand.budget.name}' ({stand.scope}) does not allow the model '{model}'. Use one that it allows.",
    )


def input_too_long(stand: Stand, estimate: Estimate, most: int) -> Refusal:
    """The prompt is longer than the budget lets any one request be."""
    return Refusal(
        "never_fits",
        stand.budget.name,
        stand.scope,
        f"Budget '{stand.budget.name}' ({stand.scope}) takes at most {most:,} input tokens in one request; "
        f"this one has {estimate.input_tokens:,}. Send a shorter prompt.",
        unit="input_tokens",
        asked=estimate.input_tokens,
        available=most,
        limit=most,
    )


def cap_required(stand: Stand, *, model: str, unknown_max: bool) -> Refusal:
    """The request names no output cap where the budget cannot hold without one."""
    reason = (
        f"holds the most that '{model}' can write, which is not known here"
        if unknown_max
        else "takes only requests that name the most they may write"
    )
    return Refusal(
        "output_cap_required",
        stand.budget.name,
        stand.scope,
        f"Budget '{stand.budget.name}' ({stand.scope}) {reason}. Set max_tokens (or this API's name for it).",
        unit="output_tokens",
    )


def never_fits(line: Line, ask: Ask, estimate: Estimate) -> Refusal:
    """The request is larger than the whole limit."""
    limit = line.limit
    return Refusal(
        "never_fits",
        line.budget.name,
        line.scope,
        f"{_budget(line)}: this request needs {_needs(line, ask, estimate)}, more than the whole limit of "
        f"{_limit(limit)}. Send a shorter prompt or a lower output cap.",
        unit=limit.unit,
        per=limit.per,
        asked=ask.least,
        available=limit.amount,
        limit=limit.amount,
    )


def full(
    line: Line,
    ask: Ask,
    estimate: Estimate,
    *,
    state: State,
    slots: Sequence[tuple[int, int]],
    resets_at: float | None,
    now: float,
) -> Refusal:
    """Too little is left. `slots` are those of a sliding window; waiting until its oldest have left is enough."""
    limit = line.limit
    available = max(0, limit.amount - state.used - state.held)
    back_at = resets_at
    if limit.sliding and limit.unit != "concurrent":
        back_at = _enough_left_at(limit, ask.least, slots)
    waits = limit.per in SHORT and limit.unit != "concurrent"
    short = waits or limit.unit == "concurrent"
    until = (
        "retry when one of them has ended"
        if limit.unit == "concurrent"
        else "it does not reset"
        if back_at is None
        else f"{'enough is back' if limit.sliding else 'it resets'} at {iso(back_at)}"
    )
    return Refusal(
        "window_full" if short else "quota_spent",
        line.budget.name,
        line.scope,
        f"{_budget(line)}: this request needs {_needs(line, ask, estimate)}, "
        f"{available:,} of {_limit(limit)} are left; {until}.",
        unit=limit.unit,
        per=limit.per,
        asked=ask.least,
        available=available,
        limit=limit.amount,
        resets_at=back_at,
        retry_after_s=wait_s(back_at, now=now) if waits and back_at is not None else None,
    )


def longest_wait(refusals: Sequence[Refusal]) -> Refusal:
    """Return the refusal that stands longest, for a shorter wait would not let the request pass."""
    return max(refusals, key=_stands_until)


def wait_s(until: float, *, now: float) -> float:
    """Return a wait after which `until` has passed for certain: whole milliseconds, rounded up and one more."""
    return (math.ceil(max(0.0, until - now) * 1000) + 1) / 1000


def iso(moment: float) -> str:
    """Return a Unix time as RFC 3339 in UTC, in whole seconds rounded up."""
    return datetime.fromtimestamp(math.ceil(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _stands_until(refusal: Refusal) -> float:
    if refusal.unit == "concurrent" and refusal.reason == "window_full":
        return 0.0
    return float("inf") if refusal.resets_at is None else refusal.resets_at


def _enough_left_at(limit: Limit, least: int, slots: Sequence[tuple[int, int]]) -> float:
    total = sum(amount for _, amount in slots)
    for start, amount in slots:
        total -= amount
        if total + least <= limit.amount:
            return float(slot_leaves_at(limit.per, start))
    return float(slot_leaves_at(limit.per, slots[-1][0])) if slots else 0.0


def _budget(line: Line) -> str:
    return f"Budget '{line.budget.name}' ({line.scope})"


def _limit(limit: Limit) -> str:
    if limit.unit == "concurrent":
        return f"{limit.amount:,} {WORDS[limit.unit]}"
    if limit.per == "total":
        return f"{limit.amount:,} {WORDS[limit.unit]} in total"
    return f"{limit.amount:,} {WORDS[limit.unit]} per {'sliding ' if limit.sliding else ''}{limit.per}"


def _needs(line: Line, ask: Ask, estimate: Estimate) -> str:
    needs = f"{ask.least:,} {WORDS[line.limit.unit]}"
    if line.limit.unit != "tokens":
        return needs
    output = ask.least - estimate.input_tokens
    if ask.stretch == Stretch.RIGID and line.rates == (1_000_000,) * 4 and output >= 0:
        return f"{needs} ({estimate.input_tokens:,} input + {output:,} output held)"
    return needs
