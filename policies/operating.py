"""What operators do to budgets while they run: look at every counter, grant more, start anew, end a hold."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from policies import reservations
from policies.ledger import LedgerEntry
from policies.matching import Line, Plan, series_prefix
from policies.model import AMOUNT_MOST, Budget, BudgetStatus, Limit, Period, Rates, Reservation, Unit
from policies.stores.base import Counter, HeldLine, Hold, Row, State
from policies.stores.book import Book
from policies.windows import Calendar

if TYPE_CHECKING:
    from policies.engine import BudgetEngine

GRANTED = "|granted"
"""Ends the series that remembers what was granted on the counter of the same name."""


class NoSuchCounter(Exception):
    """No budget, scope or limit goes by that name; the message says which there are."""


@dataclass(frozen=True, slots=True)
class OpenHold:
    """A hold that has not ended. `age_s` is since it was made; `owner` "" is a detached admission's."""

    reservation: Reservation
    owner: str
    age_s: float
    owner_seen_s: float | None
    """Seconds since the owner's last sign of life, None for none ever."""


def granted_series(counter: Counter) -> Counter:
    """Return where the grants on a counter are remembered."""
    return counter._replace(series=counter.series + GRANTED)


async def live_counters(
    engine: BudgetEngine, *, budget: str | None = None, scope: str | None = None, now: float
) -> list[BudgetStatus]:
    """Return how every counter stands that holds anything in its current window, and every shared one; with a `scope`,
    those of that scope whatever they hold.

    `used` is what requests used, and `limit` what the policy says: what was granted on top stands in `granted`.
    """
    rows = await engine.store.counters(series_prefix=series_prefix(budget) if budget is not None else "")
    budgets = [each for each in engine.policy.budgets if budget is None or each.name == budget]
    # Off the loop: with a counter for each of ten thousand keys it takes longer than a request should wait.
    return await asyncio.to_thread(
        _live, rows, budgets, scope, Calendar(engine.policy.time_zone), engine.store.aligned(now)
    )


async def top_up(
    engine: BudgetEngine, line: Line, amount: int, *, grant_id: str | None = None, now: float
) -> tuple[BudgetStatus, BudgetStatus]:
    """Grant `amount` more (less, if negative) on a counter for its current window; return it before and after.

    A grant with a `grant_id` counts once, however often it is asked for.
    """
    if not 0 < abs(amount) <= AMOUNT_MOST:
        raise ValueError(f"a grant of {amount} is not between 1 and {AMOUNT_MOST:,} either way")
    if line.limit.unit == "concurrent":
        raise ValueError("concurrent requests are not used up, so nothing can be granted; raise the limit instead")
    before = await one_counter(engine, line, now=now)
    moment = engine.store.aligned(now)
    (counter,) = _plan([line]).counters(engine.calendar, moment)
    lines = [
        HeldLine(counter.series, counter.slot, -amount, counter.expires_at),
        HeldLine(counter.series + GRANTED, counter.slot, amount, counter.expires_at),
    ]
    await engine.store.charge(lines, batch=f"grant-{grant_id or secrets.token_hex(12)}", now=moment)
    return before, await one_counter(engine, line, now=now)


async def reset(engine: BudgetEngine, line: Line, *, now: float) -> tuple[BudgetStatus, BudgetStatus]:
    """Set what was used on a counter, and granted, to nothing; holds stay. Return it before and after."""
    before = await one_counter(engine, line, now=now)
    await engine.store.reset(line.series)
    await engine.store.reset(line.series + GRANTED)
    return before, await one_counter(engine, line, now=now)


async def standing(engine: BudgetEngine, plan: Plan, *, now: float) -> tuple[BudgetStatus, ...]:
    """Return how the counters of a plan stand, with what was granted on them."""
    if not plan.lines:
        return ()
    now = engine.store.aligned(now)
    counters, resets = plan.counters(engine.calendar, now), plan.resets(engine.calendar, now)
    states = await engine.store.read((*counters, *map(granted_series, counters)), now=now)
    return _statuses(plan, states, resets)


async def one_counter(engine: BudgetEngine, line: Line, *, now: float) -> BudgetStatus:
    """Return how one counter stands."""
    (status,) = await standing(engine, _plan([line]), now=now)
    return status


def find_line(
    engine: BudgetEngine,
    budget: str,
    *,
    scope: str | None,
    unit: Unit | None = None,
    per: Period | None = None,
    sliding: bool | None = None,
) -> Line:
    """Return the one limit that a budget's name and, where it has several, scope, unit and period mean. Raises
    `NoSuchCounter`."""
    named = next((each for each in engine.policy.budgets if each.name == budget), None)
    if named is None:
        names = ", ".join(each.name for each in engine.policy.budgets) or "none"
        raise NoSuchCounter(f"There is no budget '{budget}'. Configured budgets: {names}.")
    if scope is None and named.each:
        raise NoSuchCounter(f"Budget '{budget}' counts by {named.each}: name a scope such as '{named.each}=...'.")
    scope = scope if scope is not None else "all"
    if (named.each or "all") != scope.partition("=")[0]:
        wanted = f"{named.each}=..." if named.each else "all"
        raise NoSuchCounter(f"Budget '{budget}' has no scope '{scope}'; its scopes are '{wanted}'.")
    limits = [
        limit
        for limit in named.limits
        if unit in (None, limit.unit) and per in (None, limit.per) and sliding in (None, limit.sliding)
    ]
    if len(limits) != 1:
        among = ", ".join(_named(limit) for limit in named.limits) or "none"
        what = "No limit" if not limits else "More than one limit"
        raise NoSuchCounter(f"{what} of budget '{budget}' is meant; name unit and per. Its limits: {among}.")
    return Line(named, limits[0], scope, Rates())


async def open_holds(engine: BudgetEngine, *, now: float) -> list[OpenHold]:
    """Return every hold that has not ended, of all processes, oldest first."""
    now = engine.store.aligned(now)
    holds = await engine.store.holds()
    return [_open(hold, now) for hold in sorted(holds, key=lambda hold: hold.held_at)]


async def find_hold(engine: BudgetEngine, hold_id: str, *, now: float) -> OpenHold | None:
    """Return an open hold by its id."""
    now = engine.store.aligned(now)
    return next((_open(hold, now) for hold in await engine.store.holds(hold_id=hold_id)), None)


async def release(engine: BudgetEngine, hold: OpenHold, *, now: float, entry: LedgerEntry | None) -> bool:
    """Give a hold back; whether it was still open. Should its request end after all, it is charged in full then."""
    settled = await engine.store.settle(hold.reservation.id, None, read=(), now=engine.store.aligned(now), entry=entry)
    return settled.won


def _live(
    rows: Sequence[Row], budgets: Sequence[Budget], scope: str | None, calendar: Calendar, now: float
) -> list[BudgetStatus]:
    book = Book()
    scopes: dict[str, set[str]] = {}
    for row in rows:
        if row.used or row.held:
            book.keep(row.series, row.slot, used=row.used, held=row.held, expires_at=row.expires_at)
            named, of, _ = row.series.split("|", 2)
            scopes.setdefault(named, set()).add(of)
    found = []
    for budget in budgets:
        known = {unquote(each) for each in scopes.get(series_prefix(budget.name)[:-1], ())}
        wanted = {scope} if scope is not None else known | ({"all"} if not budget.each else set())
        plan = _plan([Line(budget, limit, one, Rates()) for one in sorted(wanted) for limit in budget.limits])
        if not plan.lines:
            continue
        counters = plan.counters(calendar, now)
        states, grants = book.states(counters), book.states(map(granted_series, counters))
        found += [
            status
            for status in _statuses(plan, (*states, *grants), plan.resets(calendar, now))
            if status.used or status.held or status.granted or status.scope == "all" or scope is not None
        ]
    return found


def _open(hold: Hold, now: float) -> OpenHold:
    seen = now - hold.beat_at if hold.beat_at else None
    return OpenHold(reservations.kept(hold), hold.owner, max(0.0, now - hold.held_at), seen)


def _statuses(plan: Plan, states: Sequence[State], resets: Sequence[float | None]) -> tuple[BudgetStatus, ...]:
    """`states` are those of the plan's counters, and then what was granted on each."""
    return tuple(
        _status(line, used=used, held=held, granted=granted, resets_at=resets_at)
        for line, (used, held), (granted, _), resets_at in zip(
            plan.lines, states, states[len(plan.lines) :], resets, strict=False
        )
    )


def _status(line: Line, *, used: int, held: int, granted: int, resets_at: float | None) -> BudgetStatus:
    limit, budget = line.limit, line.budget
    return BudgetStatus(
        budget.name,
        line.scope,
        limit.unit,
        limit.per,
        limit.amount,
        used + granted,
        held,
        resets_at,
        budget.mode,
        limit.sliding,
        granted,
    )


def _plan(lines: list[Line]) -> Plan:
    return Plan((), lines, b"")


def _named(limit: Limit) -> str:
    return f"{limit.unit} per {limit.per}{' (sliding)' if limit.sliding else ''}"
