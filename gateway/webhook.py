"""Telling a webhook: signed as the Standard Webhooks specification says, retried, and never waited for by a request.

The signature is ``v1,`` and the base64 of HMAC-SHA256 over ``id.timestamp.body``, so that its verifiers in every
language work; a secret that begins with ``whsec_`` is base64, any other is taken as it is.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import orjson
import structlog

from gateway.http.errors import HttpError
from gateway.http.origin import Origin

if TYPE_CHECKING:
    from gateway.http.client import HttpClient
    from gateway.metrics import Metrics
    from gateway.notices import Notice
    from gateway.settings import WebhookSettings

_log = structlog.get_logger("webhook")

WAITING_AT_MOST = 1000
"""Notices that may wait; while the receiver is gone for long, further ones are dropped, logged and counted."""

TRIES = 8
FIRST_WAIT_S = 1.0
"""Waits double from try to try: about two minutes in all."""

_ATTEMPT_S = 10.0
_LAST_CALL_S = 3.0
_ANSWER_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class _Receiver:
    origin: Origin
    target: bytes
    key: bytes


class Webhook:
    """Sends notices one after the other, in their order, to whom it is aimed at. `run` must be running."""

    def __init__(
        self,
        client: HttpClient,
        *,
        metrics: Metrics,
        clock: Callable[[], float],
        first_wait_s: float = FIRST_WAIT_S,
        waiting_at_most: int = WAITING_AT_MOST,
    ) -> None:
        self._client = client
        self._receiver: _Receiver | None = None
        self._metrics = metrics
        self._clock = clock
        self._first_wait_s = first_wait_s
        self._waiting: asyncio.Queue[Notice] = asyncio.Queue(waiting_at_most)

    def aim(self, receiver: WebhookSettings | None) -> None:
        """Tell this receiver from now on, of what is waiting too; None: tell nobody."""
        if receiver is None:
            self._receiver = None
            return
        parts = urlsplit(receiver.url)
        target = ((parts.path or "/") + (f"?{parts.query}" if parts.query else "")).encode()
        self._receiver = _Receiver(Origin.from_url(receiver.url), target, signing_key(receiver.secret))

    def send(self, notice: Notice) -> None:
        """Queue a notice; a full queue drops it."""
        if self._receiver is None:
            return
        try:
            self._waiting.put_nowait(notice)
        except asyncio.QueueFull:
            self._count("dropped")
            _log.error("webhook_notice_dropped", id=notice.id, kind=notice.kind, waiting=self._waiting.qsize())

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            notice = await self._waiting.get()
            try:
                await self._deliver(notice)
            except Exception:  # one notice that cannot be told must not keep the others back
                self._count("failed")
                _log.exception("webhook_failed", id=notice.id)
            finally:
                self._waiting.task_done()

    async def finish(self) -> None:
        """Give what is waiting a last short time to be delivered, while `run` still runs."""
        try:
            async with asyncio.timeout(_LAST_CALL_S):
                await self._waiting.join()
        except TimeoutError:
            _log.error("webhook_notices_undelivered", waiting=self._waiting.qsize() + 1)

    async def _deliver(self, notice: Notice) -> None:
        body = orjson.dumps(notice.as_json())
        wait_s = self._first_wait_s
        for number in range(1, TRIES + 1):
            receiver = self._receiver
            if receiver is None:
                return
            complaint = await self._attempt(receiver, notice, body)
            if complaint is None:
                self._count("delivered")
                _log.debug("webhook_delivered", id=notice.id, tries=number)
                return
            _log.warning("webhook_attempt_failed", id=notice.id, attempt=number, reason=complaint)
            if number < TRIES:
                await asyncio.sleep(wait_s)
                wait_s *= 2
        self._count("failed")
        _log.error("webhook_notice_lost", id=notice.id, kind=notice.kind, tries=TRIES)

    async def _attempt(self, receiver: _Receiver, notice: Notice, body: bytes) -> str | None:
        """Try once; say what went wrong."""
        timestamp = str(int(self._clock()))
        try:
            answer = await self._client.request(
                receiver.origin,
                method="POST",
                target=receiver.target,
                headers=[
                    (b"content-type", b"application/json"),
                    (b"user-agent", b"tollgate"),
                    (b"webhook-id", notice.id.encode()),
                    (b"webhook-timestamp", timestamp.encode()),
                    (b"webhook-signature", sign(receiver.key, notice.id, timestamp, body).encode()),
                ],
                body=body,
                total_timeout_s=_ATTEMPT_S,
            )
        except HttpError as error:
            return str(error)
        try:
            await answer.read_all(_ANSWER_BYTES)
        except HttpError:  # its status has been read; what it says besides is not needed
            answer.close()
        return None if 200 <= answer.status < 300 else f"the receiver answered {answer.status}"

    def _count(self, result: str) -> None:
        self._metrics.webhook_deliveries.labels(result).inc()


def sign(key: bytes, notice_id: str, timestamp: str, body: bytes) -> str:
    """The signature's header."""
    signed = hmac.new(key, f"{notice_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(signed).decode()


def signing_key(secret: str) -> bytes:
    """The bytes that a secret stands for. Raises `ValueError` for a ``whsec_`` one that is no base64."""
    prefix, _, encoded = secret.partition("whsec_")
    return base64.b64decode(encoded, validate=True) if not prefix and encoded else secret.encode()
