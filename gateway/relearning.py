"""What bills taught before a restart, learned again from the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tokenizers_offline.learning import Situation

if TYPE_CHECKING:
    from gateway.counting import Counting
    from gateway.operator_notes import Forgotten
    from policies.ledger import LedgerEntry

LINES = 5_000
"""The latest lines of the ledger that are looked at: enough for what is in use, read in a fraction of a second."""

_AT_ONCE = 50


async def relearn(counting: Counting, lines: Iterable[LedgerEntry], forgotten: Sequence[Forgotten]) -> int:
    """Feed the learner the bills among ledger lines, oldest first, without holding up the event loop; return how many
    there were."""
    bills = [line for line in lines if line.source == "reported" and line.plain_tokens]
    used = 0
    for line in bills:
        if any(each.covers(upstream=line.upstream, model=line.model, at=line.at) for each in forgotten):
            continue
        counting.learner.observe(
            Situation(line.upstream, line.model, line.features),
            counted=line.plain_tokens,
            reported=line.input_tokens,
            estimate=line.accuracy == "estimate",
        )
        used += 1
        if used % _AT_ONCE == 0:
            await asyncio.sleep(0)
    return used
