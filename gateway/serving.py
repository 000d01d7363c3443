"""One process that listens: runner, socket, signals, the end. `gateway.workers` runs several of these."""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.connections import ConnectionLimits, Connections, Phase
from gateway.endpoints.answers import error_body
from gateway.errors import BadRequest
from gateway.load import share
from gateway.runtime import RUNTIME
from gateway.settings import ServerSettings, TlsSettings

if TYPE_CHECKING:
    from gateway.metrics import Metrics

BACKLOG = 2048
COLLECT_AFTER = (20_000, 20, 20)
"""Objects that may pile up before the young are collected, and how many such rounds before the older are."""
_OWN_FILES = 256
"""Files a worker opens besides its connections."""

LATE_S = 0.5
"""How long a connection taken just before the listening ended may take to bring its request."""

MakeApp = Callable[[], Awaitable[web.Application]]


class CannotListen(Exception):
    """The address cannot be bound; the message says which one and what to do."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop where there is one, asyncio's own loop elsewhere."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def spare_the_collector() -> None:
    """Keep what lives as long as the process out of every garbage collection, and collect less often.

    A request makes some thousand objects and leaves almost no cycles behind: at Python's usual 700 it would be
    collected for nothing several times (7 to 12 % of its CPU, measured).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


class _Progress:
    """What the guards of `gateway.connections` must know of aiohttp's protocol; it has no public words for it."""

    def progress(self, protocol: asyncio.Protocol) -> tuple[int, Phase]:
        handler = cast(web.RequestHandler, protocol)
        request, heads = handler._current_request, handler._request_count
        if request is not None:
            return heads, "answer" if request.content.is_eof() else "body"
        return heads, "answer" if handler._request_in_progress or handler._messages else "head"

    def end_body(self, protocol: asyncio.Protocol) -> None:
        request = cast(web.RequestHandler, protocol)._current_request
        if request is not None:
            request.content.set_exception(TimeoutError())


class _Handler(web.RequestHandler):
    """aiohttp's protocol, which says what is wrong with bytes that are no HTTP and not what they were: they may hold
    a credential, and their sender is no one yet, who may send many."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        reason = exc.message.partition("\n")[0].rstrip(":.")
        if "'" in reason or not reason:  # it cites what came
            reason = type(exc).__name__
        structlog.get_logger("serve").info("bad_http", client=request.remote, reason=reason)
        error = BadRequest(f"This is not a request in HTTP/1.1: {reason}.", code="bad_http")
        response = web.Response(status=400, body=error_body(error), content_type="application/json")
        response.force_close()
        return response


class _Entrance:
    """aiohttp's server as the factory of guarded connections; everything else is the server's own."""

    def __init__(self, server: web.Server, connections: Connections) -> None:
        self._server = server
        self._connections = connections

    def __call__(self) -> asyncio.Protocol:
        return self._connections.guard(self._make)

    def _make(self) -> asyncio.Protocol:
        return _Handler(self._server, loop=self._server._loop, **self._server._kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)


class _Runner(web.AppRunner):
    """Guards every connection, whichever site takes it.

    Answers, before it closes idle connections, those that were taken in the moment the listening ended: aiohttp
    counts them as idle while their request is still on its way, and their callers would get no answer at all.
    """

    def __init__(self, app: web.Application, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(app, **options)
        self._connections = Connections(limits, _Progress(), metrics=lambda: _metrics_of(app))
        self._entrance: _Entrance | None = None
        self._sweeping: asyncio.Task[None] | None = None

    @property
    def server(self) -> web.Server | None:
        return cast("web.Server | None", self._entrance)

    async def setup(self) -> None:
        await super().setup()
        assert self._server is not None
        self._entrance = _Entrance(self._server, self._connections)
        self._sweeping = asyncio.create_task(self._connections.run())

    async def cleanup(self) -> None:
        for site in list(self.sites):
            await site.stop()
        if self._server is not None and self._server.connections:
            await asyncio.sleep(LATE_S)
        await super().cleanup()
        if self._sweeping is not None:
            self._sweeping.cancel()


def _metrics_of(app: web.Application) -> Metrics | None:
    holder = app.get(RUNTIME)
    return holder.current.metrics if holder is not None else None


def make_runner(app: web.Application, server: ServerSettings) -> web.AppRunner:
    """Wrap an application so that it serves: no second access log, running requests may finish."""
    limits = ConnectionLimits(
        most=share(server.max_connections, server.processes),
        header_timeout_s=server.header_timeout_s,
        body_timeout_s=server.body_timeout_s,
        idle_timeout_s=server.keepalive_timeout_s,
    )
    return _Runner(
        app,
        limits,
        access_log=None,
        handle_signals=False,
        # Idle connections are the guards' care: aiohttp's own timer would take a slow head for one, and say nothing.
        keepalive_timeout=2 * (server.keepalive_timeout_s + server.header_timeout_s),
        shutdown_timeout=server.shutdown_timeout_s,
    )


def ssl_context(tls: TlsSettings | None) -> ssl.SSLContext | None:
    """Load the certificate. Raises `CannotListen` when it cannot be used."""
    if tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise CannotListen(f"the TLS files {tls.cert} and {tls.key} cannot be used: {error}") from None
    return context


def raise_file_limit(server: ServerSettings) -> None:
    """Let the process open a file for every connection it may have, and one upstream for each, as far as it may."""
    if sys.platform == "win32":
        return
    import resource

    wanted = 2 * share(server.max_connections, server.processes) + _OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    may = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, may), hard))
    if may < wanted:
        structlog.get_logger("serve").warning("file_limit_low", may_open=may, wanted=wanted)


def bind(server: ServerSettings) -> socket.socket:
    """Open the listening socket. Raises `CannotListen`."""
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((server.host, server.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        where = f"{server.host}:{server.port}"
        if error.errno == errno.EADDRINUSE:
            raise CannotListen(f"{where} is in use; stop what listens there, or choose with --port or PORT") from None
        raise CannotListen(f"cannot listen on {where}: {error.strerror}; choose with --host and --port") from None
    listener.setblocking(False)
    return listener


def serve_here(make_app: MakeApp, server: ServerSettings) -> None:
    """Serve in this process until SIGTERM or SIGINT (SIGHUP too, where the application does not take that as a wish to
    reload); a second signal does not wait for running requests."""
    raise_file_limit(server)
    listener = bind(server)
    context = ssl_context(server.tls)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(make_app, server, listener, context))


async def _serve(
    make_app: MakeApp, server: ServerSettings, listener: socket.socket, context: ssl.SSLContext | None
) -> None:
    log = structlog.get_logger("serve")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    stopping: list[signal.Signals] = []

    def on_signal(received: signal.Signals) -> None:
        if stopping:
            log.warning("stopping at once", signal=received.name)
            raise SystemExit(128 + received)
        stopping.append(received)
        stop.set()

    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(each, on_signal, each)
    runner = make_runner(await make_app(), server)
    await runner.setup()
    try:
        await web.SockSite(runner, listener, ssl_context=context, backlog=BACKLOG).start()
        spare_the_collector()
        host, port = listener.getsockname()[:2]
        log.info("listening", host=host, port=port, tls=context is not None, workers=1)
        await stop.wait()
        log.info("draining", signal=stopping[0].name, deadline_s=server.shutdown_timeout_s)
    finally:
        await runner.cleanup()
    log.info("stopped")
