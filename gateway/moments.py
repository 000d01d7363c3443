"""Moments as people name them: a date, a time, or so long ago."""

from __future__ import annotations

from datetime import datetime, tzinfo

from gateway.config.quantities import parse_duration


def read_moment(text: str, *, now: float, zone: tzinfo, ahead: bool = False) -> float:
    """Read ``2026-11-30``, ``2026-11-30T12:00:00Z`` or a duration (``7d``: so long ago, with `ahead` from now on) as
    Unix time. A date or time without an offset is one of `zone`. Raises ValueError."""
    try:
        duration_s = parse_duration(text)
    except ValueError:
        pass
    else:
        return now + duration_s if ahead else now - duration_s
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"`{text}` is no moment: write 2026-11-30, 2026-11-30T12:00:00Z, or a duration such as 7d"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()
