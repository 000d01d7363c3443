"""The contract every budget store fulfils: counters that are held, settled and read, all or nothing.

A counter is a *series* (budget, scope, unit and period: never the limit's amount) and a *slot* in it (where its
window starts). A calendar window is one slot; a sliding window is the sum of its latest slots.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

from policies.ledger import LedgerEntry
from policies.model import AMOUNT_MOST, MICRO

SLOTS_AHEAD = 5
"""A request that waited for the store meets slots that later ones have filled by then, and shares a window with them:
so many are counted beyond its own. For the shortest window they cover SQLite's wait for its lock (5 s)."""


class Counter(NamedTuple):
    """Where one limit counts right now. Slots from `since` to `slot`, `step` seconds apart, and `SLOTS_AHEAD` more
    make up the window; `step` is 0 for a calendar window. `expires_at` (Unix time, 0: never) is when the slot may be
    dropped."""

    series: str
    slot: int
    since: int
    step: int
    expires_at: float

    @property
    def name(self) -> str:
        """The counter's name in holds, logs and reports."""
        return f"{self.series}@{self.slot}"


class Stretch(IntEnum):
    """What may happen to an ask that does not fit."""

    RIGID = 0
    """It is refused."""
    SHRINK = 1
    """It holds what is left, at least one output token per answer (``learned``)."""
    CLAMP = 2
    """The whole request's output is lowered to what is left, and is then capped at it (``clamp``)."""


class Ask(NamedTuple):
    """One line of a reservation: hold `base` plus `per_output` millionths for each of up to `most` output tokens of
    one answer, as long as used + held stays within `ceiling` (-1: shadow, never refused)."""

    counter: Counter
    ceiling: int
    base: int
    per_output: int
    most: int
    stretch: Stretch

    @property
    def wanted(self) -> int:
        """The amount held when nothing stands in the way."""
        return weighed(self.base, self.per_output, self.most)

    @property
    def least(self) -> int:
        """The smallest amount that admits the request."""
        return self.wanted if self.stretch == Stretch.RIGID else weighed(self.base, self.per_output, min(1, self.most))


class Order(NamedTuple):
    """A reservation to be made. `output` is the output wanted for one answer of `choices`; `memo` is the engine's
    own note, kept with the hold and handed back as it is."""

    id: str
    owner: str
    asks: tuple[Ask, ...]
    input_tokens: int
    output: int
    choices: int
    memo: bytes

    def output_held(self, output: int) -> int:
        """Return the output held for the whole request, given what one answer holds."""
        return min(output * self.choices, AMOUNT_MOST)


class State(NamedTuple):
    """A counter as it stands."""

    used: int
    held: int


NOTHING = State(0, 0)


class Granted(NamedTuple):
    """The hold is made: `amounts` and `states` (after it) follow the order's asks, `output` is what one answer may
    have under the tightest ask, and `cap` what a clamp leaves it (== the order's output where none clamped)."""

    amounts: tuple[int, ...]
    output: int
    cap: int
    states: tuple[State, ...]


class Denied(NamedTuple):
    """Nothing was changed. `refusing` are indices of asks that do not fit; `slots` maps each of those on a sliding
    window to its slots as (start, used + held), oldest first."""

    refusing: tuple[int, ...]
    states: tuple[State, ...]
    slots: dict[int, tuple[tuple[int, int], ...]]


class Settled(NamedTuple):
    """`won` is False when the hold had already ended, and nothing was changed."""

    won: bool
    states: tuple[State, ...]


class HeldLine(NamedTuple):
    """One counter's part of a hold."""

    series: str
    slot: int
    amount: int
    expires_at: float


class Hold(NamedTuple):
    """A reservation as the store keeps it. `beat_at` is the owner's last sign of life (0: none ever)."""

    id: str
    owner: str
    held_at: float
    input_tokens: int
    output_tokens: int
    choices: int
    memo: bytes
    lines: tuple[HeldLine, ...]
    beat_at: float = 0.0


class Row(NamedTuple):
    """A counter with its name, for reports."""

    series: str
    slot: int
    used: int
    held: int
    expires_at: float


class Note(NamedTuple):
    """Something operators changed at run time, kept by kind and name. Every write takes the store's next revision."""

    kind: str
    name: str
    revision: int
    body: bytes


class BudgetStore(Protocol):
    """Keeps counters, holds and the ledger. Every method raises `StoreLost` when the store cannot be reached.

    `reserve` and `settle` take effect in the order they are called by one process, even if the caller stops
    waiting for them: they return awaitables that are already under way.
    """

    name: str

    def aligned(self, now: float) -> float:
        """Turn this process's clock into the store's, where the store has one that replicas share."""
        ...

    def reserve(self, order: Order, *, now: float) -> Awaitable[Granted | Denied]:
        """Hold every ask or none, in one atomic step across processes, and journal the hold with its owner."""
        ...

    def settle(
        self,
        hold_id: str,
        used: Sequence[int] | None,
        *,
        read: Sequence[Counter],
        now: float,
        entry: LedgerEntry | None = None,
    ) -> Awaitable[Settled]:
        """End a hold: release its amounts and charge `used` (one figure a line; None charges nothing) to the very
        counters that were held. Only the first call wins; only then `entry` is recorded, in the same step."""
        ...

    def charge(self, lines: Sequence[HeldLine], *, batch: str, now: float) -> Awaitable[None]:
        """Add amounts to `used` without a hold. A `batch` already charged changes nothing."""
        ...

    async def read(self, counters: Sequence[Counter], *, now: float) -> tuple[State, ...]: ...

    async def beat(self, owner: str, *, now: float) -> None:
        """Note that an owner lives."""
        ...

    async def leave(self, owner: str) -> None:
        """Forget an owner that has come to its end in good order."""
        ...

    async def owners(self) -> dict[str, float]:
        """Return the owners that have not left, with when each last gave a sign of life."""
        ...

    async def holds(self, *, hold_id: str | None = None) -> list[Hold]:
        """Return open holds, all or the one asked for."""
        ...

    async def counters(self, *, series_prefix: str = "") -> list[Row]:
        """Return the counters kept whose series begins so, for reports."""
        ...

    async def reset(self, series_prefix: str) -> int:
        """Set `used` of matching counters to 0 and return how many there were. A prefix ending in ``|`` matches
        every series below it, otherwise one series exactly."""
        ...

    def record(self, entry: LedgerEntry) -> None:
        """Take a ledger line without waiting; it is written before `close` returns."""
        ...

    def entries(
        self, *, since: float = 0.0, until: float | None = None, key_id: str | None = None, model: str | None = None
    ) -> AsyncIterator[LedgerEntry]:
        """Yield ledger lines, oldest first."""
        ...

    async def recent_outputs(self, key_id: str, model: str, *, limit: int) -> list[int]:
        """Return the output tokens of one answer each of a key's latest finished requests to a model, newest first."""
        ...

    async def latest(self, *, limit: int) -> list[LedgerEntry]:
        """Return the latest ledger lines, oldest first."""
        ...

    async def notes(self, *, after: int = 0) -> list[Note]:
        """Return the notes written after a revision, in order; cheap when there are none."""
        ...

    async def write_note(self, kind: str, name: str, body: bytes, *, replacing: int) -> int | None:
        """Keep a note if the one of that name is still at revision `replacing` (0: there is none yet). Return its
        new revision, None when somebody else was faster and nothing was changed."""
        ...

    async def prune(self, *, now: float, ledger_before: float | None) -> None:
        """Drop counters that have expired and ledger lines from before a moment."""
        ...

    async def ping(self) -> None:
        """Prove that the store can be reached and written."""
        ...

    async def close(self) -> None:
        """Write what is waiting and let go of the store."""
        ...


def weighed(base: int, per_output: int, output: int) -> int:
    """Return an ask's amount for so many output tokens of one answer, rounded up."""
    return base + -(-per_output * output // MICRO)


def grant(asks: Sequence[Ask], states: Sequence[State], *, output: int) -> tuple[tuple[int, ...], int, int] | list[int]:
    """Decide an order against its counters: (amounts, output, cap), or the indices of the asks that do not fit.

    ``reserve.lua`` says the same in the server's words; the contract suite holds both to it.
    """
    refusing: set[int] = set()
    cap = output
    for index, ask in enumerate(asks):
        if not ask.per_output or ask.stretch != Stretch.CLAMP or ask.ceiling < 0:
            continue
        state = states[index]
        room = ask.ceiling - state.used - state.held - ask.base
        if room < ask.wanted - ask.base:
            fits = room * MICRO // ask.per_output
            if fits < 1:
                refusing.add(index)
            else:
                cap = min(cap, fits)
    amounts: list[int] = []
    least_output = cap
    for index, (_, ceiling, base, per_output, most, stretch) in enumerate(asks):
        amount = base if not per_output else weighed(base, per_output, min(cap, most))
        if ceiling >= 0:
            used, held = states[index]
            room = ceiling - used - held
            if amount > room and index not in refusing:
                if stretch == Stretch.SHRINK and room >= weighed(base, per_output, 1) and per_output:
                    amount = room
                    least_output = min(least_output, (room - base) * MICRO // per_output)
                else:
                    refusing.add(index)
        amounts.append(amount)
    if refusing:
        return sorted(refusing)
    return tuple(amounts), least_output, cap
