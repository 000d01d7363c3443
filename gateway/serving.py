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
from typing import Any, cast

import structlog
from aiohttp import web

from gateway.connections import ConnectionLimits
from gateway.entrance import Entrance
from gateway.load import share
from gateway.settings import ServerSettings, TlsSettings

BACKLOG = 2048
COLLECT_AFTER = (20_000, 20, 20)
"""Objects that may pile up before the young are collected, and how many such rounds before the older are."""
_OWN_FILES = 256
"""Files a worker opens besides its connections."""

LATE_S = 0.5
"""How long a connection taken just before the listening ended may take to bring its request."""

_STOPPING = ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK")
"""Windows has no hangup, and Ctrl-Break is its own."""

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


class _Runner(web.AppRunner):
    """Guards every connection, whichever site takes it.

    Answers, before it closes idle connections, those that were taken in the moment the listening ended: aiohttp
    counts them as idle while their request is still on its way, and their callers would get no answer at all.
    """

    def __init__(self, app: web.Application, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(app, **options)
        self._limits = limits

    async def _make_server(self) -> web.Server:
        return cast("web.Server", Entrance(await super()._make_server(), self.app, self._limits))

    async def cleanup(self) -> None:
        for site in list(self.sites):
            await site.stop()
        if self._server is not None and self._server.connections:
            await asyncio.sleep(LATE_S)
        await super().cleanup()


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


def _heed(loop: asyncio.AbstractEventLoop, wanted: signal.Signals, on_signal: Callable[[signal.Signals], None]) -> None:
    try:
        loop.add_signal_handler(wanted, on_signal, wanted)
    except NotImplementedError:  # Windows' loops are told of none
        signal.signal(wanted, lambda *_: loop.call_soon_threadsafe(on_signal, wanted))


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

    for name in _STOPPING:
        if hasattr(signal, name):
            _heed(loop, getattr(signal, name), on_signal)
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
