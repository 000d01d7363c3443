"""What operators are told of by themselves: thresholds that budgets pass, and budgets that have nothing left.

Each is told once a window by each worker: to the log, to the metrics, and to the webhook where one is configured.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import structlog

from gateway.refusals import write_time
from policies.windows import SECONDS

if TYPE_CHECKING:
    from collections.abc import Hashable

    from gateway.metrics import Metrics
    from gateway.webhook import Webhook
    from policies.model import BudgetStatus, Decision, Refusal
    from policies.policy import Policy

_log = structlog.get_logger("budgets")

REMEMBERED = 100_000
"""Counters whose latest notice is known; beyond that all are forgotten, and some are told of again."""

_CONCURRENT_S = 60
"""Nothing resets where requests at the same time are limited: told of once in so long."""

Kind = Literal["budget_warning", "budget_exhausted"]


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell. `id` is the same in every worker that tells of it. `threshold` is the share of the limit
    that was passed, 1 where nothing is left."""

    id: str
    kind: Kind
    at: float
    threshold: float
    status: BudgetStatus
    message: str

    def as_json(self) -> dict[str, object]:
        """The webhook's body; times are RFC 3339."""
        status = self.status
        return {
            "id": self.id,
            "type": self.kind.replace("_", "."),
            "timestamp": write_time(self.at),
            "data": {
                "budget": status.budget,
                "scope": status.scope,
                "unit": status.unit,
                "per": status.per,
                "mode": status.mode,
                "threshold": self.threshold,
                "limit": status.limit,
                "used": status.used,
                "held": status.held,
                "remaining": status.remaining,
                "resets_at": write_time(status.resets_at),
                "message": self.message,
            },
        }


class Notices:
    """Finds out what to tell, tells it once a window; never waits."""

    def __init__(self, metrics: Metrics, webhook: Webhook) -> None:
        self.webhook = webhook
        self._metrics = metrics
        self._told: dict[Hashable, Hashable] = {}

    def heed(self, decision: Decision, policy: Policy, *, now: float) -> None:
        """Tell what a decision shows. To be called for those with warnings or a refusal."""
        if decision.warnings:
            thresholds = {budget.name: budget.warn_at for budget in policy.budgets}
            for status in decision.statuses:
                for threshold in thresholds.get(status.budget, ()):
                    if status.limit and status.used + status.held >= threshold * status.limit:
                        self._tell("budget_warning", status, threshold, _passed(status, threshold), now=now)
        if decision.refusal is not None and decision.refusal.reason in ("window_full", "quota_spent"):
            exhausted = _refusing(decision.refusal, decision.statuses)
            if exhausted is not None:
                self._tell("budget_exhausted", exhausted, 1.0, decision.refusal.message, now=now)

    def _tell(self, kind: Kind, status: BudgetStatus, threshold: float, message: str, *, now: float) -> None:
        counter = (kind, threshold, status.budget, status.scope, status.unit, status.per, status.sliding)
        window = _window(status, now)
        if self._told.get(counter) == window:
            return
        if len(self._told) >= REMEMBERED:
            self._told.clear()
        self._told[counter] = window
        name = hashlib.sha256(repr((*counter, window)).encode()).hexdigest()[:24]
        notice = Notice("evt_" + name, kind, now, threshold, status, message)
        self._metrics.budget_notices.labels(kind, status.budget).inc()
        _log.warning(kind, id=notice.id, message=message, **_facts(status), threshold=threshold)
        self.webhook.send(notice)


def _window(status: BudgetStatus, now: float) -> Hashable:
    """What is the same as long as nothing new is to be told."""
    if status.unit == "concurrent":
        return now // _CONCURRENT_S
    return now // SECONDS[status.per] if status.sliding else status.resets_at


def _refusing(refusal: Refusal, statuses: tuple[BudgetStatus, ...]) -> BudgetStatus | None:
    """The limit that refuses; of a fixed and a sliding one over the same period, the one with less left."""
    asked = (refusal.budget, refusal.scope, refusal.unit, refusal.per)
    found = [each for each in statuses if (each.budget, each.scope, each.unit, each.per) == asked]
    return min(found, key=lambda status: status.remaining, default=None)


def _passed(status: BudgetStatus, threshold: float) -> str:
    return (
        f"Budget '{status.budget}' ({status.scope}) has passed {threshold:.0%} of its {status.limit:,} {status.unit}"
        f"{'' if status.unit == 'concurrent' else f' per {status.per}'}: {status.used + status.held:,} are taken."
    )


def _facts(status: BudgetStatus) -> dict[str, object]:
    return {
        "budget": status.budget,
        "scope": status.scope,
        "unit": status.unit,
        "per": status.per,
        "limit": status.limit,
        "used": status.used,
        "held": status.held,
    }
