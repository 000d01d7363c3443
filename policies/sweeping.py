"""Holds that nobody attends any more: found, and settled as held."""

from __future__ import annotations

from collections.abc import Collection

from policies import reservations
from policies.model import Reservation
from policies.stores.base import BudgetStore, Hold


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
    for hold in await store.holds():
        if _attended(hold, owner=owner, live=live, dead_owners=dead_owners, quiet_since=quiet_since):
            continue
        reservation = reservations.kept(hold)
        used = [0 if charge.unit == "concurrent" else charge.amount for charge in reservation.charges]
        entry = reservations.abandoned(reservation, now=now)
        await store.charge((), batch=reservations.charged_batch(hold.id), now=now)
        if (await store.settle(hold.id, used, read=(), now=now, entry=entry)).won:
            abandoned.append(reservation)


def _attended(
    hold: Hold, *, owner: str, live: Collection[str], dead_owners: Collection[str], quiet_since: float
) -> bool:
    if hold.owner == owner:
        return hold.id in live or hold.held_at > quiet_since
    if hold.owner in dead_owners:
        return False
    return max(hold.held_at, hold.beat_at) > quiet_since
