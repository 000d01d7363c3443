"""Several processes on one socket, kept alive by gunicorn's arbiter.

Everything heavy is loaded before the fork, so that its pages are shared; everything with a thread, a socket or an
event loop is made after it, in each worker. A worker that dies is replaced; SIGTERM lets running requests finish.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

import structlog
from aiohttp import web
from aiohttp.worker import GunicornWebWorker
from gunicorn import glogging
from gunicorn.app.base import BaseApplication
from prometheus_client import multiprocess

from gateway.serving import BACKLOG, KEEPALIVE_S, MakeApp, make_runner, new_event_loop, ssl_context
from gateway.settings import ServerSettings

METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"
STALLED_S = 60
"""A worker whose event loop has not turned for so long is replaced."""


def share_metrics_between_workers() -> str | None:
    """Give the workers a directory to add their metrics up in; returns it when it is ours to delete.

    Must run before anything imports prometheus_client's metrics: it picks its storage at import.
    """
    if os.environ.get(METRICS_DIR):
        return None
    path = tempfile.mkdtemp(prefix="tollgate-metrics-")
    os.environ[METRICS_DIR] = path
    return path


def serve_with_workers(make_app: MakeApp, server: ServerSettings, *, workers: int) -> None:
    """Serve with `workers` processes until SIGTERM or SIGINT. Never returns: the arbiter exits the process."""
    metrics_dir = os.environ.get(METRICS_DIR)
    try:
        _Supervisor(make_app, server, workers=workers).run()
    finally:
        if metrics_dir and os.path.basename(metrics_dir).startswith("tollgate-metrics-") and _is_master():
            shutil.rmtree(metrics_dir, ignore_errors=True)


_master_pid = os.getpid()


def _is_master() -> bool:
    return os.getpid() == _master_pid


class _Log(glogging.Logger):  # type: ignore[misc]
    """gunicorn's messages go through the standard library into our own chain."""

    def setup(self, cfg: Any) -> None:
        self.loglevel = logging.INFO
        self.error_log = logging.getLogger("gunicorn")
        self.error_log.setLevel(logging.WARNING)
        self.access_log = logging.getLogger("gunicorn.access")
        self.access_log.disabled = True

    def reopen_files(self) -> None:
        """Logs go to standard output: there is no file to reopen."""

    def close_on_exec(self) -> None:
        """No file either."""


class _Worker(GunicornWebWorker):
    """aiohttp's worker on uvloop, which stops listening the moment it is told."""

    def init_process(self) -> None:
        asyncio.set_event_loop(None)
        self.loop = new_event_loop()
        asyncio.set_event_loop(self.loop)
        super(GunicornWebWorker, self).init_process()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._notify_waiter_done()

    @staticmethod
    def _create_ssl_context(cfg: Any) -> Any:
        return cfg.tollgate_ssl_context


class _Supervisor(BaseApplication):  # type: ignore[misc]
    def __init__(self, make_app: MakeApp, server: ServerSettings, *, workers: int) -> None:
        self._make_app = make_app
        self._server = server
        self._workers = workers
        self._ssl_context = ssl_context(server.tls)
        super().__init__(prog="tollgate")

    def load_config(self) -> None:
        server = self._server
        host = f"[{server.host}]" if ":" in server.host else server.host
        options: dict[str, Any] = {
            "bind": f"{host}:{server.port}",
            "workers": self._workers,
            "worker_class": _Worker,
            "logger_class": _Log,
            "backlog": BACKLOG,
            "keepalive": int(KEEPALIVE_S),
            "timeout": STALLED_S,
            "graceful_timeout": int(server.shutdown_timeout_s) + 5,
            "control_socket_disable": True,
            "worker_tmp_dir": "/dev/shm" if os.path.isdir("/dev/shm") else None,  # noqa: S108 - a heartbeat file
            "when_ready": _announce,
            "child_exit": _forget_metrics,
            "on_exit": _say_stopped,
        }
        if server.tls is not None:
            options["certfile"] = str(server.tls.cert)
            options["keyfile"] = str(server.tls.key)
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Callable[[], Awaitable[web.AppRunner]]:
        async def runner() -> web.AppRunner:
            return make_runner(await self._make_app(), self._server)

        return runner


def _announce(arbiter: Any) -> None:
    address = arbiter.LISTENERS[0].sock.getsockname()
    log = structlog.get_logger("serve")
    log.info("listening", host=address[0], port=address[1], tls=bool(arbiter.cfg.is_ssl), workers=arbiter.num_workers)


def _forget_metrics(_arbiter: Any, worker: Any) -> None:
    if os.environ.get(METRICS_DIR):
        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _say_stopped(_arbiter: Any) -> None:
    structlog.get_logger("serve").info("stopped")
