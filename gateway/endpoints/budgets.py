"""A caller's own budgets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from gateway.callers import credential_anywhere, key_of
from gateway.endpoints.answers import answer
from gateway.exchange import EXCHANGE
from gateway.refusals import error_for_store, write_time
from gateway.runtime import RUNTIME
from policies.model import BudgetStatus, StoreLost


async def budgets(request: web.Request) -> web.Response:
    """Limit, used, held, remaining and reset of every budget that concerns the caller's key."""
    runtime = request.app[RUNTIME].current
    key = key_of(runtime, credential_anywhere(request.headers, request.query))
    request[EXCHANGE].key = key
    try:
        statuses = await runtime.engine.status(key, now=runtime.clock())
    except StoreLost as lost:
        raise error_for_store(lost) from None
    return answer({"object": "list", "key_id": key.id, "data": describe(statuses)})


def describe(statuses: Iterable[BudgetStatus]) -> list[dict[str, Any]]:
    """Budgets as JSON; `resets_at` is RFC 3339, null where nothing resets."""
    return [
        {
            "budget": status.budget,
            "scope": status.scope,
            "unit": status.unit,
            "per": status.per,
            "sliding": status.sliding,
            "mode": status.mode,
            "limit": status.limit,
            "used": status.used,
            "held": status.held,
            "granted": status.granted,
            "remaining": status.remaining,
            "over": status.over,
            "resets_at": write_time(status.resets_at),
        }
        for status in statuses
    ]
