"""The engine against a plain model of its laws, through whatever order of events hypothesis finds.

CI plays a small number of games; ``TOLLGATE_LAW_EXAMPLES`` and ``TOLLGATE_LAW_STEPS`` scale them up.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from policies.engine import BudgetEngine
from policies.model import Budget, Decision, Estimate, Limit, Reservation, Subject
from policies.policy import Policy
from policies.stores.memory import MemoryStore
from policies.usage import Usage
from policies.windows import time_zone, window
from tests.policies.conftest import NOON

EXAMPLES = int(os.environ.get("TOLLGATE_LAW_EXAMPLES", "25"))
STEPS = int(os.environ.get("TOLLGATE_LAW_STEPS", "40"))
TIMEOUT = 60.0
ZONE = "America/St_Johns"
SUBJECTS = [Subject(key, {"team": team}, "m", "u") for key, team in (("a", "x"), ("b", "x"), ("c", "y"))]
WHO = st.sampled_from(SUBJECTS)
# Small figures meet their limits often, and to the token.
TOKENS = st.integers(0, 4)
OWNERS = ("one", "two")


@dataclass(eq=False)
class Open:
    """A reservation as the model sees it: what it took, of which windows."""

    reservation: Reservation
    owner: str
    taken: dict[tuple[Any, ...], int]
    made_at: float


def policy_of(minute: int, day: int, team: int) -> Policy:
    return Policy(
        budgets=(
            Budget("key", (Limit("tokens", minute, "minute"), Limit("requests", 6, "hour")), each="key"),
            Budget("team", (Limit("tokens", team, "hour"),), each="team"),
            Budget("all", (Limit("tokens", day, "day"), Limit("concurrent", 3, "total"))),
            Budget("watch", (Limit("tokens", 1, "minute"),), mode="shadow"),
        ),
        time_zone=ZONE,
        output_hold_floor=3,
    )


class BudgetLaws(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = NOON
        self.amounts = (10, 60, 25)
        self.store = MemoryStore()
        policy = policy_of(*self.amounts)
        self.engines = {
            owner: BudgetEngine(policy, self.store, owner=owner, hold_timeout_s=TIMEOUT) for owner in OWNERS
        }
        self.used: dict[tuple[Any, ...], int] = defaultdict(int)
        self.held: dict[tuple[Any, ...], int] = defaultdict(int)
        self.open: list[Open] = []
        self.ended: list[Reservation] = []
        self.late: dict[str, Open] = {}
        self.beats = dict.fromkeys(OWNERS, float("-inf"))

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    def windows(self, subject: Subject) -> list[tuple[tuple[Any, ...], str, int | None]]:
        """Where the model counts now: (counter, unit, limit or None for shadow)."""
        minute, day, team = self.amounts

        def start(period: Any) -> float:
            return window(period, self.now, zone=time_zone(ZONE)).start

        return [
            (("key", subject.key_id, "tokens", start("minute")), "tokens", minute),
            (("key", subject.key_id, "requests", start("hour")), "requests", 6),
            (("team", subject.tags["team"], start("hour")), "tokens", team),
            (("all", "tokens", start("day")), "tokens", day),
            (("all", "concurrent"), "concurrent", 3),
            (("watch", start("minute")), "tokens", None),
        ]

    @rule(owner=st.sampled_from(OWNERS), subject=WHO, input_tokens=TOKENS, cap=st.one_of(st.none(), TOKENS))
    def reserve(self, owner: str, subject: Subject, input_tokens: int, cap: int | None) -> None:
        decision: Decision = self.run(self.engines[owner].reserve(subject, Estimate(input_tokens, cap), now=self.now))
        places = self.windows(subject)
        fixed = {"tokens": input_tokens + (cap if cap is not None else 1), "requests": 1, "concurrent": 1}
        fits = all(
            limit is None or self.used[place] + self.held[place] + fixed[unit] <= limit for place, unit, limit in places
        )
        assert decision.allowed == fits
        if not decision.allowed:
            assert decision.reservation is None
            assert decision.refusal is not None
            return
        assert decision.reservation is not None
        taken = {}
        for (place, unit, limit), charge in zip(places, decision.reservation.charges, strict=True):
            assert charge.amount >= fixed[unit]
            if unit != "tokens" or cap is not None:
                assert charge.amount == fixed[unit]
            taken[place] = charge.amount
            self.held[place] += charge.amount
            assert limit is None or self.used[place] + self.held[place] <= limit, "overspent at admission"
        self.open.append(Open(decision.reservation, owner, taken, self.now))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), input_tokens=TOKENS, output_tokens=st.integers(0, 9))
    def settle(self, data: st.DataObject, input_tokens: int, output_tokens: int) -> None:
        one = data.draw(st.sampled_from(self.open))
        self.run(self.engines[one.owner].settle(one.reservation, Usage(input_tokens, output_tokens), now=self.now))
        for place, amount in one.taken.items():
            self.held[place] -= amount
            self.used[place] += {"requests": 1, "concurrent": 0}.get(self.unit(place), input_tokens + output_tokens)
        self.end(one)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.open))
        self.run(self.engines[one.owner].release(one.reservation, now=self.now))
        for place, amount in one.taken.items():
            self.held[place] -= amount
        self.end(one)

    @precondition(lambda self: self.ended)
    @rule(data=st.data(), owner=st.sampled_from(OWNERS), tokens=TOKENS, settles=st.booleans())
    def end_again(self, data: st.DataObject, owner: str, tokens: int, settles: bool) -> None:
        again = data.draw(st.sampled_from(self.ended))
        if settles:
            self.run(self.engines[owner].settle(again, Usage(tokens, tokens), now=self.now))
        else:
            self.run(self.engines[owner].release(again, now=self.now))
        late = self.late.get(again.id)
        if late is not None and late.owner == owner:
            # It was charged as held while its process was taken for dead: what was used beyond that is owed, once.
            del self.late[again.id]
            for place, amount in late.taken.items():
                if settles and self.unit(place) == "tokens":
                    self.used[place] += max(0, 2 * tokens - amount)

    @rule(owner=st.sampled_from(OWNERS))
    def sweep(self, owner: str) -> None:
        self.beats[owner] = self.now
        expected = {
            one.reservation.id
            for one in self.open
            if one.owner != owner and max(one.made_at, self.beats[one.owner]) <= self.now - TIMEOUT
        }
        swept = self.run(self.engines[owner].sweep(now=self.now))
        assert {reservation.id for reservation in swept} == expected
        for one in [one for one in self.open if one.reservation.id in expected]:
            for place, amount in one.taken.items():
                self.held[place] -= amount
                self.used[place] += 0 if self.unit(place) == "concurrent" else amount
            self.end(one)
            self.late[one.reservation.id] = one

    @rule(minute=st.integers(5, 12), day=st.integers(20, 60), team=st.integers(10, 30))
    def reload(self, minute: int, day: int, team: int) -> None:
        self.amounts = (minute, day, team)
        for owner, engine in self.engines.items():
            self.engines[owner] = engine.with_policy(policy_of(*self.amounts))

    @rule(seconds=st.one_of(st.integers(0, 20), st.integers(60, 300), st.integers(0, 90_000)))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(seconds=st.integers(1, 200))
    def clock_is_set_back(self, seconds: int) -> None:
        self.now -= seconds

    @invariant()
    def counters_are_what_the_model_says(self) -> None:
        for subject in SUBJECTS:
            statuses = self.run(self.engines["one"].status(subject, now=self.now))
            for status, (place, _, _) in zip(statuses, self.windows(subject), strict=True):
                assert (status.used, status.held) == (self.used[place], self.held[place]), status

    def unit(self, place: tuple[Any, ...]) -> str:
        return next((part for part in place if part in ("requests", "concurrent")), "tokens")

    def end(self, one: Open) -> None:
        self.open.remove(one)
        self.ended.append(one.reservation)

    def teardown(self) -> None:
        self.loop.close()


TestBudgetLaws = BudgetLaws.TestCase
TestBudgetLaws.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
