"""Writing a finished request down: log line, metrics, ledger row, and what its bill teaches about counting."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gateway.errors import GatewayError
from gateway.logging import log_access
from policies.ledger import LedgerEntry
from policies.ledger import Outcome as LedgerOutcome

if TYPE_CHECKING:
    from gateway.exchange import Exchange, Outcome
    from gateway.runtime import Runtime
    from policies.model import Reservation
    from policies.usage import Usage

_QUIET_PATHS = frozenset({"/health", "/metrics"})
_IN_LEDGER: dict[Outcome, LedgerOutcome] = {
    "ok": "ok",
    "refused": "refused",
    "declined": "released",
    "upstream_error": "upstream_error",
    "client_left": "cancelled",
    "cut": "cut",
    "exhausted": "exhausted",
}


def record(runtime: Runtime, exchange: Exchange) -> None:
    """Log and measure a finished request, and learn from its bill."""
    duration_s = time.perf_counter() - exchange.started_s
    usage, plain = exchange.usage, exchange.plain_count
    if usage is not None and usage.source == "reported" and plain is not None:
        runtime.counting.learn(exchange.upstream, exchange.model, plain, reported=usage.input_tokens)
    runtime.metrics.observe(exchange, family=_family(runtime, exchange.model), duration_s=duration_s)
    _log(exchange, duration_s)


def _family(runtime: Runtime, model: str) -> str:
    if not model:
        return ""
    try:
        return runtime.counting.resolve(model).family
    except GatewayError:
        return "unknown"


def ledger_entry(exchange: Exchange) -> LedgerEntry:
    """The ledger's line for a request that has reached its budgets, as far as it is known now."""
    usage, count, key = exchange.usage, exchange.count, exchange.key
    return LedgerEntry(
        request_id=exchange.id,
        at=exchange.at,
        key_id=key.id if key is not None else "",
        model=exchange.model,
        upstream=exchange.upstream,
        outcome=_IN_LEDGER.get(exchange.outcome, "cut"),
        tags=key.tags if key is not None else {},
        held_input=exchange.held_input,
        held_output=exchange.held_output,
        input_tokens=usage.input_tokens if usage is not None else 0,
        output_tokens=usage.output_tokens if usage is not None else 0,
        cached_tokens=usage.cached_tokens if usage is not None else 0,
        reasoning_tokens=usage.reasoning_tokens if usage is not None else 0,
        counted_tokens=count.input_tokens if count is not None else 0,
        accuracy=count.accuracy.value if count is not None else "",
        source=usage.source if usage is not None else "",
        choices=exchange.choices,
        output_cap=exchange.output_cap,
        stream=exchange.stream,
        endpoint=exchange.format.name if exchange.format is not None else "",
        refused_by=exchange.refusing,
        refused_for=exchange.refused_for,
        refused_limit=exchange.refused_limit,
        latency_s=time.perf_counter() - exchange.started_s,
        first_byte_s=exchange.first_byte_s,
        features=count.features if count is not None else (),
        plain_tokens=exchange.plain_count.input_tokens if exchange.plain_count is not None else 0,
        would_refuse=exchange.would_refuse,
        refused_input=count.upper if count is not None and exchange.outcome == "refused" else 0,
    )


def settled_entry(reservation: Reservation, usage: Usage | None, *, request_id: str, now: float) -> LedgerEntry:
    """The ledger's line for a hold that somebody else ends; without usage it was given back."""
    subject = reservation.subject
    return LedgerEntry(
        request_id=request_id,
        at=now,
        key_id=subject.key_id,
        model=subject.model,
        upstream=subject.upstream,
        outcome="ok" if usage is not None else "released",
        tags=subject.tags,
        held_input=reservation.held_input,
        held_output=reservation.held_output,
        input_tokens=usage.input_tokens if usage is not None else 0,
        output_tokens=usage.output_tokens if usage is not None else 0,
        cached_tokens=usage.cached_tokens if usage is not None else 0,
        reasoning_tokens=usage.reasoning_tokens if usage is not None else 0,
        source=usage.source if usage is not None else "",
        choices=reservation.choices,
        endpoint="admissions",
    )


def _log(exchange: Exchange, duration_s: float) -> None:
    if exchange.path in _QUIET_PATHS and exchange.outcome == "ok":
        return
    usage, count = exchange.usage, exchange.count
    fields: dict[str, object] = {
        "request_id": exchange.id,
        "method": exchange.method,
        "path": exchange.path,
        "client": exchange.client,
        "status": exchange.status,
        "outcome": exchange.outcome,
        "key_id": exchange.key.id if exchange.key is not None else "",
        "format": exchange.format.name if exchange.format is not None else "",
        "model": exchange.model,
        "upstream": exchange.upstream,
        "stream": exchange.stream,
        "total_ms": round(duration_s * 1000, 2),
    }
    if count is not None:
        fields["counted"] = count.input_tokens
        fields["accuracy"] = count.accuracy.value
        fields["counting_ms"] = round(exchange.counting_s * 1000, 3)
    if exchange.reserving_s:
        fields["held"] = exchange.held_input + exchange.held_output
        fields["reserving_ms"] = round(exchange.reserving_s * 1000, 3)
    if usage is not None:
        fields["used_input"] = usage.input_tokens
        fields["used_output"] = usage.output_tokens
        fields["source"] = usage.source
    if exchange.relayed_bytes:
        fields["first_byte_ms"] = round(exchange.first_byte_s * 1000, 2)
    if exchange.error:
        fields["error"] = exchange.error
    if exchange.refusing:
        fields["refused_by"] = exchange.refusing
        fields["refused_for"] = exchange.refused_for
    if exchange.would_refuse:
        fields["would_refuse"] = exchange.would_refuse
    if exchange.warnings:
        fields["warnings"] = exchange.warnings
    if exchange.degraded:
        fields["degraded"] = exchange.degraded
    log_access(fields, at=exchange.at + duration_s)
