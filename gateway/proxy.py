"""The request's path, top to bottom: who, what, how many, may it, forward, relay, settle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import orjson

from gateway import formats
from gateway.account import Account
from gateway.callers import credential_anywhere, key_of
from gateway.cutting import Cutter
from gateway.decoding import decoder_for
from gateway.errors import NotFound, UpstreamError
from gateway.exchange import Exchange, Outcome
from gateway.forwarded_headers import Headers, answer_headers, header, inert
from gateway.incoming import refuse_websocket, tidy
from gateway.limits_headers import limit_headers
from gateway.recording import ledger_entry
from gateway.refusals import error_for_refusal, error_for_store
from gateway.relay import SMALL_BODY_BYTES, Relay
from gateway.reply import Reply, encode_pairs
from gateway.unmatched import listener_for_unmatched
from gateway.watchdog import ClientLeft
from policies.model import Estimate, StoreLost

if TYPE_CHECKING:
    from gateway.formats.base import Call, Kind, RequestFormat, UsageReader
    from gateway.formats.early_end import EarlyEnd
    from gateway.incoming import Incoming
    from gateway.runtime import Runtime
    from gateway.upstream import Outgoing, Upstream
    from policies.model import Key, Reservation

Listen = Callable[[int, str], "UsageReader | None"]
"""Makes the reader for an answer of this status and content type; None where there is nothing to read."""

End = Callable[[str], "EarlyEnd | None"]
"""Makes what can end a stream of this content type early."""


class Granted(NamedTuple):
    """A hold, the cap that the request must be forwarded with (None: as it is), and whether its answer is cut when it
    outgrows the hold."""

    reservation: Reservation
    output_cap: int | None
    cuts: bool


async def proxy(request: Incoming, runtime: Runtime, exchange: Exchange) -> Reply | None:
    """Answer any request that no direct endpoint takes; None when the answer was streamed and only its end is left to
    be written."""
    refuse_websocket(request.headers)
    path = tidy(request.path)
    matched = formats.match(request.method, path)
    if matched is None:
        return await _pass_unmatched(request, runtime, exchange, path)
    fmt, route, groups = matched
    exchange.format = fmt
    key = key_of(runtime, fmt.credential(request.headers, request.query))
    exchange.key = key
    body = await request.read_body(max_body_bytes=runtime.settings.server.max_body_bytes)
    call = fmt.parse(route, groups, body)
    exchange.take(call)
    if route.kind == "count":
        return await _answer_count(runtime, exchange, fmt, call, path)
    upstream = runtime.upstreams.choose(path, format_name=fmt.name, model=call.model)
    await _count(runtime, exchange, call, upstream)
    granted = await reserve(runtime, exchange, key, estimate_for(runtime, exchange, call, route.kind))
    try:
        outgoing = upstream.prepare(
            request.method,
            request.raw_target,
            request.raw_headers,
            _body_to_send(fmt, call, body, output_cap=granted.output_cap),
            key=key.upstream_key,
            format_name=fmt.name,
            plain=not call.wants_usage or (granted.cuts and call.stream),
        )
    except BaseException:  # a body that cannot be written again: nothing was sent, and nothing may stay held
        await Account(runtime, exchange, granted.reservation).close()
        raise

    def listen(status: int, content_type: str) -> UsageReader:
        return fmt.usage_reader(call, status=status, content_type=content_type)

    def end(content_type: str) -> EarlyEnd | None:
        return fmt.early_end(call, content_type=content_type)

    cuts = end if granted.cuts and call.stream else None
    return await _forward(request, runtime, exchange, upstream, outgoing, granted.reservation, listen, cuts)


async def _forward(
    request: Incoming,
    runtime: Runtime,
    exchange: Exchange,
    upstream: Upstream,
    outgoing: Outgoing,
    reservation: Reservation,
    listen: Listen,
    end: End | None = None,
) -> Reply | None:
    """Send, relay, settle. The end of the answer is written after settling, so that a caller who has read it
    finds its budgets settled."""
    account = Account(runtime, exchange, reservation)
    drain = runtime.settings.server.on_disconnect == "drain"
    try:
        with runtime.watchdog.watch(request, cancel_when_left=not drain) as watch:
            account.progress = "sent"
            try:
                answer = await upstream.client.send(outgoing)
            except UpstreamError:
                account.progress = "declined"
                raise
            exchange.status = answer.status
            if answer.status >= 300:
                exchange.outcome = "declined"
            try:
                content_type = header(answer.headers, b"content-type")
                reader = account.answered(answer.status, listen(answer.status, content_type))
                decoder = decoder_for(header(answer.headers, b"content-encoding"))
                if end is not None and reader is not None and decoder is None:
                    account.cutter = _cutter(runtime, exchange, reservation, reader, end(content_type))
                relay = Relay(
                    answer,
                    reader=reader,
                    decoder=decoder,
                    exchange=exchange,
                    watch=watch,
                    idle_s=upstream.settings.idle_timeout_s,
                    drain=drain,
                    cutter=account.cutter,
                )
                if account.cutter is None and _is_small(request, answer.headers):
                    whole = await relay.read_whole()
                else:
                    whole = None
                    await relay.stream(request, _head(runtime, exchange, answer.headers))
            finally:
                answer.close()
    except BaseException as error:
        exchange.outcome = _outcome_of(error)
        raise
    finally:
        await account.close()
    if whole is None:
        return None
    return Reply(answer.status, answer.reason, _head(runtime, exchange, answer.headers, whole=True), whole)


def _cutter(
    runtime: Runtime, exchange: Exchange, reservation: Reservation, reader: UsageReader, end: EarlyEnd | None
) -> Cutter | None:
    exchange.may_cut = end is not None
    return Cutter(runtime, exchange, reservation, reader=reader, end=end) if end is not None else None


async def _pass_unmatched(request: Incoming, runtime: Runtime, exchange: Exchange, path: str) -> Reply | None:
    """A path that no format knows: refused, or forwarded at the cost of a request and of what its answer reports."""
    if runtime.settings.server.unmatched == "refuse":
        raise NotFound(f"Nothing answers {request.method} {path} here, and `server.unmatched` is `refuse`.")
    key = key_of(runtime, credential_anywhere(request.headers, request.query))
    exchange.key = key
    body = await request.read_body(max_body_bytes=runtime.settings.server.max_body_bytes)
    upstream = runtime.upstreams.choose(path, format_name=None, model=None)
    exchange.upstream = upstream.name
    granted = await reserve(runtime, exchange, key, Estimate(input_tokens=0, output_cap=0))
    outgoing = upstream.prepare(
        request.method,
        request.raw_target,
        request.raw_headers,
        body if body or request.has_body else None,
        key=key.upstream_key,
        format_name=None,
        plain=False,
    )
    listen = listener_for_unmatched(request.method)
    return await _forward(request, runtime, exchange, upstream, outgoing, granted.reservation, listen)


async def _answer_count(runtime: Runtime, exchange: Exchange, fmt: RequestFormat, call: Call, path: str) -> Reply:
    """A provider's own count endpoint, answered here with the number that a budget would use."""
    try:
        upstream = runtime.upstreams.choose(path, format_name=None, model=call.model)
    except NotFound:
        exchange.count = await runtime.counting.count(call.model, call.prompt)
    else:
        await _count(runtime, exchange, call, upstream)
    assert exchange.count is not None
    headers = [(b"Content-Type", b"application/json")]
    return Reply(200, b"", headers, fmt.render_count(call, exchange.count))


async def _count(runtime: Runtime, exchange: Exchange, call: Call, upstream: Upstream) -> None:
    exchange.upstream = upstream.name
    exchange.model = upstream.model_of(call.model)
    started_s = time.perf_counter()
    counted = await runtime.counting.count_for(upstream, exchange.model, call.prompt)
    exchange.count, exchange.plain_count = counted
    exchange.counting_s = time.perf_counter() - started_s


def estimate_for(runtime: Runtime, exchange: Exchange, call: Call, kind: Kind) -> Estimate:
    """What is known of a counted request before it is forwarded."""
    assert exchange.count is not None
    if kind == "embed":
        return Estimate(input_tokens=exchange.count.upper, output_cap=0, choices=call.choices)
    return Estimate(
        input_tokens=exchange.count.upper,
        output_cap=call.output_cap,
        choices=call.choices,
        model_max_output=runtime.counting.resolve(exchange.model).max_output_tokens,
    )


async def reserve(
    runtime: Runtime, exchange: Exchange, key: Key, estimate: Estimate, *, detached: bool = False
) -> Granted:
    """Hold the estimate on every budget that matches. Raises the refusal as an error."""
    subject = runtime.policy.subject(key, model=exchange.model, upstream=exchange.upstream)
    started_s = time.perf_counter()
    try:
        decision = await runtime.engine.reserve(subject, estimate, now=runtime.clock(), detached=detached)
    except StoreLost as lost:
        raise error_for_store(lost) from None
    exchange.reserving_s = time.perf_counter() - started_s
    exchange.statuses = decision.statuses
    exchange.degraded = decision.degraded
    exchange.warnings = decision.warnings
    if decision.shadowed and decision.allowed:
        exchange.would_refuse = tuple(dict.fromkeys(refusal.budget for refusal in decision.shadowed))
    if decision.warnings or decision.refusal is not None:
        runtime.notices.heed(decision, runtime.policy, now=runtime.clock())
    reservation = decision.reservation
    if reservation is None:
        assert decision.refusal is not None
        exchange.refusing = decision.refusal.budget
        exchange.refused_for, exchange.refused_limit = decision.refusal.reason, decision.refusal.limit_named
        exchange.outcome = "refused"
        await runtime.engine.record(ledger_entry(exchange))
        raise error_for_refusal(decision.refusal)
    exchange.held_input = reservation.held_input
    exchange.held_output = reservation.held_output
    return Granted(reservation, decision.output_cap, decision.cuts)


def _outcome_of(error: BaseException) -> Outcome:
    match error:
        case ClientLeft() | asyncio.CancelledError():
            return "client_left"
        case UpstreamError():
            return "upstream_error"
    return "failed"


def _body_to_send(fmt: RequestFormat, call: Call, body: bytes, *, output_cap: int | None) -> bytes:
    """The caller's own bytes, unless a cap or a request for usage must be written into them."""
    if output_cap is not None:
        body = fmt.with_output_cap(call, output_cap)
        call = call._replace(body=orjson.loads(body))
    asking = fmt.with_usage_requested(call)
    return body if asking is None else asking


def _is_small(request: Incoming, headers: Headers) -> bool:
    length = header(headers, b"content-length")
    return length.isdecimal() and int(length) <= SMALL_BODY_BYTES and request.method != "HEAD"


def _head(runtime: Runtime, exchange: Exchange, upstream_headers: Headers, *, whole: bool = False) -> Headers:
    """The head that a caller gets: the upstream's with ours. The length of a `whole` body is its writer's to say."""
    headers = answer_headers(upstream_headers, drop_length=whole or exchange.hides_usage or exchange.may_cut)
    headers += inert(headers)
    headers += encode_pairs(told_headers(runtime, exchange))
    return headers


def told_headers(runtime: Runtime, exchange: Exchange) -> list[tuple[str, str]]:
    """What every answer tells about its count and budgets."""
    headers = [("x-tollgate-request-id", exchange.id)]
    if exchange.count is not None:
        headers.append(("x-tollgate-input-tokens", str(exchange.count.input_tokens)))
        headers.append(("x-tollgate-accuracy", exchange.count.accuracy.value))
    if exchange.degraded:
        headers.append(("x-tollgate-degraded", exchange.degraded.partition(":")[0]))
    anthropic = exchange.format is not None and exchange.format.name.startswith("anthropic")
    headers += limit_headers(exchange.statuses, now=runtime.clock(), anthropic=anthropic)
    return headers
