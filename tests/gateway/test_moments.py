from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from gateway.moments import read_moment

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("7d", datetime(2026, 3, 3, 12, tzinfo=UTC)),
        ("1h30m", datetime(2026, 3, 10, 10, 30, tzinfo=UTC)),
        ("2026-03-01", datetime(2026, 2, 28, 23, tzinfo=UTC)),
        ("2026-03-01T06:00:00", datetime(2026, 3, 1, 5, tzinfo=UTC)),
        ("2026-03-01T06:00:00Z", datetime(2026, 3, 1, 6, tzinfo=UTC)),
    ],
)
def test_moments_are_read_as_people_name_them(text: str, moment: datetime) -> None:
    assert read_moment(text, now=NOW, zone=ZoneInfo("Europe/Berlin")) == moment.timestamp()


def test_a_duration_lies_ahead_when_asked() -> None:
    assert read_moment("1h", now=NOW, zone=UTC, ahead=True) == NOW + 3600


@pytest.mark.parametrize("text", ["", "someday", "7", "-7d", "2026-13-01"])
def test_anything_else_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="no moment"):
        read_moment(text, now=NOW, zone=UTC)
