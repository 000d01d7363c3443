"""Processes: listening, draining, replacing. Each test drives a real child process."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.serving import CannotListen, bind, ssl_context
from gateway.settings import ServerSettings, TlsSettings

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import asyncio, os, sys
from aiohttp import web
from gateway.logging import configure_logging
from gateway.settings import ServerSettings, TlsSettings

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
tls = TlsSettings(*sys.argv[4:6]) if len(sys.argv) > 4 else None
server = ServerSettings(host="127.0.0.1", port=port, shutdown_timeout_s=drain, tls=tls)
if workers > 1:
    from gateway.workers import prepare_environment, serve_with_workers
    prepare_environment()
    serve_with_workers(make_app, server, workers=workers)
else:
    from gateway.serving import serve_here
    serve_here(make_app, server)
"""


@dataclass
class Child:
    process: subprocess.Popen[str]
    port: int
    trust: ssl.SSLContext | None = None

    def get(self, path: str = "/") -> str:
        url = f"{'https' if self.trust else 'http'}://127.0.0.1:{self.port}{path}"
        with urllib.request.urlopen(url, timeout=10, context=self.trust) as answer:
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

    def start_child(*, workers: int, drain_s: float = 5, tls: tuple[Path, Path] | None = None) -> Child:
        port = free_port()
        environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
        environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
        arguments = [sys.executable, "-c", CHILD, str(port), str(workers), str(drain_s), *map(str, tls or ())]
        output = (tmp_path / "output").open("w")
        process = subprocess.Popen(arguments, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True)
        output.close()
        child = Child(process, port, ssl.create_default_context(cafile=tls[0]) if tls else None)
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


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    files = tmp_path / "tls.crt", tmp_path / "tls.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    unencrypted = serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, unencrypted))
    return files


@pytest.mark.parametrize("workers", [1, 2])
def test_https_is_served_when_there_is_a_certificate(
    start: Start, workers: int, certificate: tuple[Path, Path]
) -> None:
    child = start(workers=workers, tls=certificate)
    assert int(child.get()) > 0
    assert child.stop() == 0


def test_bad_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotListen, match=r"tls\.crt and .*tls\.key cannot be used"):
        ssl_context(TlsSettings(tmp_path / "tls.crt", tmp_path / "tls.key"))


def test_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=f"127.0.0.1:{port} is in use"):
            bind(ServerSettings(host="127.0.0.1", port=port))


def test_unknown_address_is_named() -> None:
    with pytest.raises(CannotListen, match=r"cannot listen on 203\.0\.113\.1:8000"):
        bind(ServerSettings(host="203.0.113.1"))
