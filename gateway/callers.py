"""Who is calling: the key behind a request's credential."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway import formats
from gateway.refusals import error_for_key
from policies.model import Key, KeyRefused

if TYPE_CHECKING:
    from aiohttp import web

    from gateway.runtime import Runtime

ANONYMOUS = Key(id="anonymous", digest="")
"""Every caller of a gateway whose configuration names no keys."""


def key_of(runtime: Runtime, credential: str | None) -> Key:
    """The key that a credential belongs to. Raises `Unauthorized`. Without configured keys everybody is `ANONYMOUS`."""
    if not runtime.policy.keys:
        return ANONYMOUS
    try:
        return runtime.policy.key(credential, now=runtime.clock())
    except KeyRefused as refused:
        raise error_for_key(refused) from None


def credential_anywhere(request: web.Request) -> str | None:
    """The credential of a request whose path names no API: from the first place where any API puts one."""
    for fmt in formats.FORMATS:
        credential = fmt.credential(request.headers, request.query)
        if credential:
            return credential
    return None
