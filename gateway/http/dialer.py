"""Opens connections: addresses, TCP, a proxy's tunnel, TLS. Every failure is `ConnectFailed`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import ssl

from gateway.http.connection import Connection
from gateway.http.errors import ConnectFailed
from gateway.http.origin import Origin, is_ip_literal
from gateway.http.proxy_env import Proxy, ProxyTable
from gateway.http.tunnel import Tunnel

_NEXT_ADDRESS_AFTER_S = 0.25
"""RFC 8305's recommended delay before the next address is tried beside the one that has not answered."""

_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 3))
"""A model may think for minutes without a byte: keep NAT entries alive, and notice a peer that vanished."""

Address = tuple[int, tuple[str, int] | tuple[str, int, int, int]]


class Dialer:
    """Makes ready connections to origins, through the environment's proxies when `trust_env`."""

    def __init__(self, *, ssl_context: ssl.SSLContext | None, trust_env: bool) -> None:
        self._ssl_context = ssl_context
        self._proxies = ProxyTable(os.environ) if trust_env else None

    def absolute_form_proxy(self, origin: Origin) -> Proxy | None:
        """The proxy that must see the whole URL in the request line: the one for a plain http origin."""
        if self._proxies is None or origin.scheme != "http":
            return None
        return self._proxies.proxy_for(origin)

    async def dial(self, origin: Origin) -> Connection:
        """A connection on which a request can be written. Raises `ConnectFailed`; cancelling leaves no socket."""
        proxy = self._proxies.proxy_for(origin) if self._proxies is not None else None
        connection = Connection(peer=origin.authority, loop=asyncio.get_running_loop())
        try:
            if proxy is None:
                await self._open(connection, origin, where=origin)
            elif origin.scheme == "http":
                await self._open(connection, proxy.origin, where=proxy.origin)
            else:
                await self._open_tunnel(connection, origin, proxy)
        except ssl.SSLCertVerificationError as error:
            raise ConnectFailed(f"certificate of {origin.authority} is refused: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise ConnectFailed(f"TLS with {origin.authority} failed: {error.reason or error}") from error
        except OSError as error:
            via = f" through proxy {proxy.origin.authority}" if proxy is not None else ""
            raise ConnectFailed(f"cannot connect to {origin.authority}{via}: {_why(error)}") from error
        if connection.closed:
            raise ConnectFailed(f"{origin.authority} closed the connection at once")
        return connection

    async def _open(self, connection: Connection, origin: Origin, *, where: Origin) -> None:
        tls = await self._context() if origin.scheme == "https" else None
        raw = await open_socket(where.host, where.port)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection, sock=raw, ssl=tls, server_hostname=origin.server_name if tls else None
            )
        except BaseException:
            raw.close()
            raise

    async def _open_tunnel(self, connection: Connection, origin: Origin, proxy: Proxy) -> None:
        loop = asyncio.get_running_loop()
        tls = await self._context()
        raw = await open_socket(proxy.origin.host, proxy.origin.port)
        try:
            plain, tunnel = await loop.create_connection(Tunnel, sock=raw)
        except BaseException:
            raw.close()
            raise
        try:
            await tunnel.open(origin, proxy)
            secure = await loop.start_tls(plain, connection, tls, server_hostname=origin.server_name)
        except BaseException:
            plain.abort()
            raise
        if secure is None:
            raise ConnectFailed(f"TLS with {origin.authority} failed: the connection ended")
        connection.connection_made(secure)

    async def _context(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            # Reading the system's certificates takes tens of milliseconds: not on the event loop.
            self._ssl_context = await asyncio.to_thread(_verifying_context)
        return self._ssl_context


async def open_socket(host: str, port: int) -> socket.socket:
    """A connected, non-blocking TCP socket. Several addresses are raced as in RFC 8305. Raises `OSError`."""
    addresses = await _addresses(host, port)
    if len(addresses) == 1:
        return await _connected(addresses[0])
    return await first_connected(addresses)


async def _addresses(host: str, port: int) -> list[Address]:
    if is_ip_literal(host) and "%" not in host:
        return [(socket.AF_INET6, (host, port, 0, 0))] if ":" in host else [(socket.AF_INET, (host, port))]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not found:
        raise OSError(f"no address found for {host}")
    families: dict[int, list[Address]] = {}
    for family, _, _, _, address in found:
        families.setdefault(family, []).append((family, address))  # type: ignore[arg-type]
    # The resolver's preferred family first, then taking turns.
    turns = itertools.zip_longest(*families.values())
    return [address for turn in turns for address in turn if address is not None]


async def _connected(address: Address) -> socket.socket:
    family, where = address
    raw = socket.socket(family, socket.SOCK_STREAM)
    try:
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            if hasattr(socket, option):
                raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        await asyncio.get_running_loop().sock_connect(raw, where)
    except BaseException:
        raw.close()
        raise
    return raw


async def first_connected(addresses: list[Address]) -> socket.socket:
    """A socket to the first of `addresses` that takes one. Raises the first error when none does."""
    attempts: set[asyncio.Task[socket.socket]] = set()
    waiting = list(reversed(addresses))
    errors: list[BaseException] = []
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(asyncio.ensure_future(_connected(waiting.pop())))
            timeout_s = _NEXT_ADDRESS_AFTER_S if waiting else None
            done, attempts = await asyncio.wait(attempts, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            winners = [attempt for attempt in done if attempt.exception() is None]
            for late in winners[1:]:
                late.result().close()
            if winners:
                return winners[0].result()
            errors.extend(error for attempt in done if (error := attempt.exception()) is not None)
        raise errors[0]
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_close_late_winner)


def _close_late_winner(attempt: asyncio.Task[socket.socket]) -> None:
    with contextlib.suppress(asyncio.CancelledError, OSError):
        attempt.result().close()


def _verifying_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _why(error: OSError) -> str:
    if error.errno and error.errno > 0 and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)  # asyncio's own texts only repeat the address
    return error.strerror or str(error) or type(error).__name__
