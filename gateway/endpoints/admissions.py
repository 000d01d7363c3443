"""Admission without forwarding: hold here, call the provider yourself, settle or release afterwards."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, StrictStr

from gateway.admitting import admit_call, answer_path
from gateway.callers import credential_anywhere, key_of
from gateway.endpoints.admission_usage import FORMAT_BY_NAME, AdmissionUsage, read_usage
from gateway.endpoints.answers import answer, read_as, read_json
from gateway.endpoints.budgets import describe
from gateway.errors import BadRequest, NotFound
from gateway.exchange import EXCHANGE
from gateway.formats.fields import write_object
from gateway.recording import settled_entry
from gateway.refusals import error_for_store
from gateway.runtime import RUNTIME, Runtime
from gateway.upstream import Upstream
from policies import operating
from policies.ledger import LedgerEntry
from policies.model import Reservation, StoreLost, Subject

# What tells the formats' bodies apart when the caller does not name one.
_TELLING_FIELDS = (
    ("contents", "gemini"),
    ("input", "openai_responses"),
    ("prompt", "openai_completions"),
    ("messages", "openai_chat"),
)

REPEATS_AMONG = 500
"""An end that is told again is looked for among so many of the latest ledger lines: repeats come within seconds."""


class AdmissionRequest(BaseModel):
    """A request as it would be sent to the provider, and who asks. `key` may come in a header instead."""

    model_config = ConfigDict(extra="forbid")

    request: dict[str, Any]
    key: StrictStr | None = None
    format: StrictStr | None = None
    upstream: StrictStr | None = None


class SettleRequest(BaseModel):
    """The end of an admission. A `key`, here or in a header, must be the one that the admission was made with."""

    model_config = ConfigDict(extra="forbid")

    usage: AdmissionUsage
    key: StrictStr | None = None


async def admit(request: web.Request) -> web.Response:
    """Hold what a request would need, without forwarding it."""
    runtime = request.app[RUNTIME].current
    exchange = request[EXCHANGE]
    asked = read_as(AdmissionRequest, await read_json(request))
    exchange.key = key_of(runtime, asked.key or credential_anywhere(request.headers, request.query))
    name = asked.format or next((name for field, name in _TELLING_FIELDS if field in asked.request), "openai_chat")
    fmt = FORMAT_BY_NAME.get(name)
    if fmt is None:
        raise BadRequest(f"There is no format '{name}'. Formats: {', '.join(FORMAT_BY_NAME)}.", param="format")
    route = next(route for route in fmt.routes if route.kind != "count")
    model = asked.request.get("model")
    groups = {"model": model} if isinstance(model, str) else {}
    call = fmt.parse(route, groups, write_object(asked.request))
    exchange.take(call)
    upstream = _upstream(runtime, asked.upstream, format_name=name, model=call.model)
    granted = await admit_call(runtime, exchange, exchange.key, call, upstream)
    assert exchange.count is not None
    return answer(
        {
            "id": granted.reservation.id,
            "allowed": True,
            "input_tokens": exchange.count.input_tokens,
            "accuracy": exchange.count.accuracy,
            "held": {"input_tokens": exchange.held_input, "output_tokens": exchange.held_output},
            "output_cap": granted.output_cap,
            "expires_in_s": runtime.settings.store.hold_timeout_s,
            "answer_to": answer_path(exchange, granted, format_name=name),
            "budgets": describe(exchange.statuses),
        },
        status=201,
    )


async def settle(request: web.Request) -> web.Response:
    """Charge what the provider reported. Told again, it answers the same and charges nothing."""
    runtime = request.app[RUNTIME].current
    body = await read_json(request)
    asked = read_as(SettleRequest, body)
    usage = read_usage(body["usage"], asked.usage)
    found = await find_admission(runtime, request, key=asked.key)
    if isinstance(found, LedgerEntry):
        return await repeated(runtime, found, "settled")
    now = runtime.clock()
    entry = settled_entry(found, usage, request_id=found.id, now=now)
    statuses = await runtime.engine.settle(found, usage, now=now, entry=entry)
    return answer({"id": found.id, "settled": True, "budgets": describe(statuses)})


async def release(request: web.Request) -> web.Response:
    """Give everything back: the provider never took the request. Told again, it answers the same."""
    runtime = request.app[RUNTIME].current
    found = await find_admission(runtime, request, key=None)
    if isinstance(found, LedgerEntry):
        return await repeated(runtime, found, "released")
    now = runtime.clock()
    entry = settled_entry(found, None, request_id=found.id, now=now)
    statuses = await runtime.engine.release(found, now=now, entry=entry)
    return answer({"id": found.id, "released": True, "budgets": describe(statuses)})


async def find_admission(runtime: Runtime, request: web.Request, *, key: str | None) -> Reservation | LedgerEntry:
    """The open admission that a request is about, or the ledger's line of its end. Raises `NotFound`.

    Whoever knows the id may end it, as nobody else was told; a credential that comes along must be its owner's. The
    holds of requests that pass through here end with those, whoever asks.
    """
    admission_id = request.match_info["id"]
    credential = key or credential_anywhere(request.headers, request.query)
    caller = key_of(runtime, credential) if credential else None
    try:
        hold = await operating.find_hold(runtime.engine, admission_id, now=runtime.clock())
        if hold is not None and not hold.owner:
            if caller is None or caller.id == hold.reservation.subject.key_id:
                return hold.reservation
        elif hold is None:
            for entry in reversed(await runtime.engine.store.latest(limit=REPEATS_AMONG)):
                if entry.request_id == admission_id and (caller is None or caller.id == entry.key_id):
                    return entry
    except StoreLost as lost:
        raise error_for_store(lost) from None
    raise not_open(admission_id)


def not_open(admission_id: str) -> NotFound:
    """The error for an admission that cannot be ended (any more)."""
    return NotFound(
        f"There is no open admission '{admission_id}' of this caller: it was settled, released, abandoned, or never "
        "made.",
        param="id",
        code="admission_not_open",
    )


async def repeated(runtime: Runtime, entry: LedgerEntry, ending: str) -> web.Response:
    """The answer to an end that is told again; the other end, or one too late, is an error."""
    ended = {"ok": "settled", "cut": "settled", "released": "released"}.get(entry.outcome)
    if ended != ending:
        raise not_open(entry.request_id)
    subject = Subject(entry.key_id, entry.tags, entry.model, entry.upstream)
    try:
        statuses = await runtime.engine.status(subject, now=runtime.clock())
    except StoreLost as lost:
        raise error_for_store(lost) from None
    return answer({"id": entry.request_id, ending: True, "budgets": describe(statuses)})


def _upstream(runtime: Runtime, name: str | None, *, format_name: str, model: str) -> Upstream:
    if name is None:
        return runtime.upstreams.choose("/", format_name=format_name, model=model)
    for upstream in runtime.upstreams.all:
        if upstream.name == name:
            return upstream
    names = ", ".join(each.name for each in runtime.upstreams.all)
    raise BadRequest(f"There is no upstream '{name}'. Configured upstreams: {names}.", param="upstream")
