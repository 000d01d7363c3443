"""The lean HTTP/1.1 client of the relay's hot path: pooled, with deadlines, bytes in and bytes out."""

from __future__ import annotations

import asyncio
import ssl
from math import inf

from gateway.http.answer import Answer
from gateway.http.connection import Connection
from gateway.http.dialer import Dialer
from gateway.http.errors import ConnectFailed, ResetBeforeAnswer, TimedOut
from gateway.http.origin import Origin
from gateway.http.pool import Pool
from gateway.http.request_head import Body, Headers, encode_request_head


class HttpClient:
    """Sends requests to origins over kept-alive connections.

    `limit_per_host` bounds the connections to one origin (0: no bound), `keepalive_s` how long one may idle.
    `ssl_context` None means the system's certificates, verified. With `trust_env`, HTTP_PROXY, HTTPS_PROXY,
    ALL_PROXY and NO_PROXY are read once, here; raises `ValueError` when one is not usable.
    Belongs to the event loop of its first request.
    """

    def __init__(
        self,
        *,
        limit_per_host: int,
        keepalive_s: float,
        ssl_context: ssl.SSLContext | None = None,
        trust_env: bool = True,
    ) -> None:
        self._limit = limit_per_host
        self._keepalive_s = keepalive_s
        self._dialer = Dialer(ssl_context=ssl_context, trust_env=trust_env)
        self._routes: dict[Origin, _Route] = {}
        self._closed = False

    async def request(
        self,
        origin: Origin,
        *,
        method: str,
        target: bytes,
        headers: Headers,
        body: Body = None,
        connect_timeout_s: float | None = None,
        header_timeout_s: float | None = None,
        idle_timeout_s: float | None = None,
        total_timeout_s: float | None = None,
    ) -> Answer:
        """Send one request and return its answer as soon as its head is there (interim 1xx are skipped).

        `headers` go out in their order and case, without connection-level and framing ones, which the client
        writes itself; Host is added when missing. A `bytes` body has a length, an iterator is sent chunked. A
        reused connection that the peer closed before any byte of an answer is replaced once, when the body
        can be sent again. Timeouts in seconds: `connect` covers waiting for a slot, DNS, TCP, proxy and TLS;
        `header` runs from the last byte of the request to the answer's head; `idle` between two arrivals of
        body bytes (and while the peer takes none of the request's); `total` from here to the body's end.
        Raises `UnsafeRequest`, `ConnectFailed`, `TimedOut`, `ResetBeforeAnswer`, `BadAnswer`, or whatever
        the body's iterator raised. Cancelling closes the connection.
        """
        route = self._routes.get(origin) or self._open_route(origin)
        loop = route.loop
        head = encode_request_head(
            method=method,
            target=target,
            headers=headers,
            host=route.host,
            body=body,
            via_proxy=route.via_proxy,
            proxy_headers=route.proxy_headers,
        )
        total_due = inf if total_timeout_s is None else loop.time() + total_timeout_s
        connection = route.pool.take_idle()
        if connection is None:
            connection = await _connect(route, connect_timeout_s=connect_timeout_s, total_due=total_due)
        raced: ResetBeforeAnswer | None = None
        while True:
            was_reused = connection.reused
            answer = connection.begin(
                head,
                body,
                is_head_request=method == "HEAD",
                header_timeout_s=header_timeout_s,
                idle_timeout_s=idle_timeout_s,
                total_due=total_due,
            )
            try:
                await connection.head_arrived
                return answer
            except ResetBeforeAnswer as error:
                replayable = body is None or isinstance(body, bytes)
                if raced is not None or not was_reused or not error.silent or not replayable:
                    raise
                raced = error
            except BaseException:
                answer.close()
                raise
            try:
                connection = await _connect(route, connect_timeout_s=connect_timeout_s, total_due=total_due, fresh=True)
            except (ConnectFailed, TimedOut) as error:
                # The first attempt was sent: what became of it is not known, whatever the second met.
                raise ResetBeforeAnswer(f"{raced}, and then: {error}", silent=True) from error

    def connections(self, origin: Origin) -> tuple[int, int]:
        """How many connections to `origin` are open, and how many of them are idle."""
        route = self._routes.get(origin)
        return (route.pool.open_connections, route.pool.idle_connections) if route is not None else (0, 0)

    async def close(self) -> None:
        """Close every connection, those in use too; requests afterwards raise `ConnectFailed`."""
        self._closed = True
        routes = tuple(self._routes.values())
        self._routes.clear()
        await asyncio.gather(*(route.pool.close() for route in routes))

    def _open_route(self, origin: Origin) -> _Route:
        if self._closed:
            raise ConnectFailed("the client is closed")
        route = self._routes[origin] = _Route(
            origin, dialer=self._dialer, limit=self._limit, keepalive_s=self._keepalive_s
        )
        return route


class _Route:
    """What every request to one origin shares, computed once."""

    __slots__ = ("host", "loop", "origin", "pool", "proxy_headers", "via_proxy")

    def __init__(self, origin: Origin, *, dialer: Dialer, limit: int, keepalive_s: float) -> None:
        self.origin = origin
        self.host = origin.host_header
        self.loop = asyncio.get_running_loop()
        self.pool = Pool(lambda: dialer.dial(origin), limit=limit, keepalive_s=keepalive_s, loop=self.loop)
        proxy = dialer.absolute_form_proxy(origin)
        self.via_proxy = b"http://" + self.host if proxy is not None else b""
        self.proxy_headers = proxy.headers if proxy is not None else ()


async def _connect(
    route: _Route, *, connect_timeout_s: float | None, total_due: float, fresh: bool = False
) -> Connection:
    now = route.loop.time()
    due = min(total_due, inf if connect_timeout_s is None else now + connect_timeout_s)
    try:
        async with asyncio.timeout_at(due if due < inf else None):
            return await route.pool.connect(fresh=fresh)
    except TimeoutError:
        raise TimedOut(
            f"no connection to {route.origin.authority} within {due - now:.3g} s",
            phase="total" if due == total_due else "connect",
            nothing_sent=True,
        ) from None
