"""The processes of an overspend run: gateways that are killed and come back, their upstream, their Redis."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from benchmarks.overspend.cases import MODEL, Scale, budgets, keys

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """A child of ours and its log."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._command = command
        self._log = log
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again."""
        with self._log.open("ab") as log:
            self.child = subprocess.Popen(self._command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

    def send(self, what: signal.Signals) -> None:
        """Signal it."""
        assert self.child is not None
        self.child.send_signal(what)

    async def kill(self) -> None:
        """``kill -9``, and wait until it is gone."""
        self.send(signal.SIGKILL)
        await self.gone()

    async def gone(self, within_s: float = 30.0) -> int:
        """Wait until it has ended; returns its exit status. What does not end in time is killed."""
        assert self.child is not None
        deadline_s = time.monotonic() + within_s
        while self.child.poll() is None:
            if time.monotonic() > deadline_s:
                self.child.kill()
            await asyncio.sleep(0.02)
        return int(self.child.returncode)

    @property
    def log_text(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace")


class Gateway(Process):
    """One ``tollgate serve`` on a port of its own."""

    def __init__(self, number: int, folder: Path, config: dict[str, Any]) -> None:
        self.port = free_port()
        self.drains = config["server"]["on_disconnect"] == "drain"
        self.workers = config["server"]["workers"]
        self.url = f"http://127.0.0.1:{self.port}"
        self.up = False
        path = folder / f"gateway{number}.yaml"
        config["server"]["port"] = self.port
        path.write_text(yaml.safe_dump(config))
        super().__init__(
            [sys.executable, "-m", "gateway", "serve", "--config", str(path)], folder / f"gateway{number}.log"
        )

    async def kill_one(self, client: aiohttp.ClientSession, luck: random.Random) -> None:
        """``kill -9`` this process and start it again, or one of its workers, which comes back by itself."""
        if self.workers > 1:
            # One may be gone between being listed and being killed: workers are also replaced in the course of things.
            with suppress(ProcessLookupError):
                os.kill(luck.choice(self._worker_pids()), signal.SIGKILL)
            return
        self.up = False
        await self.kill()
        self.start()
        await self.ready(client)

    def _worker_pids(self) -> list[int]:
        assert self.child is not None
        children = Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    async def ready(self, client: aiohttp.ClientSession, *, within_s: float = 60.0) -> None:
        """Wait until it serves and has its tokenizer loaded."""
        deadline_s = time.monotonic() + within_s
        while True:
            try:
                counted = {"text": "word", "model_name": MODEL}
                async with client.post(self.url + "/calculate", json=counted) as answer:
                    if answer.status == 200:
                        self.up = True
                        return
            except aiohttp.ClientError:
                pass
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"gateway on port {self.port} did not come up:\n{self.log_text[-2000:]}")
            await asyncio.sleep(0.1)


def gateway_config(scale: Scale, *, store_url: str, upstream_url: str, drain: bool, models_dir: str) -> dict[str, Any]:
    """config.yaml of one gateway of the fleet."""
    return {
        "server": {
            "host": "127.0.0.1",
            "workers": scale.workers,
            "on_disconnect": "drain" if drain else "cancel",
            "log_level": "WARNING",
            "shutdown_timeout": "20s",
        },
        "store": {"url": store_url, "hold_timeout": f"{scale.hold_timeout_s}s"},
        "tokenizers": {"dir": models_dir, "preload": ["o200k_base"]},
        "upstreams": [{"name": "ledger", "url": upstream_url, "api_key": "sk-upstream"}],
        "keys": keys(),
        "budgets": budgets(scale),
    }


def redis_process(folder: Path, port: int) -> Process:
    """A Redis of our own, in memory, on a loopback port."""
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    return Process([*command, "--client-output-buffer-limit", "normal 0 0 0"], folder / "redis.log")


async def accepts(port: int, *, within_s: float = 20.0) -> None:
    """Wait until somebody listens on a port."""
    deadline_s = time.monotonic() + within_s
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"nothing listens on port {port}") from None
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
