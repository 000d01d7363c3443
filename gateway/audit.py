"""The audit log: who changed what, from what, to what. Credentials and digests never stand in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import structlog

from gateway.exchange import EXCHANGE

if TYPE_CHECKING:
    from aiohttp import web


def audit(
    request: web.Request, action: str, *, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, **on: Any
) -> None:
    """Write down a change made through the API. `on` names what was changed."""
    structlog.get_logger("audit").info(
        action,
        actor="admin",
        remote=request[EXCHANGE].client,
        request_id=request[EXCHANGE].id,
        **on,
        before=dict(before) if before is not None else None,
        after=dict(after) if after is not None else None,
    )


def audit_command(
    actor: str, action: str, *, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, **on: Any
) -> None:
    """Write down a change made on the command line by `actor`, a user of the machine."""
    structlog.get_logger("audit").info(
        action,
        actor=actor,
        **on,
        before=dict(before) if before is not None else None,
        after=dict(after) if after is not None else None,
    )
