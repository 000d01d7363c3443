"""What one request really used: the one type that formats read off the wire and budgets settle."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Usage(NamedTuple):
    """Tokens used. `input_tokens` includes cached ones, `output_tokens` includes reasoning ones.

    `source`: ``reported`` by the provider, ``counted`` here from what was relayed, or ``held`` (nothing
    better is known, so the hold itself is charged).
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    source: Literal["reported", "counted", "held"] = "reported"
