"""``/admin/usage`` and ``/admin/drift``: what was used, and what bills have taught about counting."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, StrictStr

from gateway.audit import audit
from gateway.describing import describe_usage, total_usage
from gateway.endpoints.answers import answer, read_as, read_json
from gateway.errors import BadRequest
from gateway.moments import read_moment
from gateway.operator_notes import forget
from gateway.refusals import write_time
from gateway.runtime import RUNTIME, Runtime
from policies import ledger
from policies.windows import time_zone
from tokenizers_offline.learning import Observed

USAGE_SINCE = "7d"
MOST_GROUPS = 4


class ForgetRequest(BaseModel):
    """What to forget: all of an upstream, of a model, of one at the other, or everything."""

    model_config = ConfigDict(extra="forbid")

    upstream: StrictStr = ""
    model: StrictStr = ""


async def usage(request: web.Request) -> web.Response:
    """Sums over the ledger. ``by`` names what to group by (key, model, upstream, outcome, hour, day, month, any tag),
    ``since`` and ``until`` are moments or durations ago, ``key`` and ``model`` narrow it."""
    runtime = request.app[RUNTIME].current
    query = request.query
    by = [name for name in query.get("by", "key").split(",") if name]
    if not by or len(by) > MOST_GROUPS:
        raise BadRequest(f"'by' names 1 to {MOST_GROUPS} of key, model, upstream, day, ... .", param="by")
    since = _moment(runtime, query.get("since", USAGE_SINCE), field="since")
    until = _moment(runtime, query["until"], field="until") if "until" in query else None
    entries = runtime.engine.store.entries(since=since, until=until, key_id=query.get("key"), model=query.get("model"))
    rows = await ledger.usage(entries, by=by, zone=time_zone(runtime.policy.time_zone))
    return answer(
        {
            "object": "list",
            "by": by,
            "since": write_time(since),
            "until": write_time(until),
            "data": describe_usage(rows, by=by),
            "total": describe_usage([total_usage(rows)], by=())[0],
        }
    )


async def drift(request: web.Request) -> web.Response:
    """What bills have taught this worker: per upstream, model and features, and the correction in use."""
    runtime = request.app[RUNTIME].current
    seen = runtime.counting.learner.observed(request.query.get("model"))
    return answer({"object": "list", "data": [describe_drift(each) for each in seen]})


async def reset_drift(request: web.Request) -> web.Response:
    """Forget what bills taught, in every worker and after every restart; what was charged stays."""
    runtime = request.app[RUNTIME].current
    asked = read_as(ForgetRequest, await read_json(request) if request.body_exists else {})
    gone = [
        describe_drift(each)
        for each in runtime.counting.learner.observed(asked.model or None)
        if asked.upstream in ("", each.situation.upstream)
    ]
    await forget(runtime.engine.store, upstream=asked.upstream, model=asked.model, now=runtime.clock())
    await runtime.notes.look()
    audit(
        request,
        "drift_reset",
        upstream=asked.upstream,
        model=asked.model,
        before={"situations": len(gone), "learned": [each["learned"] for each in gone if each["learned"]]},
        after={"situations": 0, "learned": []},
    )
    return answer({"forgotten": len(gone), "data": gone})


def describe_drift(seen: Observed) -> dict[str, Any]:
    """One situation's record as JSON."""
    correction = seen.correction
    return {
        "upstream": seen.situation.upstream,
        "model": seen.situation.model,
        "features": list(seen.situation.features),
        "n": seen.n,
        "exact_share": round(seen.exact_share, 4),
        "mean_drift": round(seen.mean_drift, 2),
        "learned": None
        if correction is None
        else {
            "kind": correction.kind,
            "factor": round(correction.factor, 4),
            "tokens": correction.constant,
            "spread": correction.spread,
        },
    }


def _moment(runtime: Runtime, text: str, *, field: str) -> float:
    try:
        return read_moment(text, now=runtime.clock(), zone=time_zone(runtime.policy.time_zone))
    except ValueError as error:
        raise BadRequest(f"'{field}': {error}.", param=field, code="invalid_value") from None
