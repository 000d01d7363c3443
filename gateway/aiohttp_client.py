"""Carrying requests to upstreams over aiohttp's pooled client."""

from __future__ import annotations

import asyncio
import io
from typing import Self

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from gateway.errors import UpstreamError, UpstreamTimeout
from gateway.upstream import Headers, Outgoing

_AS_IT_CAME = frozenset({"User-Agent", "Accept", "Accept-Encoding", "Content-Type"})
_RAW_BYTES_LIMIT = 1024 * 1024
"""aiohttp warns about larger plain bytes; a file object is written in pieces."""


class AiohttpAnswer:
    """An answer on an aiohttp connection."""

    __slots__ = ("_response", "headers", "reason", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.reason = response.reason or ""
        self.headers: Headers = list(response.headers.items())

    async def read(self) -> bytes:
        """The next body bytes as they arrive, ``b""`` at the end."""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, ConnectionError, ValueError) as error:
            raise UpstreamError(f"The upstream broke off in mid-answer ({_say(error)}).") from None

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else drop it."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class AiohttpClient:
    """One connection pool for all upstreams of an event loop."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_AS_IT_CAME,
            # Time limits are the watchdog's: one timer for all requests instead of one each.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None, sock_read=None),
            read_bufsize=2**18,
        )

    async def send(self, outgoing: Outgoing, *, connect_timeout_s: float) -> AiohttpAnswer:
        """Send and wait for the answer's head; redirects are handed back, not followed."""
        body: bytes | io.BytesIO | None = outgoing.body
        if body is not None and len(outgoing.body or b"") > _RAW_BYTES_LIMIT:
            body = io.BytesIO(body)
        try:
            response = await self._session.request(
                outgoing.method,
                URL(outgoing.url, encoded=True),
                headers=CIMultiDict(outgoing.headers),
                data=body,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
            )
        except (aiohttp.ServerTimeoutError, TimeoutError):
            raise UpstreamTimeout("The upstream could not be reached in time. Try again later.") from None
        except (aiohttp.ClientError, ConnectionError, OSError, ValueError) as error:
            raise UpstreamError(f"The upstream did not answer ({_say(error)}). Try again later.") from None
        return AiohttpAnswer(response)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _say(error: BaseException) -> str:
    """What happened, without the upstream's address: callers need not know it."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate was not accepted"
        case aiohttp.ClientSSLError():
            return "TLS failed"
        case aiohttp.ClientConnectorDNSError():
            return "its name could not be resolved"
        case aiohttp.ClientConnectorError():
            return "connection refused"
        case aiohttp.ServerDisconnectedError() | ConnectionResetError() | aiohttp.ClientOSError():
            return "connection closed"
        case aiohttp.ClientPayloadError():
            return "the body is incomplete"
        case asyncio.IncompleteReadError():
            return "the body is incomplete"
    return "not valid HTTP"
