"""What happens while the budget store is lost, and how what happened reaches it once it is back."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from policies.ledger import LedgerEntry
from policies.model import Refusal, StoreLost
from policies.refusals import wait_s
from policies.stores.base import Ask, BudgetStore, Counter, Denied, Granted, HeldLine, Order, State, Stretch
from policies.stores.memory import MemoryStore

OnStoreError = Literal["refuse", "allow", "divide"]

COUNTERS_KNOWN = 50_000

RECOVERY_S = 10.0
"""By then every replica has noticed that the store is back and has told it what was admitted without it: the longest
pause between attempts to connect (1.5 s), a connection that stalled (4 s), and some to spare."""

RETRY_S = 5.0
"""What a caller is told to wait when a replica's share is spent, of a budget that may have more."""


class _Ending(NamedTuple):
    hold_id: str
    used: Sequence[int] | None
    entry: LedgerEntry | None


class Outage:
    """Stands in for a lost store and remembers what it must be told.

    ``allow`` admits everything and counts it here; ``divide`` admits, of what was left when the store was last
    heard, this replica's share, and goes on so for `RECOVERY_S` after the store is back: others have not told it yet
    what they admitted. `error` says how the store failed ("" while it answers).
    """

    def __init__(self, mode: OnStoreError, *, replicas: int) -> None:
        self.mode = mode
        self.replicas = max(1, replicas)
        self.error = ""
        self._local = MemoryStore()
        self._orders: dict[str, Order] = {}
        self._known: dict[tuple[str, int], tuple[int, float]] = {}
        self._known_at_loss: dict[tuple[str, int], tuple[int, float]] = {}
        self._wary_until = float("-inf")
        self._endings: list[_Ending] = []
        self._charges: dict[tuple[str, int], HeldLine] = {}
        self._batch: tuple[str, list[HeldLine]] | None = None
        self._entries: list[LedgerEntry] = []
        self._unsure: set[str] = set()

    @property
    def behind(self) -> bool:
        """Whether the store has not been told everything yet."""
        return bool(self._orders or self._endings or self._charges or self._batch or self._entries)

    @property
    def _divides(self) -> bool:
        return self.mode == "divide" and self.replicas > 1

    def recovered(self, *, now: float) -> None:
        """The store answers."""
        if self.error and self._divides:
            self._wary_until = now + RECOVERY_S
            self._known_at_loss = dict(self._known)
        self.error = ""

    def wary(self, order: Order, *, now: float) -> Order:
        """Leave room, until some time after a loss, for what other replicas may have admitted and not told yet."""
        if not self._divides or not (self.error or now < self._wary_until):
            return order
        return order._replace(asks=tuple(self._leaving_room(ask, now) for ask in order.asks))

    def softened(self, refusal: Refusal, *, now: float) -> Refusal:
        """Send a caller away for moments only who is refused for want of this replica's share, not of budget."""
        if not self._divides or refusal.asked > refusal.available or not (self.error or now < self._wary_until):
            return refusal
        wait = wait_s(now + RETRY_S if self.error else self._wary_until, now=now)
        when = "is" if self.error else "was just"
        return replace(
            refusal,
            reason="window_full",
            message=f"Budget '{refusal.budget}' ({refusal.scope}): its store {when} lost, and this replica's share of "
            f"what was left is spent; try again in {wait:.0f} s.",
            resets_at=now + wait,
            retry_after_s=wait,
        )

    def heard(self, counters: Sequence[Counter], states: Sequence[State]) -> None:
        """Remember how counters stood when the store last answered."""
        if self.mode != "divide":
            return
        if len(self._known) > COUNTERS_KNOWN:
            self._known.clear()
        known = self._known
        for (series, slot, since, step, expires_at), state in zip(counters, states, strict=True):
            if step:  # a sliding window has a new slot every moment, but what was in it leaves only after a period
                known[(series, 0)] = (state.used + state.held, 2 * slot - since + step)
            else:
                known[(series, slot)] = (state.used + state.held, expires_at or float("inf"))

    def holds_here(self, hold_id: str) -> bool:
        """Whether a hold was made while the store was lost and is still kept here."""
        return hold_id in self._orders

    async def reserve(self, order: Order, error: StoreLost, *, now: float) -> Granted | Denied:
        """Hold an order here. Raises the store's own error in mode ``refuse``."""
        self.error = str(error)
        if self.mode == "refuse":
            raise error
        asks = tuple(ask._replace(ceiling=self._share(ask, now)) for ask in order.asks)
        outcome = await self._local.reserve(order._replace(asks=asks), now=now)
        if isinstance(outcome, Granted):
            self._orders[order.id] = order._replace(
                asks=tuple(
                    Ask(ask.counter, -1, amount, 0, 0, Stretch.RIGID)
                    for ask, amount in zip(asks, outcome.amounts, strict=True)
                ),
                output=outcome.output,
            )
        return outcome

    async def settle(
        self,
        hold_id: str,
        used: Sequence[int] | None,
        *,
        read: Sequence[Counter],
        now: float,
        entry: LedgerEntry | None,
    ) -> tuple[State, ...]:
        """End a hold that is kept here; the store is told what it came to when it is back."""
        order = self._orders.pop(hold_id)
        if hold_id in self._unsure:
            self._endings.append(_Ending(hold_id, None, None))
        settled = await self._local.settle(hold_id, used, read=read, now=now)
        spent = [
            HeldLine(ask.counter.series, ask.counter.slot, amount, ask.counter.expires_at)
            for ask, amount in zip(order.asks, used or (), strict=False)
            if amount
        ]
        self._owe(spent)
        if entry is not None:
            self._entries.append(entry)
        return settled.states

    def settle_later(
        self, hold_id: str, used: Sequence[int] | None, *, entry: LedgerEntry | None, error: StoreLost
    ) -> None:
        """Remember the end of a hold that is kept by the store, which cannot be reached."""
        self.error = str(error)
        self._endings.append(_Ending(hold_id, used, entry))

    def owe(self, lines: Sequence[HeldLine], *, error: StoreLost) -> None:
        """Remember charges that belong to no hold."""
        self.error = str(error)
        self._owe(lines)

    def _owe(self, lines: Sequence[HeldLine]) -> None:
        for line in lines:
            before = self._charges.get((line.series, line.slot))
            amount = line.amount + (before.amount if before is not None else 0)
            self._charges[(line.series, line.slot)] = line._replace(amount=amount)

    async def catch_up(self, store: BudgetStore, *, now: float) -> None:
        """Tell the store everything. Raises `StoreLost` when it is still lost; nothing is told twice, or forgotten.

        Holds go first, so that at no moment the store believes in room that is taken.
        """
        for hold_id, order in list(self._orders.items()):
            try:
                if not await store.holds(hold_id=hold_id):
                    await store.reserve(order, now=now)
            except StoreLost as error:
                self._unsure.add(hold_id)
                self.error = str(error)
                raise
            if self._orders.pop(hold_id, None) is None:
                # It was settled here while it moved: its charges are on their way, so the hold goes.
                self._endings.append(_Ending(hold_id, None, None))
            else:
                await self._local.settle(hold_id, None, read=(), now=now)
            self._unsure.discard(hold_id)
        while self._batch is not None or self._charges:
            if self._batch is None:
                self._batch = (secrets.token_hex(8), list(self._charges.values()))
                self._charges = {}
            batch, lines = self._batch
            await store.charge(lines, batch=batch, now=now)
            self._batch = None
        while self._endings:
            ending = self._endings[0]
            await store.settle(ending.hold_id, ending.used, read=(), now=now, entry=ending.entry)
            self._endings.remove(ending)
        while self._entries:
            store.record(self._entries.pop(0))
        if not self._orders:
            self._local = MemoryStore()
        self.recovered(now=now)

    def _share(self, ask: Ask, now: float) -> int:
        if self.mode == "allow" or ask.ceiling < 0:
            return -1
        return _room(ask, self._known, now) // self.replicas

    def _leaving_room(self, ask: Ask, now: float) -> Ask:
        if ask.ceiling < 0:
            return ask
        room = _room(ask, self._known if self.error else self._known_at_loss, now)
        return ask._replace(ceiling=ask.ceiling - (room - room // self.replicas))


def _room(ask: Ask, known: dict[tuple[str, int], tuple[int, float]], now: float) -> int:
    counter = ask.counter
    taken, until = known.get((counter.series, 0 if counter.step else counter.slot), (0, 0.0))
    return max(0, ask.ceiling - (taken if now < until else 0))
