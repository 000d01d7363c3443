"""A CONNECT tunnel through an HTTP proxy."""

from __future__ import annotations

import asyncio
from typing import cast

from gateway.http.errors import ConnectFailed
from gateway.http.origin import Origin
from gateway.http.proxy_env import Proxy

_MAX_ANSWER_BYTES = 16 * 1024


class Tunnel(asyncio.Protocol):
    """Speaks to the proxy until it lets bytes through; TLS then takes the transport over."""

    def __init__(self) -> None:
        self._transport = cast("asyncio.Transport", None)  # set by `connection_made`, before anything else
        self._received = b""
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self, origin: Origin, proxy: Proxy) -> None:
        """Ask for a tunnel to `origin`. Raises `ConnectFailed` with the proxy's status when it refuses."""
        authority = origin.authority.encode("ascii")
        lines = [b"CONNECT %b HTTP/1.1" % authority, b"Host: " + authority]
        lines.extend(name + b": " + value for name, value in proxy.headers)
        self._transport.write(b"\r\n".join(lines) + b"\r\n\r\n")
        try:
            await self._opened
        except ConnectFailed as error:
            raise ConnectFailed(f"proxy {proxy.origin.authority} gave no way to {origin.authority}: {error}") from None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._opened.done():
            return
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            if len(self._received) > _MAX_ANSWER_BYTES:
                self._refuse("its answer has no end")
            return
        status_line = head.partition(b"\r\n")[0]
        words = status_line.split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            self._refuse("it does not speak HTTP/1.1")
        elif words[1].startswith(b"1"):
            self._received = b""
            self.data_received(rest)
        elif not words[1].startswith(b"2"):
            self._refuse(f"it answered {status_line[9:100].decode('latin-1')}")
        elif rest:
            # Whatever these bytes are, they are not from the origin, which has not been spoken to.
            self._refuse("it sent bytes before the tunnel was used")
        else:
            self._opened.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._refuse("it closed the connection")

    def _refuse(self, reason: str) -> None:
        if not self._opened.done():
            self._opened.set_exception(ConnectFailed(reason))
