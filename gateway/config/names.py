"""What ids and names may look like: they stand in counters, metrics, logs and headers, and so are kept plain."""

from __future__ import annotations

import re

NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}"
_NAME = re.compile(NAME_PATTERN)


def is_name(text: str) -> bool:
    """Whether a text may name a key, a budget or an upstream."""
    return _NAME.fullmatch(text) is not None
