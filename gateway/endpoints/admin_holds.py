"""``/admin/holds``: what is held for requests that have not ended, and giving a hold back."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from gateway.audit import audit
from gateway.describing import describe_hold
from gateway.endpoints.answers import answer, read_as, read_json
from gateway.errors import GatewayError, NotFound
from gateway.exchange import EXCHANGE
from gateway.recording import settled_entry
from gateway.runtime import RUNTIME
from policies import operating

ATTENDED_S = 30.0
"""A hold whose owner gave a sign of life within this time belongs to a request that runs: owners do so every 5 s."""


class ReleaseRequest(BaseModel):
    """`force` gives back even the hold of a request that runs; it is then charged in full when it ends."""

    model_config = ConfigDict(extra="forbid")

    force: bool = False


async def list_holds(request: web.Request) -> web.Response:
    """Every open hold of every worker, oldest first."""
    runtime = request.app[RUNTIME].current
    holds = await operating.open_holds(runtime.engine, now=runtime.clock())
    return answer({"object": "list", "data": [describe_hold(hold) for hold in holds]})


async def release(request: web.Request) -> web.Response:
    """Give a hold back."""
    runtime = request.app[RUNTIME].current
    asked = read_as(ReleaseRequest, await read_json(request) if request.body_exists else {})
    hold_id = request.match_info["id"]
    now = runtime.clock()
    hold = await operating.find_hold(runtime.engine, hold_id, now=now)
    if hold is None:
        raise _not_open(hold_id)
    attended = hold.owner and hold.owner_seen_s is not None and hold.owner_seen_s <= ATTENDED_S
    if attended and not asked.force:
        raise GatewayError(
            f"The hold '{hold_id}' belongs to a request that is running (worker {hold.owner}): it ends with it. "
            'Send {"force": true} to give it back now; the request is then charged in full when it ends.',
            status=409,
            type="invalid_request_error",
            code="hold_in_use",
        )
    entry = settled_entry(hold.reservation, None, request_id=request[EXCHANGE].id, now=now)
    if not await operating.release(runtime.engine, hold, now=now, entry=entry):
        raise _not_open(hold_id)
    audit(request, "hold_released", hold=hold_id, before=describe_hold(hold), after=None, force=asked.force)
    return answer({"id": hold_id, "released": True, "hold": describe_hold(hold)})


def _not_open(hold_id: str) -> NotFound:
    return NotFound(
        f"There is no open hold '{hold_id}': it was settled, released, abandoned, or never made.",
        param="id",
        code="hold_not_open",
    )
