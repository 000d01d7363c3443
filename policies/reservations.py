"""Reservations: made from what a store granted, read back from what it journalled."""

from __future__ import annotations

import random
from collections.abc import Sequence

from policies.ledger import LedgerEntry
from policies.matching import Plan, memo_subject
from policies.model import Charge, Reservation, Subject
from policies.stores.base import Granted, HeldLine, Hold, Order


def new_id() -> str:
    """A name that no other hold has; the generator is seeded anew in each forked process."""
    return f"{random.getrandbits(96):024x}"


def made(subject: Subject, plan: Plan, order: Order, granted: Granted, *, now: float) -> Reservation:
    """Return the reservation of an order that was granted."""
    charges = []
    for line, ask, amount in zip(plan.lines, order.asks, granted.amounts, strict=True):
        counter, ceiling = ask.counter, ask.ceiling
        charges.append(
            Charge(
                f"{counter.series}@{counter.slot}",
                amount,
                None if ceiling < 0 else ceiling,
                line.limit.unit,
                counter.expires_at or None,
                line.rates,
            )
        )
    held_output = order.output_held(granted.output)
    return Reservation(order.id, subject, tuple(charges), order.input_tokens, held_output, now, order.choices)


def kept(hold: Hold) -> Reservation:
    """Return the reservation of a journalled hold. Its charges know no ceiling: they have been admitted."""
    subject, lines = memo_subject(hold.memo)
    charges = tuple(
        Charge(f"{line.series}@{line.slot}", line.amount, None, unit, line.expires_at or None, rates)
        for line, (unit, rates) in zip(hold.lines, lines, strict=True)
    )
    return Reservation(hold.id, subject, charges, hold.input_tokens, hold.output_tokens, hold.held_at, hold.choices)


def abandoned(reservation: Reservation, *, now: float) -> LedgerEntry:
    """Return the ledger line of a reservation that nobody ended: charged as held."""
    subject = reservation.subject
    return LedgerEntry(
        request_id=reservation.id,
        at=now,
        key_id=subject.key_id,
        model=subject.model,
        upstream=subject.upstream,
        outcome="abandoned",
        tags=subject.tags,
        held_input=reservation.held_input,
        held_output=reservation.held_output,
        input_tokens=reservation.held_input,
        output_tokens=reservation.held_output,
        source="held",
        choices=reservation.choices,
    )


def charged_batch(hold_id: str) -> str:
    """Name the batch that charges what a hold held: whoever ends a hold for its owner by charging it claims the
    name, so that an owner who comes late charges neither twice nor, where the hold was given back, too little."""
    return f"held-{hold_id}"


def within_hold(reservation: Reservation, used: Sequence[int]) -> list[HeldLine]:
    """Return what was used up to what was held."""
    return [
        HeldLine(*_place(charge.counter), min(amount, charge.amount), charge.expires_at or 0.0)
        for charge, amount in zip(reservation.charges, used, strict=True)
        if amount
    ]


def debts(reservation: Reservation, used: Sequence[int]) -> list[HeldLine]:
    """Return what was used beyond what was held, for a reservation that was settled as held."""
    return [
        HeldLine(*_place(charge.counter), amount - charge.amount, charge.expires_at or 0.0)
        for charge, amount in zip(reservation.charges, used, strict=True)
        if amount > charge.amount
    ]


def _place(counter: str) -> tuple[str, int]:
    series, _, slot = counter.rpartition("@")
    return series, int(slot)
