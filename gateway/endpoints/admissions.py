"""Admission without forwarding: hold here, call the provider yourself, settle or release afterwards."""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StrictStr

from gateway.callers import credential_anywhere, key_of
from gateway.endpoints.answers import answer, read_as, read_json
from gateway.endpoints.budgets import describe
from gateway.errors import BadRequest, NotFound
from gateway.exchange import EXCHANGE
from gateway.formats import FORMATS
from gateway.formats.fields import write_object
from gateway.proxy import estimate_for, reserve
from gateway.recording import settled_entry
from gateway.refusals import error_for_store
from gateway.runtime import RUNTIME, Runtime
from gateway.upstream import Upstream
from policies.model import Reservation, StoreLost
from policies.usage import Usage

Tokens = Annotated[int, Field(ge=0, le=10**12, strict=True)]

_FORMATS = {fmt.name: fmt for fmt in FORMATS}
# What tells the formats' bodies apart when the caller does not name one.
_TELLING_FIELDS = (
    ("contents", "gemini"),
    ("input", "openai_responses"),
    ("prompt", "openai_completions"),
    ("messages", "openai_chat"),
)


class AdmissionRequest(BaseModel):
    """A request as it would be sent to the provider, and who asks. `key` may come in a header instead."""

    model_config = ConfigDict(extra="forbid")

    request: dict[str, Any]
    key: StrictStr | None = None
    format: StrictStr | None = None
    upstream: StrictStr | None = None


class AdmissionUsage(BaseModel):
    """What the provider reported, in its own words: OpenAI's, Anthropic's or Gemini's."""

    model_config = ConfigDict(extra="ignore")

    input_tokens: Tokens = Field(validation_alias=AliasChoices("input_tokens", "prompt_tokens", "promptTokenCount"))
    output_tokens: Tokens = Field(
        default=0, validation_alias=AliasChoices("output_tokens", "completion_tokens", "candidatesTokenCount")
    )
    thoughts_tokens: Tokens = Field(default=0, validation_alias=AliasChoices("thoughtsTokenCount"))
    cached_tokens: Tokens = 0
    cache_creation_input_tokens: Tokens = 0
    cache_read_input_tokens: Tokens = 0
    reasoning_tokens: Tokens = 0

    def as_usage(self) -> Usage:
        """Input with what was cached beside it, output with what was thought beside it."""
        return Usage(
            input_tokens=self.input_tokens + self.cache_creation_input_tokens + self.cache_read_input_tokens,
            output_tokens=self.output_tokens + self.thoughts_tokens,
            cached_tokens=self.cached_tokens + self.cache_read_input_tokens,
            reasoning_tokens=self.reasoning_tokens + self.thoughts_tokens,
        )


class SettleRequest(BaseModel):
    """The end of an admission."""

    model_config = ConfigDict(extra="forbid")

    usage: AdmissionUsage


async def admit(request: web.Request) -> web.Response:
    """Hold what a request would need, without forwarding it."""
    runtime = request.app[RUNTIME].current
    exchange = request[EXCHANGE]
    asked = read_as(AdmissionRequest, await read_json(request))
    exchange.key = key_of(runtime, asked.key or credential_anywhere(request))
    name = asked.format or next((name for field, name in _TELLING_FIELDS if field in asked.request), "openai_chat")
    fmt = _FORMATS.get(name)
    if fmt is None:
        raise BadRequest(f"There is no format '{name}'. Formats: {', '.join(_FORMATS)}.", param="format")
    route = next(route for route in fmt.routes if route.kind != "count")
    model = asked.request.get("model")
    groups = {"model": model} if isinstance(model, str) else {}
    call = fmt.parse(route, groups, write_object(asked.request))
    exchange.take(call)
    upstream = _upstream(runtime, asked.upstream, format_name=name, model=call.model)
    exchange.upstream = upstream.name
    exchange.model = upstream.model_of(call.model)
    exchange.count, exchange.plain_count = await runtime.counting.count_for(upstream, exchange.model, call.prompt)
    granted = await reserve(
        runtime, exchange, exchange.key, estimate_for(runtime, exchange, call, call.kind), detached=True
    )
    return answer(
        {
            "id": granted.reservation.id,
            "allowed": True,
            "input_tokens": exchange.count.input_tokens,
            "accuracy": exchange.count.accuracy,
            "held": {"input_tokens": exchange.held_input, "output_tokens": exchange.held_output},
            "output_cap": granted.output_cap,
            "expires_in_s": runtime.settings.store.hold_timeout_s,
            "budgets": describe(exchange.statuses),
        },
        status=201,
    )


async def settle(request: web.Request) -> web.Response:
    """Charge what the provider reported."""
    runtime = request.app[RUNTIME].current
    usage = read_as(SettleRequest, await read_json(request)).usage.as_usage()
    reservation = await _find(runtime, request)
    now = runtime.clock()
    entry = settled_entry(reservation, usage, request_id=request[EXCHANGE].id, now=now)
    statuses = await runtime.engine.settle(reservation, usage, now=now, entry=entry)
    return answer({"id": reservation.id, "settled": True, "budgets": describe(statuses)})


async def release(request: web.Request) -> web.Response:
    """Give everything back: the provider never took the request."""
    runtime = request.app[RUNTIME].current
    reservation = await _find(runtime, request)
    now = runtime.clock()
    entry = settled_entry(reservation, None, request_id=request[EXCHANGE].id, now=now)
    statuses = await runtime.engine.release(reservation, now=now, entry=entry)
    return answer({"id": reservation.id, "released": True, "budgets": describe(statuses)})


async def _find(runtime: Runtime, request: web.Request) -> Reservation:
    admission_id = request.match_info["id"]
    try:
        found = await runtime.engine.find(admission_id)
    except StoreLost as lost:
        raise error_for_store(lost) from None
    if found is None:
        raise NotFound(
            f"There is no open admission '{admission_id}': it was settled, released, abandoned, or never made.",
            param="id",
            code="admission_not_open",
        )
    return found


def _upstream(runtime: Runtime, name: str | None, *, format_name: str, model: str) -> Upstream:
    if name is None:
        return runtime.upstreams.choose("/", format_name=format_name, model=model)
    for upstream in runtime.upstreams.all:
        if upstream.name == name:
            return upstream
    names = ", ".join(each.name for each in runtime.upstreams.all)
    raise BadRequest(f"There is no upstream '{name}'. Configured upstreams: {names}.", param="upstream")
