"""What the dashboard shows, read from the store: asked for at most once a second however many pages are open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import orjson

from gateway.describing import key_status
from gateway.endpoints.budgets import describe
from gateway.endpoints.health import VERSION
from gateway.refusals import write_time
from gateway.runtime import Runtime, RuntimeHolder
from policies import operating
from policies.activity import Activity, Scope, Sums, summarize
from policies.ledger import LedgerEntry
from policies.model import BudgetStatus, StoreLost
from policies.operating import OpenHold

RANGES = {"15m": 900.0, "1h": 3600.0, "6h": 21_600.0, "24h": 86_400.0, "7d": 604_800.0}

LINES = 10_000
"""The latest ledger lines that are looked at: read in a tenth of a second whatever the ledger's size."""

MOST_BUDGETS = 60
PERIOD_S = 0.9
REST = 15
"""After each reading so many times its duration pass before the next, so that watching stays cheap on a full store."""
MOST_VIEWS = 32

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class View:
    """What one page looks at; everything in it stands in the page's address."""

    span: str = "1h"
    key: str = ""
    model: str = ""
    tag: str = ""


class _Kept(Generic[T]):
    """A reading that is shared while it is fresh."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._until = float("-inf")
        self._value: T | None = None

    async def get(self) -> T:
        async with self._lock:
            if self._value is None or time.monotonic() >= self._until:
                started_s = time.monotonic()
                self._value = await self._read()
                ended_s = time.monotonic()
                self._until = ended_s + max(PERIOD_S, REST * (ended_s - started_s))
            return self._value


class Figures:
    """The readings of one worker, made when somebody looks and never otherwise."""

    def __init__(self, holder: RuntimeHolder) -> None:
        self._holder = holder
        self._lines = _Kept(self._read_lines)
        self._counters = _Kept(self._read_counters)
        self._holds = _Kept(self._read_holds)
        self._views: dict[View, _Kept[bytes]] = {}

    async def of(self, view: View) -> bytes:
        """The figures of a view as JSON."""
        kept = self._views.get(view)
        if kept is None:
            if len(self._views) >= MOST_VIEWS:
                self._views.clear()
            kept = self._views[view] = _Kept(lambda: self._read(view))
        return await kept.get()

    async def _read_lines(self) -> list[LedgerEntry]:
        return await self._holder.current.engine.store.latest(limit=LINES)

    async def _read_counters(self) -> list[BudgetStatus]:
        runtime = self._holder.current
        return await operating.live_counters(runtime.engine, now=runtime.clock())

    async def _read_holds(self) -> list[OpenHold]:
        runtime = self._holder.current
        return await operating.open_holds(runtime.engine, now=runtime.clock())

    async def _read(self, view: View) -> bytes:
        runtime, lost = self._holder.current, ""
        now = runtime.clock()
        lines: list[LedgerEntry] = []
        counters: list[BudgetStatus] = []
        holds: list[OpenHold] = []
        try:
            await runtime.engine.store.ping()
            lines, counters, holds = await self._lines.get(), await self._counters.get(), await self._holds.get()
        except StoreLost as error:
            lost = str(error)
        scope = Scope(now - RANGES[view.span], now, key_id=view.key, model=view.model, tag=view.tag)
        activity = await asyncio.to_thread(summarize, lines, scope)
        shown = _of_view(runtime, counters, view)
        shown.sort(key=lambda each: -(each.used + each.held) / max(1, each.limit + each.granted))
        return orjson.dumps(
            {
                "now": now,
                "zone": runtime.policy.time_zone,
                "since": scope.since,
                "complete": len(lines) < LINES or lines[0].at <= scope.since,
                "reaches_back_to": lines[0].at if lines else None,
                "health": _health(runtime, lost),
                "workers": {"holding": len({each.owner for each in holds if each.owner}), "holds": len(holds)},
                "key": _key(runtime, view.key, now),
                "choices": _choices(runtime, lines),
                "budgets": describe(shown[:MOST_BUDGETS]),
                "more_budgets": max(0, len(shown) - MOST_BUDGETS),
                "configured_budgets": len(runtime.policy.budgets),
                **_activity(activity),
            }
        )


def _of_view(runtime: Runtime, counters: list[BudgetStatus], view: View) -> list[BudgetStatus]:
    name, _, value = view.tag.partition(":")
    scopes = {"all"}
    if view.key:
        known = next((each for each in runtime.policy.keys if each.id == view.key), None)
        scopes |= {f"key={view.key}"} | {f"{tag}={own}" for tag, own in (known.tags.items() if known else ())}
    if view.tag:
        scopes |= {f"{name}={value}"}
        scopes |= {f"key={each.id}" for each in runtime.policy.keys if each.tags.get(name) == value}
    return [each for each in counters if each.scope in scopes] if view.key or view.tag else list(counters)


def _health(runtime: Runtime, lost: str) -> dict[str, Any]:
    reloader = runtime.reloader
    return {
        "version": VERSION,
        "started_at": runtime.started_at,
        "store": {
            "kind": runtime.settings.store.url.partition(":")[0],
            "lost": lost or runtime.engine.store_error,
            "on_error": runtime.settings.store.on_error,
        },
        "config": {
            "file": str(runtime.settings.source) if runtime.settings.source is not None else None,
            "problems": [str(problem) for problem in (reloader.problems if reloader is not None else ())],
        },
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


def _choices(runtime: Runtime, lines: list[LedgerEntry]) -> dict[str, list[str]]:
    tags = {f"{name}:{value}" for each in runtime.policy.keys for name, value in each.tags.items()}
    return {
        "keys": sorted({each.id for each in runtime.policy.keys} | {each.key_id for each in lines})[:500],
        "models": sorted({each.model for each in lines if each.model})[:200],
        "tags": sorted(tags)[:200],
    }


def _activity(seen: Activity) -> dict[str, Any]:
    return {
        "total": _sums(seen.total),
        "keys": [_sums(each) for each in seen.keys],
        "models": [_sums(each) for each in seen.models],
        "refusals": [
            {"key": key, "model": model, "budget": budget, "count": count, "last_at": at}
            for key, model, budget, count, at in seen.refusals
        ],
        "counted": [
            {
                "model": each.model,
                "accuracy": each.accuracy,
                "bills": each.bills,
                "equal": each.equal,
                "drift": each.drift,
            }
            for each in seen.counted
        ],
        "upstreams": [
            {
                "name": each.upstream,
                "requests": each.requests,
                "failed": each.failed,
                "p50_s": each.p50_s,
                "p95_s": each.p95_s,
            }
            for each in seen.upstreams
        ],
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
