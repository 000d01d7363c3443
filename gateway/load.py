"""How many requests a worker answers at once: beyond it a request is refused at once instead of queued for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway import formats
from gateway.errors import Unavailable
from gateway.incoming import tidy
from gateway.refusing_connections import RETRY_AFTER_S

if TYPE_CHECKING:
    from gateway.exchange import Exchange

_FOR_OPERATORS = ("/health", "/metrics", "/admin", "/dashboard")
"""Answered all the same: whoever wants to know what is wrong asks here."""


class Load:
    """Requests `running` in this worker, and the `most` that may; `refused` is called for each one too many."""

    __slots__ = ("_refused", "most", "running")

    def __init__(self, most: int, *, refused: Callable[[], None]) -> None:
        self.most = most
        self._refused = refused
        self.running = 0

    def refuse(self, exchange: Exchange) -> None:
        """Raise `Unavailable` for one request too many, unless it is an operator's."""
        if exchange.path.startswith(_FOR_OPERATORS):
            return
        self._refused()
        matched = formats.match(exchange.method, tidy(exchange.path))
        if matched is not None:
            exchange.format = matched[0]  # nothing else is known of it yet, and it is answered in its own shape
        raise Unavailable(
            "The gateway is answering as many requests as it may (`server.max_concurrent_requests`). "
            "Try again in a moment.",
            code="overloaded",
            retry_after_s=RETRY_AFTER_S,
        )


def share(most: int, workers: int) -> int:
    """What one of several workers may have of a gateway's limit: together at least all of it."""
    return -(-most // max(1, workers))
