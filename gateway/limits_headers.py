"""What every answer tells about budgets: the tightest one, in OpenAI's, Anthropic's and the IETF's words.

Names and forms: OpenAI's ``x-ratelimit-*`` with Go-style durations, Anthropic's ``anthropic-ratelimit-*`` with RFC 3339
times, and draft-ietf-httpapi-ratelimit-headers (structured fields: ``q`` quota, ``w`` window in seconds, ``qu`` quota
unit, ``r`` remaining, ``t`` seconds to the reset).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from operator import itemgetter

from gateway.refusals import write_time
from policies.model import BudgetStatus, Period, Unit

_WINDOW_S: dict[Period, int] = {
    "minute": 60,
    "hour": 3_600,
    "day": 86_400,
    "week": 604_800,
    "month": 2_592_000,
    "year": 31_536_000,
}
_ANTHROPIC_WORDS: dict[Unit, str] = {
    "requests": "requests",
    "tokens": "tokens",
    "input_tokens": "input-tokens",
    "output_tokens": "output-tokens",
}


_TOKENS: tuple[Unit, ...] = ("tokens", "input_tokens", "output_tokens")
_by_room = itemgetter(0)


def limit_headers(statuses: Iterable[BudgetStatus], *, now: float, anthropic: bool = False) -> list[tuple[str, str]]:
    """The headers for budgets as they stand. Shadow budgets bind nobody and are not told."""
    tightest: dict[Unit, tuple[float, BudgetStatus]] = {}
    for status in statuses:
        unit = status.unit
        if unit == "concurrent" or status.mode == "shadow":
            continue
        room = _room(status)
        known = tightest.get(unit)
        if known is None or room < known[0]:
            tightest[unit] = room, status
    if not tightest:
        return []
    headers: list[tuple[str, str]] = []
    tokens = [tightest[unit] for unit in _TOKENS if unit in tightest]
    if tokens:
        _add_openai(headers, "tokens", min(tokens, key=_by_room)[1], now)
    if "requests" in tightest:
        _add_openai(headers, "requests", tightest["requests"][1], now)
    if anthropic:
        for unit, (_, status) in tightest.items():
            _add_anthropic(headers, _ANTHROPIC_WORDS[unit], status)
    _add_ietf(headers, min(tightest.values(), key=_by_room)[1], now)
    return headers


def _room(status: BudgetStatus) -> float:
    return status.remaining / status.limit if status.limit else 0.0


def _add_openai(headers: list[tuple[str, str]], word: str, status: BudgetStatus, now: float) -> None:
    headers.append((f"x-ratelimit-limit-{word}", str(status.limit)))
    headers.append((f"x-ratelimit-remaining-{word}", str(status.remaining)))
    if status.resets_at is not None:
        headers.append((f"x-ratelimit-reset-{word}", write_duration(status.resets_at - now)))


def _add_anthropic(headers: list[tuple[str, str]], word: str, status: BudgetStatus) -> None:
    headers.append((f"anthropic-ratelimit-{word}-limit", str(status.limit)))
    headers.append((f"anthropic-ratelimit-{word}-remaining", str(status.remaining)))
    resets_at = write_time(status.resets_at)
    if resets_at is not None:
        headers.append((f"anthropic-ratelimit-{word}-reset", resets_at))


def _add_ietf(headers: list[tuple[str, str]], status: BudgetStatus, now: float) -> None:
    name, policy = _policy(status.budget, status.limit, status.per, status.unit)
    resets = f";t={max(0, math.ceil(status.resets_at - now))}" if status.resets_at is not None else ""
    headers.append(("RateLimit-Policy", policy))
    headers.append(("RateLimit", f"{name};r={status.remaining}{resets}"))


@lru_cache(maxsize=1024)
def _policy(budget: str, limit: int, per: Period, unit: Unit) -> tuple[str, str]:
    """A budget's name as it is quoted, and the policy of one of its limits."""
    # Printable ASCII only, as structured fields have it: a budget's name can break out of no header.
    plain = "".join(letter if " " <= letter <= "~" else "?" for letter in budget)
    name = '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
    window_s = _WINDOW_S.get(per)
    window = f";w={window_s}" if window_s else ""
    return name, f'{name};q={limit}{window};qu="{unit}"'


def write_duration(seconds: float) -> str:
    """A wait the way OpenAI writes it: ``250ms``, ``7s``, ``6m0s``, ``1h0m0s``."""
    if seconds < 1:
        return f"{max(0, math.ceil(seconds * 1000))}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    if not minutes:
        return f"{rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
