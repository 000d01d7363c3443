"""The whole gateway in several processes: `tollgate serve --workers 2` as it is deployed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import MODELS_DIR, digest

ROOT = Path(__file__).resolve().parents[2]
PRELOADED = ("llama-2", "deepseek-coder", "claude-legacy")
FITS, CALLERS = 100, 500
CHAT = {"model": "llama-2", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}


@dataclass
class Deployment:
    process: subprocess.Popen[bytes]
    url: str
    log: Path
    config: Path

    def post(self, path: str, body: object, *, key: str = "sk-alice") -> tuple[int, Any]:
        """POST on a connection of its own, so that either worker may take it."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}", "Connection": "close"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def get(self, path: str) -> str:
        request = urllib.request.Request(self.url + path, headers={"Authorization": "Bearer sk-alice"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(answer.read().decode())

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def budget(self, name: str) -> dict[str, Any]:
        return next(row for row in json.loads(self.get("/budgets"))["data"] if row["budget"] == name)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("workers")
    config = folder / "config.yaml"
    config.write_text(
        f"""
        server: {{host: 127.0.0.1, shutdown_timeout: 5s, log_format: json}}
        store: {{url: "sqlite:///{folder / "budgets.db"}"}}
        tokenizers: {{dir: "{MODELS_DIR}", preload: [{", ".join(PRELOADED)}]}}
        upstreams: [{{name: echo, url: "echo:"}}]
        keys:
          - {{id: alice, digest: "{digest("sk-alice")}"}}
          - {{id: crowd, digest: "{digest("sk-crowd")}"}}
        budgets:
          - {{name: alice, match: {{key: alice}}, limits: [{{tokens: 1M, per: day}}]}}
          - {{name: crowd, match: {{key: crowd}}, limits: [{{requests: {FITS}, per: day}}]}}
        """,
        encoding="utf-8",
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    log = folder / "log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(config), "--port", str(port)]
        process = subprocess.Popen(
            [*command, "--workers", "2"], stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=environment
        )
    running = Deployment(process, f"http://127.0.0.1:{port}", log, config)
    deadline = time.monotonic() + 30
    while True:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            running.get("/health")
            if len(running.workers()) == 2:
                break
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    yield running
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    assert "Traceback" not in log.read_text()


def unlike_any_other(seed: int, *, words: int) -> str:
    generator = random.Random(seed)
    return " ".join(f"w{generator.randrange(5000)}x{generator.randrange(10**6)}" for _ in range(words))


def test_nothing_has_threads_before_the_fork(deployment: Deployment) -> None:
    assert "threads_before_fork" not in deployment.log.read_text()
    assert len(deployment.workers()) == 2


@pytest.mark.parametrize("model", ["llama-2", "deepseek-coder", "claude-2"])
def test_long_new_text_is_counted_in_every_worker(deployment: Deployment, model: str) -> None:
    """Engines keep thread pools; one made before the fork would hang each worker on its first long text."""
    texts = [unlike_any_other(seed, words=20_000) for seed in range(4)]
    answers = [deployment.post("/calculate", {"text": text, "model_name": model}) for text in texts]
    assert all(status == 200 and body["token_count"] > 20_000 for status, body in answers)


def test_many_texts_are_counted_in_every_worker(deployment: Deployment) -> None:
    for seed in range(4):
        texts = [unlike_any_other(100 * seed + each, words=50) for each in range(200)]
        status, body = deployment.post("/batch-calculate", {"texts": texts, "model_name": "deepseek-coder"})
        assert (status, body["count"]) == (200, 200)


def test_metrics_are_those_of_all_workers(deployment: Deployment) -> None:
    def counted() -> float:
        lines = re.findall(r"^tollgate_requests_total\{[^}]*\} (\S+)$", deployment.get("/metrics"), re.MULTILINE)
        return sum(map(float, lines))

    before = counted()
    for _ in range(20):
        assert deployment.post("/v1/chat/completions", CHAT)[0] == 200
    assert 20 <= counted() - before <= 22, "twenty, and those that asked for metrics"


async def test_exactly_as_many_pass_as_fit_over_two_workers(deployment: Deployment) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as client:

        async def ask() -> int:
            headers = {"Authorization": "Bearer sk-crowd"}
            async with client.post(deployment.url + "/v1/chat/completions", json=CHAT, headers=headers) as answer:
                await answer.read()
                return answer.status

        statuses = await asyncio.gather(*(ask() for _ in range(CALLERS)))
    assert (statuses.count(200), statuses.count(429)) == (FITS, CALLERS - FITS)


def test_budget_is_what_upstream_reported_and_outlives_kill_9(deployment: Deployment) -> None:
    before = deployment.budget("alice")["used"]
    spent = 0
    for _ in range(10):
        status, body = deployment.post("/v1/chat/completions", CHAT)
        assert status == 200
        spent += body["usage"]["total_tokens"]
    assert deployment.budget("alice")["used"] == before + spent
    for worker in deployment.workers():
        os.kill(worker, signal.SIGKILL)
    deadline = time.monotonic() + 15
    while True:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            found = deployment.budget("alice")
            break
        assert time.monotonic() < deadline, "no worker came back"
        time.sleep(0.05)
    assert (found["used"], found["held"]) == (before + spent, 0)


def test_status_command_reads_the_same_store(deployment: Deployment) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "status", "--config", str(deployment.config), "--key", "alice", "--json"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=ROOT,
    )
    assert json.loads(done.stdout)[0]["used"] == deployment.budget("alice")["used"] > 0
