"""A real Redis for tests: started, stopped, frozen and started again, on a socket or a loopback port of its own."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """On a Unix socket, or on a port where one is given. `options` are those of the command line."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self.socket = folder / "redis.sock"
        self.port = port
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def installed() -> bool:
        return shutil.which("redis-server") is not None

    def url(self, *, prefix: str) -> str:
        return f"unix://{self.socket}?prefix={prefix}"

    def start(self) -> None:
        """Start the server and wait until it listens."""
        self._folder.mkdir(exist_ok=True)
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket)]
        command += ["--save", "", "--dir", str(self._folder), *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        for _ in range(500):
            if self._listens():
                return
            time.sleep(0.01)
        raise RuntimeError("redis-server did not start")

    def freeze(self) -> None:
        """Stop it from answering while its sockets stay open."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def stop(self) -> None:
        process, self._process = self._running(), None
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()

    def command(self, *words: str) -> str:
        """Run a command by redis-cli and return what it prints."""
        done = subprocess.run(["redis-cli", "-s", str(self.socket), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(self.socket)) == 0
