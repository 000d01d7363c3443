"""The documented ways to run: each file is checked by its own tool, and what it says is done on this machine."""

from __future__ import annotations

import asyncio
import configparser
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.conftest import KEY, MODELS_DIR, digest
from tests.fakes import FakeUpstream
from tests.plugins.processes import free_port, running
from tests.policies.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[2]
SHOWN = ROOT / "docs" / "deploy"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
DEMO = "sk-demo"
PASSWORD = "a-long-random-word"
VALIDATOR = ROOT / ".venv-compat" / "bin" / "kubernetes-validate"
NOTHING = "sha256:" + "0" * 64

pytestmark = pytest.mark.timeout(300)  # several gateways and stores are started, each by itself
needs = pytest.mark.skipif
no_redis = needs(not RedisServer.installed(), reason="redis-server is not installed")


@asynccontextmanager
async def serving(folder: Path, environment: Mapping[str, str]) -> Any:
    """`tollgate serve` with this environment; gives its address."""
    port = free_port()
    told = {"HOST": "127.0.0.1", "PORT": str(port), "MODELS_DIR": str(MODELS_DIR), **environment}
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    async with running([sys.executable, "-m", "gateway", "serve"], port=port, folder=folder, environment=told):
        yield f"http://127.0.0.1:{port}"


async def ask(method: str, url: str, *, key: str, body: Any = None) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as client,
        client.request(method, url, json=body) as answer,
    ):
        return answer.status, await answer.json()


async def used(url: str, *, key: str) -> int:
    """Tokens of the fullest budget. Each connection to a store that was away finds by itself that it is back."""
    async with asyncio.timeout(30):
        while (answered := await ask("GET", url + "/budgets", key=key))[0] != 200:
            await asyncio.sleep(0.1)
    return max(row["used"] for row in answered[1]["data"] if row["unit"] == "tokens")


def composed(**environment: str) -> subprocess.CompletedProcess[str]:
    """What docker-compose makes of compose.yaml; it needs no engine for that."""
    return subprocess.run(
        ["docker-compose", "-f", str(SHOWN / "compose.yaml"), "config"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **environment},
    )


@no_redis
@needs(not shutil.which("docker-compose"), reason="there is no docker-compose (Debian: apt-get install docker-compose)")
async def test_compose_keeps_budgets_over_a_crash_of_its_store(tmp_path: Path) -> None:
    unsaid = await asyncio.to_thread(composed)
    assert unsaid.returncode != 0
    assert "a long random word" in unsaid.stderr
    done = await asyncio.to_thread(lambda: composed(VALKEY_PASSWORD=PASSWORD))
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    tollgate, valkey = services["tollgate"], services["valkey"]

    program, *options = valkey["command"]
    assert program == "valkey-server"
    port = free_port()
    store = RedisServer(tmp_path / "valkey", *options, port=port)
    await asyncio.to_thread(store.start)
    try:
        _, check = valkey["healthcheck"]["test"]
        check = check.replace("$$", "$").replace("valkey-cli", f"redis-cli -p {port}")
        healthy = await asyncio.to_thread(
            lambda: subprocess.run(["sh", "-c", check], env=os.environ | valkey["environment"])
        )
        assert healthy.returncode == 0

        environment = dict(tollgate["environment"])
        assert "@valkey:6379/" in environment["TOLLGATE_STORE"]
        environment["TOLLGATE_STORE"] = environment["TOLLGATE_STORE"].replace("valkey:6379", f"127.0.0.1:{port}")
        environment["TOLLGATE_CONFIG"] = str(ROOT / "config.yaml")
        async with serving(tmp_path / "tollgate", environment) as url:
            assert (await ask("POST", url + "/v1/chat/completions", key=DEMO, body=CHAT))[0] == 200
            before = await used(url, key=DEMO)
            assert before > 8
            await asyncio.to_thread(store.stop)  # killed
            assert (await ask("POST", url + "/v1/chat/completions", key=DEMO, body=CHAT))[0] == 503
            await asyncio.to_thread(store.start)
            async with asyncio.timeout(30):
                while (await ask("GET", url + "/health", key=DEMO))[0] != 200:
                    await asyncio.sleep(0.1)
            assert await used(url, key=DEMO) == before
    finally:
        await asyncio.to_thread(store.stop)


def manifest() -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration in the Kubernetes manifest, and the sidecar's container."""
    config, deployment = yaml.safe_load_all((SHOWN / "kubernetes.yaml").read_text())
    (sidecar,) = deployment["spec"]["template"]["spec"]["initContainers"]
    return config, sidecar


@needs(not VALIDATOR.exists(), reason="there is no kubernetes-validate (`make compat` installs it into .venv-compat)")
@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_kubernetes_knows_every_field(version: str, tmp_path: Path) -> None:
    command = [str(VALIDATOR), "--strict", "-k", version]
    done = subprocess.run([*command, str(SHOWN / "kubernetes.yaml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((SHOWN / "kubernetes.yaml").read_text().replace("restartPolicy", "restartPolitics"))
    assert subprocess.run([*command, str(wrong)], capture_output=True).returncode != 0


@no_redis
async def test_pods_share_their_budgets(tmp_path: Path, upstream: FakeUpstream) -> None:
    config, sidecar = await asyncio.to_thread(manifest)
    text = config["data"]["config.yaml"]
    for shown, tried in ((NOTHING, digest(KEY)), ("https://api.openai.com", upstream.url)):
        assert shown in text
        text = text.replace(shown, tried)
    path = tmp_path / "config.yaml"
    await asyncio.to_thread(path.write_text, text)
    names = {each["name"] for each in sidecar["env"]}
    assert names == set(re.findall(r"\$\{(\w+)\}", text))  # what the configuration needs is what the pod gives
    store = RedisServer(tmp_path / "redis", port=free_port())
    await asyncio.to_thread(store.start)
    environment = {
        "TOLLGATE_CONFIG": str(path),
        "TOLLGATE_STORE": f"redis://127.0.0.1:{store.port}/0",
        "OPENAI_API_KEY": "sk-the-providers",
    }
    try:
        async with AsyncExitStack() as stack:
            first, second = [
                await stack.enter_async_context(serving(tmp_path / pod, environment)) for pod in ("first", "second")
            ]
            for probe in ("startupProbe", "readinessProbe"):
                assert (await ask("GET", first + sidecar[probe]["httpGet"]["path"], key=""))[0] == 200
            assert (await ask("POST", first + "/v1/chat/completions", key=KEY, body=CHAT))[0] == 200
            assert await used(second, key=KEY) == 12
        assert upstream.requests[0].header("Authorization") == "Bearer sk-the-providers"
    finally:
        await asyncio.to_thread(store.stop)


def unit(folder: Path) -> Path:
    """The systemd unit with this machine's paths."""
    text = (SHOWN / "tollgate.service").read_text()
    command = folder / "tollgate"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m gateway "$@"\n')
    command.chmod(0o755)
    shutil.copy(ROOT / "config.yaml", folder)
    for shown, tried in (
        ("/opt/tollgate/.venv/bin/tollgate", command),
        ("/opt/tollgate/models", MODELS_DIR),
        ("/etc/tollgate", folder),
        ("/var/lib/tollgate", folder),
    ):
        assert shown in text
        text = text.replace(shown, str(tried))
    path = folder / "tollgate.service"
    path.write_text(text)
    return path


@needs(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze (Debian: apt-get install systemd)")
def test_systemd_finds_nothing_wrong_and_little_exposed(tmp_path: Path) -> None:
    path = unit(tmp_path)
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    path.with_name("wrong.service").write_text(path.read_text().replace("ProtectSystem=strict", "ProtectSystem=much"))
    wrong = subprocess.run(["systemd-analyze", "verify", str(path.with_name("wrong.service"))], capture_output=True)
    assert b"protect system" in wrong.stderr
    exposure = ["systemd-analyze", "security", "--offline=true", "--threshold=15", str(path)]
    assert subprocess.run(exposure, capture_output=True).returncode == 0


async def test_the_unit_checks_serves_reloads_and_stops(tmp_path: Path) -> None:
    path = await asyncio.to_thread(unit, tmp_path)
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    text = await asyncio.to_thread(path.read_text)
    parser.read_string(text)
    service = parser["Service"]
    environment = dict(re.findall(r"^Environment=(\w+)=(.+)$", text, re.MULTILINE))
    port = free_port()
    told = os.environ | environment | {"HOST": "127.0.0.1", "PORT": str(port), "LOG_LEVEL": "INFO"}
    check = await asyncio.create_subprocess_exec(*service["ExecStartPre"].split(), env=told, cwd=tmp_path)
    assert await check.wait() == 0
    process = await asyncio.create_subprocess_exec(
        *service["ExecStart"].split(),
        env=told,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while b"listening" not in await process.stdout.readline():
                assert process.returncode is None
            url = f"http://127.0.0.1:{port}"
            assert (await ask("POST", url + "/v1/chat/completions", key=DEMO, body=CHAT))[0] == 200
            assert service["ExecReload"].startswith("/bin/kill -HUP ")
            config = tmp_path / "config.yaml"
            more = (await asyncio.to_thread(config.read_text)).replace("tokens: 100k", "tokens: 200k")
            await asyncio.to_thread(config.write_text, more)
            process.send_signal(signal.SIGHUP)
            line = b""
            while b"config_reloaded" not in line:
                line = await process.stdout.readline()
            assert json.loads(line)["changes"]
            process.terminate()
            rest, _ = await asyncio.wait_for(process.communicate(), float(service["TimeoutStopSec"]))
            assert (process.returncode, b"stopped" in rest) == (0, True)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    left = {each.name for each in await asyncio.to_thread(lambda: list(tmp_path.iterdir()))}
    assert "tollgate.db" in left
