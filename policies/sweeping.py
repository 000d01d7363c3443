"""Holds that nobody attends any more: found, and settled as held."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from policies import reservations
from policies.model import Reservation
from policies.stores.base import BudgetStore, Hold

TOGETHER = 100
"""Orphans settled at once: a store makes one step of them, and requests in between do not wait long."""


async def settle_unattended(
    store: BudgetStore,
    abandoned: list[Reservation],
    *,
    owner: str,
    live: Collection[str],
    dead_owners: Collection[str],
    quiet_since: float,
    now: float,
) -> None:
    """Charge unattended holds as held, mark them in the ledger, and add them to `abandoned`.

    Unattended is a hold made before `quiet_since` whose owner has given no sign of life since then either, or is
    among `dead_owners`; and one of `owner`'s own, that old, which is not among its `live` ones: left over from an
    answer of the store that was lost. Raises `StoreLost`; what was abandoned until then stays so.
    """
    orphans = [
        hold
        for hold in await store.holds()
        if not _attended(hold, owner=owner, live=live, dead_owners=dead_owners, quiet_since=quiet_since)
    ]
    for start in range(0, len(orphans), TOGETHER):
        # One after another they would take so long that this sweeper's own next sign of life comes late.
        ended = [_settle_as_held(store, hold, now=now) for hold in orphans[start : start + TOGETHER]]
        results = await asyncio.gather(*ended, return_exceptions=True)
        abandoned += [result for result in results if isinstance(result, Reservation)]
        for result in results:
            if isinstance(result, BaseException):
                raise result


async def _settle_as_held(store: BudgetStore, hold: Hold, *, now: float) -> Reservation | None:
    """The reservation, if nobody else has ended it by now."""
    reservation = reservations.kept(hold)
    used = [0 if charge.unit == "concurrent" else charge.amount for charge in reservation.charges]
    entry = reservations.abandoned(reservation, now=now)
    await store.charge((), batch=reservations.charged_batch(hold.id), now=now)
    settled = await store.settle(hold.id, used, read=(), now=now, entry=entry)
    return reservation if settled.won else None


def _attended(
    hold: Hold, *, owner: str, live: Collection[str], dead_owners: Collection[str], quiet_since: float
) -> bool:
    if hold.owner == owner:
        return hold.id in live or hold.held_at > quiet_since
    if hold.owner in dead_owners:
        return False
    return max(hold.held_at, hold.beat_at) > quiet_since
