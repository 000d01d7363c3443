"""Envoy with ext_authz and its Lua filter, which ask and tell Tollgate."""

from __future__ import annotations

from contextlib import AsyncExitStack

from tests.compat.cells import Row
from tests.compat.gateways import Gateway, Place
from tests.compat.provider import Provider
from tests.plugins.envoy_server import serving


async def ext_authz(stack: AsyncExitStack, row: Row, *, provider: Provider, echo_url: str) -> Place:
    """client -> Envoy -> provider, and Envoy asks Tollgate."""
    gateway = await stack.enter_async_context(Gateway(row, upstream_url=provider.url))
    url = await stack.enter_async_context(serving(tollgate_url=gateway.url, provider_url=provider.url))
    return gateway.place(provider, url=url)
