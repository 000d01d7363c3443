"""Who is calling: the key behind a request's credential, and the address behind its proxies."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from gateway import formats
from gateway.errors import Forbidden, Unauthorized
from gateway.refusals import error_for_key, error_for_store
from policies.model import Key, KeyRefused, StoreLost
from policies.policy import digest

if TYPE_CHECKING:
    from aiohttp import web

    from gateway.runtime import Runtime

ANONYMOUS = Key(id="anonymous", digest="")
"""Every caller of a gateway whose configuration names no keys."""


def key_of(runtime: Runtime, credential: str | None) -> Key:
    """The key that a credential belongs to. Raises `Unauthorized`. Where there are no keys everybody is `ANONYMOUS`.

    While the store's keys have never been read, nobody can be called unknown: that is `StoreUnavailable`.
    """
    if not runtime.policy.keys:
        if not runtime.keys_known and runtime.settings.store.on_error == "refuse":
            raise error_for_store(_KEYS_UNREAD)
        _keep_admin_key_here(runtime, credential)
        return ANONYMOUS
    try:
        return runtime.policy.key(credential, now=runtime.clock())
    except KeyRefused as refused:
        if refused.reason == "unknown" and not runtime.keys_known:
            raise error_for_store(_KEYS_UNREAD) from None
        raise error_for_key(refused) from None


def require_admin(runtime: Runtime, request: web.Request) -> None:
    """Let only the holder of the admin key pass. Raises `Forbidden` where none is configured, else `Unauthorized`."""
    expected = runtime.settings.admin.digest
    if expected is None:
        raise Forbidden(
            "Administration is closed: no admin key is configured. Set `admin.digest` in the configuration "
            "(`tollgate keys new` makes a key and its digest).",
            code="admin_closed",
        )
    presented = _bearer(request) or request.headers.get("x-api-key")
    if not presented or not hmac.compare_digest(digest(presented), expected):
        raise Unauthorized(
            "This needs the admin key, as `Authorization: Bearer ...` or `x-api-key: ...`.", code="invalid_admin_key"
        )


@lru_cache(maxsize=4096)
def client_address(peer: str, forwarded: str, trusted: tuple[str, ...]) -> str:
    """The address of a request's client: the peer's own or, where the peer is within a trusted network, the last in
    `forwarded` (X-Forwarded-For) that is not. What is no address there ends the search: anyone may have written it."""
    networks = [ip_network(each) for each in trusted]
    client = peer
    for hop in (peer, *reversed(forwarded.split(","))):
        try:
            address = ip_address(hop.strip())
        except ValueError:
            return client
        client = str(address)
        if not any(address in network for network in networks):
            return client
    return client


def _keep_admin_key_here(runtime: Runtime, credential: str | None) -> None:
    """Where nobody needs a key, a credential goes to the upstream: a mistyped /admin path must not send this one."""
    admin = runtime.settings.admin.digest
    if admin is not None and credential and hmac.compare_digest(digest(credential), admin):
        raise Forbidden("This is the admin key: it opens /admin, and is forwarded nowhere.", code="admin_key_misused")


_KEYS_UNREAD = StoreLost("its keys have not been read since the start")


def _bearer(request: web.Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def credential_anywhere(headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
    """The credential of a request whose path names no API: from the first place where any API puts one."""
    for fmt in formats.FORMATS:
        credential = fmt.credential(headers, query)
        if credential:
            return credential
    return None
