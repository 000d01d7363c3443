"""Several processes on one socket, kept alive by gunicorn's arbiter.

The first workers are forked at once, so that they answer within a second. Then the tokenizers are loaded, here, and
workers forked after that take over: they share those pages. Everything with a thread, a socket or an event loop is
made in each worker. A worker that dies is replaced; SIGTERM lets running requests finish.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any

import structlog
from aiohttp import web
from aiohttp.worker import GunicornWebWorker
from gunicorn import glogging
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from gateway.serving import (
    BACKLOG,
    MakeApp,
    bind,
    make_runner,
    new_event_loop,
    raise_file_limit,
    spare_the_collector,
    ssl_context,
)
from gateway.settings import ServerSettings
from policies.model import StoreLost

METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"
_METRICS_PREFIX = "tollgate-metrics-"
STALLED_S = 60
"""A worker whose event loop has not turned for so long is replaced."""


_BEFORE_FORK = {
    # The engines keep thread pools that a forked worker would inherit without their threads, and wait for in vain
    # (seen with fastokens 0.3.5 and tokenizers 0.23: a long text never returned). So: no pool before the fork.
    # The worker processes themselves are the parallelism.
    "FASTOKENS_BPE_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def prepare_environment() -> None:
    """Set what libraries read from the environment when they are imported; to be called before they are.

    prometheus_client picks its storage then: a directory in which the workers' metrics add up.
    """
    for name, value in _BEFORE_FORK.items():
        os.environ.setdefault(name, value)
    if not os.environ.get(METRICS_DIR):
        os.environ[METRICS_DIR] = tempfile.mkdtemp(prefix=_METRICS_PREFIX)


def freeze_before_fork() -> None:
    """Settle what has been loaded so that workers share its pages, and warn of threads that would not survive."""
    threads = _threads()
    if threads > 1:
        structlog.get_logger("serve").warning("threads_before_fork", threads=threads)
    gc.collect()
    gc.freeze()


def _threads() -> int:
    """Threads of this process, native ones included, where the system tells."""
    tasks = "/proc/self/task"
    return len(os.listdir(tasks)) if os.path.isdir(tasks) else threading.active_count()


def serve_with_workers(
    make_app: MakeApp, server: ServerSettings, *, workers: int, loading: Iterator[None] | None = None
) -> None:
    """Serve with `workers` processes until SIGTERM or SIGINT. Never returns: the arbiter exits the process.

    `loading` is what workers shall share, loaded step by step while the first of them already answer.
    Raises `CannotListen`.
    """
    raise_file_limit(server)
    metrics_dir = os.environ.get(METRICS_DIR)
    master = os.getpid()
    freeze_before_fork()
    try:
        _Supervisor(make_app, server, workers=workers, loading=loading or iter(())).run()
    finally:
        if metrics_dir and os.path.basename(metrics_dir).startswith(_METRICS_PREFIX) and os.getpid() == master:
            shutil.rmtree(metrics_dir, ignore_errors=True)


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


_STOPPING = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}


class _Arbiter(Arbiter):  # type: ignore[misc]
    """Loads what workers share once the first of them are forked, and then puts new ones in their place.

    Holds back signals around a fork: until the new worker's loop runs, it would take them and forget them.
    SIGHUP goes on to the workers, which reload in place; gunicorn's own way would replace them.
    """

    def __init__(self, app: Any, loading: Iterator[None]) -> None:
        super().__init__(app)
        self._loading: Iterator[None] | None = loading
        self._loaded = 0

    def manage_workers(self) -> None:
        super().manage_workers()
        if self._loading is None:
            return
        # One step a turn, so that signals are heard in between. On the main thread: a fork beside a thread that
        # loads would copy its locks, taken.
        if next(self._loading, self) is not self:
            self._loaded += 1
            self.wakeup()
            return
        self._loading = None
        if self._loaded:
            freeze_before_fork()
            for _ in range(self.num_workers):
                self.spawn_worker()
            super().manage_workers()  # the oldest are more than wanted now: they finish what they do, and go

    def handle_hup(self) -> None:
        self.kill_workers(signal.SIGHUP)

    def spawn_worker(self) -> Any:
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
        try:
            return super().spawn_worker()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)


class _Worker(GunicornWebWorker):
    """aiohttp's worker on uvloop, which stops listening the moment it is told."""

    def init_process(self) -> None:
        asyncio.set_event_loop(None)
        self.loop = new_event_loop()
        asyncio.set_event_loop(self.loop)
        super(GunicornWebWorker, self).init_process()

    def init_signals(self) -> None:
        super().init_signals()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the application takes it: the file is read then anyway
        self.loop.call_soon(signal.pthread_sigmask, signal.SIG_UNBLOCK, _STOPPING)

    async def _run(self) -> None:
        try:
            await super()._run()
        except StoreLost as lost:
            structlog.get_logger("serve").error("store_lost", reason=str(lost))
            raise SystemExit(1 if self.booted else Arbiter.WORKER_BOOT_ERROR) from None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._notify_waiter_done()

    def _create_ssl_context(self, cfg: Any) -> Any:  # type: ignore[override]  # there it only knows the options
        return self.app.ssl_context


class _Supervisor(BaseApplication):  # type: ignore[misc]
    def __init__(self, make_app: MakeApp, server: ServerSettings, *, workers: int, loading: Iterator[None]) -> None:
        self._make_app = make_app
        self._server = server
        self._workers = workers
        self._loading = loading
        self.ssl_context = ssl_context(server.tls)
        self._listening_fd = bind(server).detach()
        super().__init__(prog="tollgate")

    def load_config(self) -> None:
        server = self._server
        options: dict[str, Any] = {
            "bind": f"fd://{self._listening_fd}",
            "workers": self._workers,
            "worker_class": _Worker,
            "logger_class": _Log,
            "backlog": BACKLOG,
            "keepalive": int(server.keepalive_timeout_s),
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

    def run(self) -> None:
        _Arbiter(self, self._loading).run()

    def load(self) -> Callable[[], Awaitable[web.AppRunner]]:
        async def runner() -> web.AppRunner:
            spare_the_collector()
            return make_runner(await self._make_app(), self._server)

        return runner


def _announce(arbiter: Any) -> None:
    address = arbiter.LISTENERS[0].sock.getsockname()
    log = structlog.get_logger("serve")
    log.info("listening", host=address[0], port=address[1], tls=bool(arbiter.cfg.is_ssl), workers=arbiter.num_workers)


def _forget_metrics(_arbiter: Any, worker: Any) -> None:
    if os.environ.get(METRICS_DIR):
        from prometheus_client import multiprocess  # late: see prepare_environment

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _say_stopped(_arbiter: Any) -> None:
    structlog.get_logger("serve").info("stopped")
