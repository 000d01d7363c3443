"""Quantities as people write them: ``100k`` tokens, ``30s``, ``32MiB``, ``80%``."""

from __future__ import annotations

import re
from decimal import Decimal

from policies.model import LIMIT_MOST

_NUMBER = r"(\d[\d_]*(?:\.\d+)?)"
_AMOUNT = re.compile(rf"{_NUMBER}\s*([kKmMbBtT]?)")
_DURATION_PART = re.compile(rf"{_NUMBER}\s*(ms|s|m|h|d|w)")
_SIZE = re.compile(rf"{_NUMBER}\s*([kKmMgG]?i?[bB])")
_PERCENT = re.compile(rf"{_NUMBER}\s*%")

_LONGEST = 200

_THOUSANDS: dict[str, int] = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_UNITS = {"ms": "0.001", "s": "1", "m": "60", "h": "3600", "d": "86400", "w": "604800"}
_SECONDS = {name: Decimal(s) for name, s in _UNITS.items()}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_amount(text: str | int | float) -> int:
    """Read ``100k``, ``2.5M``, ``1_000`` as a whole number. Raises ValueError."""
    match = _AMOUNT.fullmatch(_text(text))
    if match is None:
        raise ValueError("is not an amount")
    value = Decimal(match[1].replace("_", "")) * _THOUSANDS[match[2].lower()]
    if value != value.to_integral_value():
        raise ValueError("is not a whole number of units")
    if value > LIMIT_MOST:
        raise ValueError("is larger than can be counted exactly")
    return int(value)


def parse_duration(text: str | int | float) -> float:
    """Read ``30s``, ``15m``, ``1h30m``, ``500ms`` as seconds; a number alone has no unit. Raises ValueError."""
    compact = _text(text).replace(" ", "")
    parts = list(_DURATION_PART.finditer(compact))
    if not parts or "".join(part[0] for part in parts) != compact:
        unitless = re.fullmatch(_NUMBER, compact)
        raise ValueError("has no unit" if unitless else "is not a duration")
    return float(sum((Decimal(part[1].replace("_", "")) * _SECONDS[part[2]] for part in parts), Decimal(0)))


def parse_size(text: str | int | float) -> int:
    """Read ``32MiB``, ``1.5MB``, ``512B`` as bytes; a number alone has no unit. Raises ValueError."""
    match = _SIZE.fullmatch(_text(text))
    if match is None:
        unitless = re.fullmatch(_NUMBER, _text(text))
        raise ValueError("has no unit" if unitless else "is not a size")
    return int(Decimal(match[1].replace("_", "")) * _BYTES[match[2].lower()])


def parse_fraction(text: str | int | float) -> float:
    """Read ``80%`` or ``0.8`` as a fraction in (0, 1]. Raises ValueError."""
    percent = _PERCENT.fullmatch(_text(text))
    try:
        value = float(percent[1]) / 100 if percent else float(text)
    except ValueError:
        raise ValueError("is not a percentage") from None
    if not 0 < value <= 1:
        raise ValueError("is not above 0% and at most 100%")
    return value


def _text(value: str | int | float) -> str:
    text = str(value).strip() if not isinstance(value, bool) else ""
    if len(text) > _LONGEST:  # the patterns would look at a long one again from each of its digits
        raise ValueError("is too long")
    return text
