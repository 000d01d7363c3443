"""The dashboard's figures as JSON, made of what was read from the store and of what one page looks at."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from gateway.describing import key_status
from gateway.endpoints.budgets import describe
from gateway.endpoints.health import VERSION
from gateway.owners import dead_owners, place_of
from gateway.refusals import write_time
from gateway.runtime import Runtime
from policies.activity import Activity, Scope, Sums, summarize
from policies.ledger import LedgerEntry
from policies.matching import concerns
from policies.model import BudgetStatus
from policies.operating import OpenHold

RANGES = {"15m": 900.0, "1h": 3600.0, "6h": 21_600.0, "24h": 86_400.0, "7d": 604_800.0}

FEW_BUDGETS, MOST_BUDGETS = 12, 100
MOST_WORKERS = 24
NEAR = 0.8
"""So much of a limit used and held is nearly all of it."""
MOST_CHOICES = 50

LATE_S = 20.0
"""Workers give a sign of life every five seconds or less; one that misses several is not well."""


@dataclass(frozen=True, slots=True)
class Lens:
    """Which requests one page looks at."""

    span: str = "1h"
    key: str = ""
    model: str = ""
    tag: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """What one page looks at; everything in it stands in the page's address."""

    lens: Lens = Lens()
    find: str = ""
    """Part of the names of the budgets wanted."""
    all_budgets: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """What happened in a lens. The lines that are known begin at `covered_since`, or earlier."""

    scope: Scope
    covered_since: float
    activity: Activity

    @classmethod
    def nothing(cls) -> Seen:
        """Before anything was read."""
        scope = Scope(0.0, 0.0)
        return cls(scope, 0.0, summarize((), scope))


@dataclass(frozen=True, slots=True)
class Readings:
    """What was read: what happened, every live counter, open holds, signs of life, and the counters of the view's key.
    `age_s` is how long ago, None for never."""

    seen: Seen
    counters: Sequence[BudgetStatus]
    holds: Sequence[OpenHold]
    owners: Mapping[str, float]
    own: Sequence[BudgetStatus] | None
    lost: str
    late: bool
    age_s: float | None


def seen(lines: Sequence[LedgerEntry], lens: Lens, *, complete: bool, now: float) -> Seen:
    """What happened in a lens; `complete` says that no line is older than these. Takes a while: not to be called on the
    event loop."""
    scope = Scope(now - RANGES[lens.span], now, key_id=lens.key, model=lens.model, tag=lens.tag)
    return Seen(scope, scope.since if complete else max(scope.since, lines[0].at), summarize(lines, scope))


def compose(runtime: Runtime, read: Readings, view: View, now: float) -> bytes:
    """Everything a page shows. Takes a while on a full store: not to be called on the event loop."""
    what = read.seen
    shown = sorted(_of_view(runtime, read, view), key=_urgency)
    most = MOST_BUDGETS if view.all_budgets else FEW_BUDGETS
    return orjson.dumps(
        {
            "now": now,
            "age_s": read.age_s,
            "zone": runtime.policy.time_zone,
            "since": what.scope.since,
            "until": what.scope.until,
            "covered_since": what.covered_since,
            "health": _health(runtime, read),
            "workers": _workers(runtime, read, now),
            "key": _key(runtime, view.lens.key, now),
            "budgets": describe(shown[:most]),
            "budget_count": len(shown),
            "budget_levels": _levels(shown),
            "budget_most": MOST_BUDGETS,
            "configured_budgets": len(runtime.policy.budgets),
            **_activity(what.activity),
        }
    )


def choices(runtime: Runtime, lines: Iterable[LedgerEntry], of: str, text: str) -> list[str]:
    """Names to filter by that contain a text, those that begin with it first."""
    found: set[str]
    if of == "key":
        found = {each.id for each in runtime.policy.keys} | {each.key_id for each in lines}
    elif of == "tag":
        found = {f"{name}:{value}" for each in runtime.policy.keys for name, value in each.tags.items()}
        found |= {f"{name}:{value}" for each in lines for name, value in each.tags.items()}
    else:
        found = {each.model for each in lines}
    wanted = text.lower()
    names = [name for name in found if name and wanted in name.lower()]
    return sorted(names, key=lambda name: (not name.lower().startswith(wanted), name))[:MOST_CHOICES]


def _fullness(each: BudgetStatus) -> float:
    return (each.used + each.held) / max(1, each.limit + each.granted)


def _urgency(each: BudgetStatus) -> tuple[bool, float, str, str]:
    """What refuses comes before what only watches, the fullest first."""
    return each.mode == "shadow", -_fullness(each), each.budget, each.scope


def _levels(shown: Iterable[BudgetStatus]) -> dict[str, int]:
    enforced = [each for each in shown if each.mode == "enforce"]
    return {
        "spent": sum(not each.remaining for each in enforced),
        "near": sum(each.remaining > 0 and _fullness(each) >= NEAR for each in enforced),
    }


def _of_view(runtime: Runtime, read: Readings, view: View) -> list[BudgetStatus]:
    """The counters that meet what the view looks at; for one key also those that are still empty."""
    lens = view.lens
    tag, _, value = lens.tag.partition(":")
    found = list(read.counters) if read.own is None else list(read.own)
    if lens.key and read.own is None:
        found = [each for each in found if each.scope in (f"key={lens.key}", "all")]
    elif lens.tag and not lens.key:
        scopes = {"all", lens.tag.replace(":", "=", 1)}
        scopes |= {f"key={each.id}" for each in runtime.policy.keys if each.tags.get(tag) == value}
        found = [each for each in found if each.scope in scopes]
    if lens.tag or lens.model:
        meeting = {
            each.name for each in runtime.policy.budgets if concerns(each, tag=tag, value=value, model=lens.model)
        }
        found = [each for each in found if each.budget in meeting]
    if lens.model:
        by_model = {each.name for each in runtime.policy.budgets if each.each == "model"}
        found = [each for each in found if each.budget not in by_model or each.scope == f"model={lens.model}"]
    wanted = view.find.lower()
    return [each for each in found if wanted in f"{each.budget} {each.scope}".lower()]


def _health(runtime: Runtime, read: Readings) -> dict[str, Any]:
    reloader = runtime.reloader
    return {
        "version": VERSION,
        "started_at": runtime.started_at,
        "store": {
            "kind": runtime.settings.store.url.partition(":")[0],
            "lost": read.lost,
            "late": read.late,
            "on_error": runtime.settings.store.on_error,
        },
        "config": {
            "file": str(runtime.settings.source) if runtime.settings.source is not None else None,
            "problems": [str(problem) for problem in (reloader.problems if reloader is not None else ())],
        },
    }


def _workers(runtime: Runtime, read: Readings, now: float) -> dict[str, Any]:
    """Whoever gave a sign of life within the hold timeout: after that, nothing of theirs is waited for."""
    me, timeout_s = runtime.engine.owner, runtime.engine.hold_timeout_s
    now = runtime.engine.store.aligned(now)
    dead = dead_owners(read.owners, me=me)
    held: dict[str, int] = {}
    for hold in read.holds:
        held[hold.owner] = held.get(hold.owner, 0) + 1
    found = []
    for owner, beat_at in read.owners.items():
        seen_s = max(0.0, now - beat_at)
        if seen_s <= timeout_s:
            host, pid = place_of(owner)
            state = "gone" if owner in dead else "late" if seen_s > LATE_S else "alive"
            asked = owner == me
            found.append(
                {
                    "host": host,
                    "pid": pid,
                    "state": state,
                    "asked": asked,
                    "seen_s": seen_s,
                    "holds": held.get(owner, 0),
                }
            )
    found.sort(key=lambda each: (each["state"] == "alive", each["host"], each["pid"]))
    alive = [each for each in found if each["state"] == "alive"]
    here = place_of(me)[0]
    return {
        "alive": len(alive),
        "alive_here": sum(each["host"] == here for each in alive),
        "expected_here": runtime.settings.server.workers or os.cpu_count() or 1,
        "host": here,
        "listed": found[:MOST_WORKERS],
        "count": len(found),
        "holds": len(read.holds),
        "detached": held.get("", 0),
        "oldest_hold_s": max((hold.age_s for hold in read.holds), default=None),
    }


def _key(runtime: Runtime, key_id: str, now: float) -> dict[str, Any] | None:
    found = next((each for each in runtime.policy.keys if each.id == key_id), None)
    if found is None:
        return None
    return {
        "id": found.id,
        "status": key_status(found, now=now),
        "tags": dict(found.tags),
        "expires": write_time(found.expires),
    }


def _activity(seen: Activity) -> dict[str, Any]:
    return {
        "total": _sums(seen.total),
        "keys": [_sums(each) for each in seen.keys],
        "key_count": seen.key_count,
        "models": [_sums(each) for each in seen.models],
        "model_count": seen.model_count,
        "refusals": [asdict(each) for each in seen.refusals],
        "counted": [asdict(each) for each in seen.counted],
        "upstreams": [asdict(each) for each in seen.upstreams],
        "latest": [
            {
                "id": each.request_id,
                "at": each.at,
                "key": each.key_id,
                "model": each.model,
                "upstream": each.upstream,
                "outcome": each.outcome,
                "input": each.input_tokens,
                "output": each.output_tokens,
                "counted": each.counted_tokens,
                "refused_by": each.refused_by,
                "refused_for": each.refused_for,
                "refused_limit": each.refused_limit,
                "seconds": each.latency_s,
            }
            for each in seen.latest
        ],
    }


def _sums(each: Sums) -> dict[str, Any]:
    return {
        "name": each.name,
        "requests": each.requests,
        "refused": each.refused,
        "failed": each.failed,
        "input": each.input_tokens,
        "output": each.output_tokens,
        "tokens": each.tokens,
        "last_at": each.last_at,
        "series": each.series,
    }
