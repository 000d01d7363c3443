"""Programs that stand between clients, Tollgate and providers: real ones, started for one row."""

from __future__ import annotations

from contextlib import AsyncExitStack

from tests.compat.cells import Row
from tests.compat.gateways import Place
from tests.compat.programs import envoy, litellm_proxy, nginx
from tests.compat.provider import Provider

PROGRAMS = {
    "litellm-client": litellm_proxy.as_client,
    "litellm-upstream": litellm_proxy.as_upstream,
    "litellm-plugin": litellm_proxy.with_plugin,
    "nginx": nginx.njs,
    "envoy": envoy.ext_authz,
}


async def open_program(stack: AsyncExitStack, row: Row, *, provider: Provider, echo_url: str) -> Place:
    """Start a row's program and its gateway for as long as `stack` is open."""
    return await PROGRAMS[row.through](stack, row, provider=provider, echo_url=echo_url)
