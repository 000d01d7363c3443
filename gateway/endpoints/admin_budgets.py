"""``/admin/budgets``: every live counter, a grant on top of one, a fresh start for one."""

from __future__ import annotations

from typing import Annotated, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StrictStr

from gateway.audit import audit
from gateway.endpoints.answers import answer, read_as, read_json
from gateway.endpoints.budgets import describe
from gateway.errors import BadRequest, NotFound
from gateway.runtime import RUNTIME, Runtime
from policies import operating
from policies.matching import Line
from policies.model import BudgetStatus, Period, Unit


class CounterRequest(BaseModel):
    """Which counter of a budget: `scope` where it counts by something, `unit` and `per` where it has several limits."""

    model_config = ConfigDict(extra="forbid")

    scope: StrictStr | None = None
    unit: Literal["tokens", "input_tokens", "output_tokens", "requests", "concurrent"] | None = None
    per: Literal["minute", "hour", "day", "week", "month", "year", "total"] | None = None
    sliding: bool | None = None


class TopUpRequest(CounterRequest):
    """How much more a counter may take in its current window (less, if negative). With an `id`, a grant counts once
    however often it is sent."""

    amount: Annotated[int, Field(strict=True)]
    id: Annotated[StrictStr, Field(min_length=1, max_length=128)] | None = None


async def list_budgets(request: web.Request) -> web.Response:
    """Every counter that holds anything in its current window; ``?budget=`` and ``?scope=`` narrow it."""
    runtime = request.app[RUNTIME].current
    budget, scope = request.query.get("budget"), request.query.get("scope")
    names = [each.name for each in runtime.policy.budgets]
    if budget is not None and budget not in names:
        raise NotFound(
            f"There is no budget '{budget}'. Configured budgets: {', '.join(names) or 'none'}.", param="budget"
        )
    found = await operating.live_counters(runtime.engine, budget=budget, scope=scope, now=runtime.clock())
    return answer({"object": "list", "data": describe(found)})


async def top_up(request: web.Request) -> web.Response:
    """Grant more on a counter for its current window."""
    runtime = request.app[RUNTIME].current
    asked = read_as(TopUpRequest, await read_json(request))
    line = _line(runtime, request, asked)
    try:
        before, after = await operating.top_up(
            runtime.engine, line, asked.amount, grant_id=asked.id, now=runtime.clock()
        )
    except ValueError as error:
        raise BadRequest(f"'amount': {error}.", param="amount", code="invalid_value") from None
    _note(request, "budget_topped_up", before, after, amount=asked.amount)
    return answer(describe([after])[0])


async def reset(request: web.Request) -> web.Response:
    """Set what was used on a counter to nothing; open holds stay."""
    runtime = request.app[RUNTIME].current
    asked = read_as(CounterRequest, await read_json(request) if request.body_exists else {})
    before, after = await operating.reset(runtime.engine, _line(runtime, request, asked), now=runtime.clock())
    _note(request, "budget_reset", before, after)
    return answer(describe([after])[0])


def _line(runtime: Runtime, request: web.Request, asked: CounterRequest) -> Line:
    unit: Unit | None = asked.unit
    per: Period | None = asked.per
    try:
        return operating.find_line(
            runtime.engine, request.match_info["name"], scope=asked.scope, unit=unit, per=per, sliding=asked.sliding
        )
    except operating.NoSuchCounter as error:
        raise NotFound(str(error), code="counter_not_found") from None


def _note(request: web.Request, action: str, before: BudgetStatus, after: BudgetStatus, **more: object) -> None:
    audit(
        request,
        action,
        budget=after.budget,
        scope=after.scope,
        unit=after.unit,
        per=after.per,
        before={"used": before.used, "granted": before.granted, "remaining": before.remaining},
        after={"used": after.used, "granted": after.granted, "remaining": after.remaining},
        **more,
    )
