"""Processes: listening, draining, replacing. Each test drives a real child process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import asyncio, os, sys
from aiohttp import web
from gateway.logging import configure_logging
from gateway.settings import ServerSettings

async def make_app():
    async def pid(request):
        return web.json_response(os.getpid())
    async def slow(request):
        await asyncio.sleep(float(request.query["s"]))
        return web.Response(text="done")
    app = web.Application()
    app.router.add_get("/", pid)
    app.router.add_get("/slow", slow)
    return app

configure_logging(style="json")
port, workers, drain = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
server = ServerSettings(host="127.0.0.1", port=port, shutdown_timeout_s=drain)
if workers > 1:
    from gateway.workers import serve_with_workers, share_metrics_between_workers
    share_metrics_between_workers()
    serve_with_workers(make_app, server, workers=workers)
else:
    from gateway.serving import serve_here
    serve_here(make_app, server)
"""


@dataclass
class Child:
    process: subprocess.Popen[str]
    port: int

    def get(self, path: str = "/") -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(sig)
        return self.process.wait(timeout=15)


Start = Callable[..., Child]


def wait_until(condition: Callable[[], bool], *, for_s: float = 10) -> None:
    deadline = time.monotonic() + for_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    children: list[Child] = []

    def start_child(*, workers: int, drain_s: float = 5) -> Child:
        port = free_port()
        environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
        environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
        arguments = [sys.executable, "-c", CHILD, str(port), str(workers), str(drain_s)]
        output = (tmp_path / "output").open("w")
        process = subprocess.Popen(arguments, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True)
        output.close()
        child = Child(process, port)
        children.append(child)

        def answers() -> bool:
            assert process.poll() is None, (tmp_path / "output").read_text()
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                return bool(child.get())
            return False

        wait_until(answers)
        return child

    yield start_child
    for child in children:
        if child.process.poll() is None:
            child.process.kill()
            child.process.wait()


@pytest.mark.parametrize("workers", [1, 2])
def test_running_request_is_finished_when_told_to_stop(start: Start, workers: int) -> None:
    child = start(workers=workers)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(child.get, "/slow?s=1")
        time.sleep(0.3)
        assert child.stop() == 0
        assert running.result() == "done"


@pytest.mark.parametrize("workers", [1, 2])
def test_no_new_connection_is_taken_while_draining(start: Start, workers: int) -> None:
    child = start(workers=workers)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(child.get, "/slow?s=1.5")
        time.sleep(0.3)
        child.process.send_signal(signal.SIGTERM)

        def refused() -> bool:
            try:
                child.get()
            except (urllib.error.URLError, ConnectionError):
                return True
            return False

        wait_until(refused, for_s=1)
        assert running.result() == "done"


def test_draining_ends_at_the_deadline(start: Start) -> None:
    child = start(workers=1, drain_s=0.3)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(child.get, "/slow?s=30")
        time.sleep(0.3)
        assert child.stop() == 0
        with pytest.raises((urllib.error.URLError, ConnectionError, OSError)):
            running.result()


def test_second_signal_does_not_wait(start: Start) -> None:
    child = start(workers=1, drain_s=30)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(child.get, "/slow?s=30")
        time.sleep(0.3)
        child.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert child.stop() == 128 + signal.SIGTERM
        with pytest.raises((urllib.error.URLError, ConnectionError, OSError)):
            running.result()


def test_dead_worker_is_replaced(start: Start) -> None:
    child = start(workers=2)
    killed = int(child.get())
    os.kill(killed, signal.SIGKILL)
    seen = {killed}

    def someone_else_answers() -> bool:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            seen.add(int(child.get()))
        return len(seen) >= 2 and killed not in {int(child.get()) for _ in range(3)}

    wait_until(someone_else_answers)
    assert child.process.poll() is None
    assert child.stop() == 0


def test_metrics_directory_is_gone_after_the_last_worker(start: Start, tmp_path: Path) -> None:
    child = start(workers=2)
    assert list(tmp_path.glob("tollgate-metrics-*"))
    child.stop()
    assert not list(tmp_path.glob("tollgate-metrics-*"))


def test_lines_about_listening_are_json(start: Start, tmp_path: Path) -> None:
    child = start(workers=2)
    child.stop()
    events = [json.loads(line) for line in (tmp_path / "output").read_text().splitlines()]
    listening = next(event for event in events if event["event"] == "listening")
    assert (listening["port"], listening["workers"], listening["tls"]) == (child.port, 2, False)
    assert events[-1]["event"] == "stopped"
