"""Carrying requests to an upstream over the lean HTTP client, its failures told in the gateway's words."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from gateway.errors import UpstreamError, UpstreamTimeout
from gateway.http.errors import AnswerCut, BadAnswer, ConnectFailed, HttpError, TimedOut, UnsafeRequest
from gateway.http.origin import Origin

if TYPE_CHECKING:
    from gateway.forwarded_headers import Headers
    from gateway.http.answer import Answer
    from gateway.http.client import HttpClient
    from gateway.settings import UpstreamSettings
    from gateway.upstream import Outgoing


_log = structlog.get_logger("upstream")


class HttpAnswer:
    """An answer on a pooled connection."""

    __slots__ = ("_answer", "_upstream", "headers", "reason", "status")

    def __init__(self, answer: Answer, upstream: str) -> None:
        self._answer = answer
        self._upstream = upstream
        self.status = answer.status
        self.reason = answer.reason
        self.headers: Headers = answer.headers

    async def read(self) -> bytes:
        """The next body bytes as they arrive, ``b""`` at the end."""
        try:
            return await self._answer.read()
        except HttpError as error:
            raise _told(error, self._upstream) from None

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else drop it."""
        self._answer.close()


class HttpUpstream:
    """One upstream's origin and time limits on the shared client."""

    __slots__ = ("_client", "_connect_timeout_s", "_idle_timeout_s", "_name", "_origin", "_path", "_timeout_s")

    def __init__(self, client: HttpClient, settings: UpstreamSettings) -> None:
        self._client = client
        self._name = settings.name
        self._origin = Origin.from_url(settings.url)
        self._path = urlsplit(settings.url).path.rstrip("/")
        self._connect_timeout_s = settings.connect_timeout_s
        self._timeout_s = settings.timeout_s
        self._idle_timeout_s = settings.idle_timeout_s

    async def send(self, outgoing: Outgoing) -> HttpAnswer:
        """Send and wait for the answer's head; redirects are handed back, not followed."""
        try:
            answer = await self._client.request(
                self._origin,
                method=outgoing.method,
                target=(self._path + outgoing.target).encode("utf-8", "surrogateescape"),
                headers=outgoing.headers,
                body=outgoing.body,
                connect_timeout_s=self._connect_timeout_s,
                idle_timeout_s=self._idle_timeout_s,
                total_timeout_s=self._timeout_s,
            )
        except HttpError as error:
            raise _told(error, self._name) from None
        return HttpAnswer(answer, self._name)


def _told(error: HttpError, upstream: str) -> UpstreamError:
    """The error for the caller; what it must not know (addresses, certificates) goes to the log."""
    _log.warning("upstream_failed", upstream=upstream, kind=type(error).__name__, reason=str(error))
    return _as_seen_by_caller(error)


def _as_seen_by_caller(error: HttpError) -> UpstreamError:
    match error:
        case TimedOut(phase="connect"):
            return UpstreamTimeout("The upstream could not be reached in time. Try again later.")
        case TimedOut():
            return UpstreamTimeout("The upstream did not answer in time. Try again, or raise the upstream's `timeout`.")
        case ConnectFailed():
            return UpstreamError("The upstream cannot be reached. Try again later; the gateway's log has the reason.")
        case UnsafeRequest():
            return UpstreamError(f"The request cannot be forwarded as HTTP: {error}.", status=400)
        case AnswerCut():
            return UpstreamError("The upstream broke off in mid-answer.")
        case BadAnswer():
            return UpstreamError("The upstream's answer is not valid HTTP.")
    return UpstreamError("The upstream closed the connection without an answer. Try again later.")
