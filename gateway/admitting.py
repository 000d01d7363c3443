"""Holding what a request needs while somebody else forwards it, and where its answer is to be told afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from gateway.proxy import Granted, estimate_for, reserve
from policies.model import Estimate

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.formats.base import Call
    from gateway.runtime import Runtime
    from gateway.upstream import Upstream
    from policies.model import Key

UNMATCHED = "none"
"""Stands for the format of a path that no format knows."""

BLIND = Estimate(input_tokens=1, output_cap=0)
"""What is held for a request whose tokens nobody can know yet: enough that a budget with nothing left refuses it."""


async def admit_call(runtime: Runtime, exchange: Exchange, key: Key, call: Call, upstream: Upstream) -> Granted:
    """Count a call and hold it for whoever forwards it. Raises the refusal as an error."""
    exchange.upstream = upstream.name
    exchange.model = upstream.model_of(call.model)
    exchange.count, exchange.plain_count = await runtime.counting.count_for(upstream, exchange.model, call.prompt)
    return await reserve(runtime, exchange, key, estimate_for(runtime, exchange, call, call.kind), detached=True)


async def admit_uncounted(runtime: Runtime, exchange: Exchange, key: Key, estimate: Estimate) -> Granted:
    """Hold a request that nothing can be counted of. Raises the refusal as an error."""
    return await reserve(runtime, exchange, key, estimate, detached=True)


def answer_path(exchange: Exchange, granted: Granted, *, format_name: str) -> str:
    """Where the provider's answer is to be sent, with everything that is needed to read it there."""
    facts: dict[str, str] = {"format": format_name}
    if exchange.count is not None:
        facts["input_tokens"] = str(exchange.count.input_tokens)
        facts["accuracy"] = exchange.count.accuracy.value
    if exchange.stream:
        facts["stream"] = "true"
    return f"/v1/admissions/{quote(granted.reservation.id)}/answer?{urlencode(facts)}"
