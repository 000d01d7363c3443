"""Reserve, settle, release: whether a request may pass, and what it came to."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Collection, Sequence

from policies import answers, operating, reservations, sweeping
from policies.holds import Demand, demand, extension, needs_learned, spent
from policies.learned import HISTORY, LearnedOutputs
from policies.ledger import LedgerEntry
from policies.matching import Plan, PolicyIndex
from policies.model import AMOUNT_MOST, BudgetStatus, Decision, Estimate, Key, Reservation, StoreLost, Subject
from policies.outage import OnStoreError, Outage
from policies.policy import Policy
from policies.stores.base import BudgetStore, Counter, Denied, Granted, Order, Settled, State
from policies.usage import Usage

PRUNE_EVERY_S = 600.0


class _Shared:
    """What outlives a reload: the holds in flight here, what was learned, what a lost store must still be told."""

    def __init__(self, outage: Outage, learned: LearnedOutputs) -> None:
        self.live: set[str] = set()
        self.outage = outage
        self.learned = learned
        self.warned: dict[tuple[str, float], int] = {}
        self.catching_up = asyncio.Lock()
        self.seen = False
        self.pruned_at = float("-inf")


class BudgetEngine:
    """Holds requests against a policy's budgets in a store.

    `owner` names this process in the journal of holds: no two live processes may share it. A hold whose owner has
    given no sign of life for `hold_timeout_s`, or that nobody attends, is settled by `sweep` as held.
    `on_store_error` says what happens while the store is lost; `divide` admits a share of 1 / `replicas`.
    Ledger lines older than `ledger_keep_s` are dropped (None: kept).
    """

    def __init__(
        self,
        policy: Policy,
        store: BudgetStore,
        *,
        owner: str,
        hold_timeout_s: float = 600.0,
        on_store_error: OnStoreError = "refuse",
        replicas: int = 1,
        learned: LearnedOutputs | None = None,
        ledger_keep_s: float | None = None,
    ) -> None:
        self.policy = policy
        self.store = store
        self.owner = owner
        self.hold_timeout_s = hold_timeout_s
        self.ledger_keep_s = ledger_keep_s
        self._index = PolicyIndex(policy)
        self.calendar = self._index.calendar
        self._shared = _Shared(Outage(on_store_error, replicas=replicas), learned or LearnedOutputs())

    @property
    def store_error(self) -> str:
        """How the store failed when it was last asked; "" while it answers."""
        return self._shared.outage.error

    @property
    def in_flight(self) -> int:
        """Reservations made here and not yet ended."""
        return len(self._shared.live)

    def with_policy(self, policy: Policy) -> BudgetEngine:
        """Return an engine under another policy on the same store: usage, holds and what was learned are kept."""
        engine = BudgetEngine(
            policy,
            self.store,
            owner=self.owner,
            hold_timeout_s=self.hold_timeout_s,
            ledger_keep_s=self.ledger_keep_s,
        )
        engine._shared = self._shared
        return engine

    async def reserve(self, subject: Subject, estimate: Estimate, *, now: float, detached: bool = False) -> Decision:
        """Hold a request on every budget it meets, or on none.

        A `detached` reservation is not kept alive by this process: whoever asked for it must end it (`find`) within
        the hold timeout. Raises `StoreLost` only where `on_store_error` is ``refuse``.
        """
        now = self.store.aligned(now)
        plan = self._index.plan(subject)
        asked = await self._demand(plan, subject, estimate, now=now)
        if asked.refusals:
            return Decision(False, None, refusal=answers.first_told(asked.refusals), shadowed=asked.shadowed)
        order = Order(
            # Whoever knows the id of a detached one may end it.
            id=secrets.token_hex(12) if detached else reservations.new_id(),
            owner="" if detached else self.owner,
            asks=asked.asks,
            input_tokens=min(estimate.input_tokens, AMOUNT_MOST),
            output=min(asked.output, AMOUNT_MOST),
            choices=min(estimate.choices, AMOUNT_MOST),
            memo=plan.memo,
        )
        degraded = ""
        if not plan.lines and not detached:
            outcome: Granted | Denied = Granted((), asked.output, asked.output, ())
        else:
            try:
                outcome = await self._hold(order, plan.counters(self.calendar, now), now=now)
            except StoreLost as error:
                # The lost store may have made the hold; under a name of its own the two cannot be mixed up.
                order = order._replace(id=reservations.new_id())
                outcome = await self._shared.outage.reserve(order, error, now=now)
                degraded = f"{self._shared.outage.mode}: {error}"
        statuses = self._statuses(plan, outcome.states, now=now)
        counters, resets = plan.counters(self.calendar, now), plan.resets(self.calendar, now)
        if isinstance(outcome, Denied):
            refusal = answers.refusal(plan, order, estimate, outcome, resets=resets, now=now)
            refusal = self._shared.outage.softened(refusal, now=now)
            return Decision(False, None, statuses, refusal, shadowed=asked.shadowed, degraded=degraded)
        if not detached:
            self._shared.live.add(order.id)
        shadowed = asked.shadowed
        if plan.shadows:
            shadowed += answers.shadowed(plan, order, estimate, outcome, resets=resets, now=now)
        warned = self._shared.warned
        return Decision(
            True,
            reservations.made(subject, plan, order, outcome, now=now),
            statuses,
            output_cap=outcome.cap if asked.clamps else asked.cap,
            warnings=answers.warnings(plan, counters, outcome.states, warned=warned) if plan.warns else (),
            degraded=degraded,
            shadowed=shadowed,
            cuts=plan.cutting is not None,
        )

    async def extend(self, reservation: Reservation, output: int, *, now: float) -> Reservation | None:
        """Hold up to `output` more tokens for an answer that outgrows its hold, where budgets want it cut; None when
        they have nothing left. The extension is to be released once the reservation itself has been settled."""
        now = self.store.aligned(now)
        plan = self._index.plan(reservation.subject).cutting
        if plan is None:
            return None
        counters = plan.counters(self.calendar, reservation.held_at)  # the windows that will be charged
        asks = extension(plan, counters, output=output)
        order = Order(reservations.new_id(), self.owner, asks, 0, output, 1, plan.memo)
        try:
            outcome = await self._hold(order, counters, now=now)
        except StoreLost as error:
            order = order._replace(id=reservations.new_id())
            try:
                outcome = await self._shared.outage.reserve(order, error, now=now)
            except StoreLost:
                return None
        if isinstance(outcome, Denied):
            return None
        self._shared.live.add(order.id)
        return reservations.made(reservation.subject, plan, order, outcome, now=now)

    async def settle(
        self, reservation: Reservation, usage: Usage, *, now: float, entry: LedgerEntry | None = None
    ) -> tuple[BudgetStatus, ...]:
        """Charge the truth to the windows that were held, and return how the budgets stand now.

        Only the first settle or release of a reservation counts. `entry` is written in the same step, so that the
        ledger and the counters cannot part. Never raises for a lost store: it is told once it is back.
        """
        if usage.source != "held" and usage.output_tokens > 0 and reservation.id in self._shared.live:
            subject = reservation.subject
            per_answer = -(-usage.output_tokens // max(1, reservation.choices))
            self._shared.learned.observe(subject.key_id, subject.model, per_answer)
        used = spent(reservation.charges, usage)
        return await self._end(reservation, used, now=now, entry=entry)

    async def release(
        self, reservation: Reservation, *, now: float, entry: LedgerEntry | None = None
    ) -> tuple[BudgetStatus, ...]:
        """Give everything back: the upstream never took the request."""
        return await self._end(reservation, None, now=now, entry=entry)

    async def status(self, asked: Subject | Key, *, now: float) -> tuple[BudgetStatus, ...]:
        """Return how the budgets of a subject stand, or all that a key can meet, with what was granted on top. Raises
        `StoreLost`."""
        plan = self._index.plan(asked) if isinstance(asked, Subject) else self._index.plan_of_key(asked)
        return await operating.standing(self, plan, now=now)

    async def preview(self, subject: Subject, estimate: Estimate, *, now: float) -> Decision:
        """Return what `reserve` would answer now, and hold nothing. Raises `StoreLost`."""
        now = self.store.aligned(now)
        plan = self._index.plan(subject)
        asked = await self._demand(plan, subject, estimate, now=now)
        states = await self.store.read(plan.counters(self.calendar, now), now=now) if plan.lines else ()
        resets = plan.resets(self.calendar, now)
        return answers.previewed(plan, asked, subject, estimate, states, resets=resets, now=now)

    async def find(self, reservation_id: str) -> Reservation | None:
        """Return an open reservation by its id, made by whichever process. Raises `StoreLost`."""
        found = await self.store.holds(hold_id=reservation_id)
        return reservations.kept(found[0]) if found else None

    async def sweep(self, *, now: float, dead_owners: Collection[str] = ()) -> list[Reservation]:
        """Give a sign of life, and settle as held what nobody attends any more; return what was abandoned.

        `dead_owners` are known to be gone and are not waited for. To be called several times within
        `hold_timeout_s`. A lost store is tried again by the next call (see `store_error`).
        """
        now = self.store.aligned(now)
        abandoned: list[Reservation] = []
        try:
            await self._catch_up(now=now)
            await self.store.beat(self.owner, now=now)
            self._shared.seen = True
            await sweeping.settle_unattended(
                self.store,
                abandoned,
                owner=self.owner,
                live=self._shared.live,
                dead_owners=dead_owners,
                quiet_since=now - self.hold_timeout_s,
                now=now,
            )
            if now - self._shared.pruned_at >= PRUNE_EVERY_S:
                before = None if self.ledger_keep_s is None else now - self.ledger_keep_s
                await self.store.prune(now=now, ledger_before=before)
                self._shared.pruned_at = now
        except StoreLost as error:
            self._shared.outage.error = str(error)
        return abandoned

    async def record(self, entry: LedgerEntry) -> None:
        """Write a ledger line for a request that held nothing, such as a refused one; it is not waited for."""
        self.store.record(entry)

    async def close(self, *, now: float) -> None:
        """Tell the store what it has not heard and close it; `store_error` says so if it could not be reached."""
        steps = [self._catch_up(now=self.store.aligned(now)), self.store.close()]
        if self._shared.seen:
            steps.insert(1, self.store.leave(self.owner))
        for step in steps:
            try:
                await step
            except StoreLost as error:
                self._shared.outage.error = str(error)

    async def _demand(self, plan: Plan, subject: Subject, estimate: Estimate, *, now: float) -> Demand:
        learned = self.policy.output_hold_floor
        if needs_learned(plan, estimate):
            learned = await self._learned(subject)
        counters = plan.counters(self.calendar, now)
        return demand(plan, estimate, counters, subject=subject, policy=self.policy, learned=learned)

    async def _learned(self, subject: Subject) -> int:
        learned = self._shared.learned
        key_id, model = subject.key_id, subject.model
        if not learned.known(key_id, model):
            # While the store is lost the floor is held; the reservation itself says what a lost store means.
            with contextlib.suppress(StoreLost):
                learned.seed(key_id, model, await self.store.recent_outputs(key_id, model, limit=HISTORY))
        return learned.hold(key_id, model, floor=self.policy.output_hold_floor)

    async def _hold(self, order: Order, counters: Sequence[Counter], *, now: float) -> Granted | Denied:
        outage = self._shared.outage
        if outage.behind:
            await self._catch_up(now=now)
        try:
            outcome = await self.store.reserve(outage.wary(order, now=now), now=now)
        except asyncio.CancelledError:
            # The hold may be made all the same; ending it queues up behind it.
            self._end_unwatched(order.id, None, None, self.store.settle(order.id, None, read=(), now=now))
            raise
        except StoreLost as error:
            outage.settle_later(order.id, None, entry=None, error=error)
            raise
        outage.recovered(now=now)
        outage.heard(counters, outcome.states)
        return outcome

    async def _end(
        self, reservation: Reservation, used: Sequence[int] | None, *, now: float, entry: LedgerEntry | None
    ) -> tuple[BudgetStatus, ...]:
        now = self.store.aligned(now)
        shared, hold_id = self._shared, reservation.id
        ours = hold_id in shared.live
        shared.live.discard(hold_id)
        if ours and not reservation.charges:
            if entry is not None:
                self.store.record(entry)
            return ()
        plan = self._index.plan(reservation.subject)
        counters = plan.counters(self.calendar, now)
        if shared.outage.holds_here(hold_id):
            states = await shared.outage.settle(hold_id, used, read=counters, now=now, entry=entry)
            return self._statuses(plan, states, now=now)
        pending = self.store.settle(hold_id, used, read=counters, now=now, entry=entry)
        try:
            settled = await (asyncio.shield(pending) if isinstance(pending, asyncio.Future) else pending)
        except asyncio.CancelledError:
            self._end_unwatched(hold_id, used, entry, pending)
            raise
        except StoreLost as error:
            shared.outage.settle_later(hold_id, used, entry=entry, error=error)
            return ()
        if not settled.won and ours and used is not None:
            await self._late_debt(reservation, used, now=now)
        return self._statuses(plan, settled.states, now=now)

    def _end_unwatched(
        self,
        hold_id: str,
        used: Sequence[int] | None,
        entry: LedgerEntry | None,
        pending: Awaitable[Settled],
    ) -> None:
        """See an end through that nobody waits for any more."""

        def ended(done: asyncio.Future[Settled]) -> None:
            error = None if done.cancelled() else done.exception()
            if isinstance(error, StoreLost):
                self._shared.outage.settle_later(hold_id, used, entry=entry, error=error)

        asyncio.ensure_future(pending).add_done_callback(ended)

    async def _late_debt(self, reservation: Reservation, used: Sequence[int], *, now: float) -> None:
        """Somebody else ended the hold first. A sweep charged what was held: what was used beyond is still owed. Given
        back by hand, all that was used is."""
        debts = reservations.debts(reservation, used)
        held, batch = reservations.within_hold(reservation, used), reservations.charged_batch(reservation.id)
        try:
            await self.store.charge(held, batch=batch, now=now)
            await self.store.charge(debts, batch=f"debt-{reservation.id}", now=now)
        except StoreLost as error:
            self._shared.outage.owe(debts, error=error)

    async def _catch_up(self, *, now: float) -> None:
        if self._shared.outage.behind:
            async with self._shared.catching_up:
                await self._shared.outage.catch_up(self.store, now=now)

    def _statuses(self, plan: Plan, states: Sequence[State], *, now: float) -> tuple[BudgetStatus, ...]:
        return answers.statuses(plan, states, resets=plan.resets(self.calendar, now)) if states else ()
