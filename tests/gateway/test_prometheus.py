"""A real Prometheus scrapes a gateway, loads our rules, and answers every query of our dashboard."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from benchmarks.overspend.fleet import free_port
from gateway.config import load_settings
from tests.conftest import RunningGateway, StartGateway, config_for
from tests.fakes import FakeUpstream, chat, chat_events, plain, stream
from tests.gateway.test_metrics import ALERTS, CHAT, DASHBOARD, RULES, panel_queries

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="there is no Prometheus here (Debian: apt-get install prometheus)"
)

JOB = "tollgate"


class Prometheus:
    """One that scrapes often and keeps nothing."""

    def __init__(self, url: str, client: aiohttp.ClientSession) -> None:
        self._url = url
        self._client = client

    async def ask(self, path: str, **parameters: str) -> Any:
        """The data of an API's answer."""
        async with self._client.get(f"{self._url}/api/v1/{path}", params=parameters) as answer:
            told = await answer.json()
            assert told["status"] == "success", told
            return told["data"]

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression is now."""
        found: list[dict[str, Any]] = (await self.ask("query", query=expression))["result"]
        return found


@asynccontextmanager
async def prometheus(folder: Path, *gateways: RunningGateway) -> AsyncIterator[Prometheus]:
    port, targets = free_port(), [f"127.0.0.1:{gateway.port}" for gateway in gateways]
    config = {
        "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": JOB, "static_configs": [{"targets": targets}]}],
    }
    file = folder / "prometheus.yml"
    await asyncio.to_thread(file.write_text, yaml.safe_dump(config))
    process = await asyncio.create_subprocess_exec(
        "prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, cwd=folder,
    )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as client:
            await until(lambda: _ready(client, port), "Prometheus is ready")
            yield Prometheus(f"http://127.0.0.1:{port}", client)
    finally:
        process.terminate()
        await asyncio.wait_for(process.communicate(), 20)


async def _ready(client: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with client.get(f"http://127.0.0.1:{port}/-/ready") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def until(holds: Callable[[], Any], what: str, *, within_s: float = 30.0) -> Any:
    deadline_s = time.monotonic() + within_s
    while not (found := await holds()):
        assert time.monotonic() < deadline_s, f"it never came that {what}"
        await asyncio.sleep(0.05)
    return found


@pytest.fixture
async def hook() -> AsyncIterator[FakeUpstream]:
    server = FakeUpstream(default=plain(b"", status=204))
    await server.start()
    yield server
    await server.stop()


async def without_store(start_gateway: StartGateway) -> RunningGateway:
    """A gateway that has to decide by itself."""
    store = {"url": f"redis://127.0.0.1:{free_port()}", "on_error": "allow"}
    gateway = await start_gateway(config_for(store=store))
    assert (await gateway.post("/v1/chat/completions", CHAT))[0].status == 200
    return gateway


async def busy(start_gateway: StartGateway, upstream: FakeUpstream, hook: FakeUpstream, file: Path) -> RunningGateway:
    """A gateway with something of everything else to tell."""
    upstream.default = plain(chat(prompt_tokens=30, completion_tokens=3))
    config = config_for(
        upstreams=[{"name": "own", "url": upstream.url}],
        metrics={"most_keys": 5},
        budgets=[
            {"name": "main", "each": "key", "limits": [{"tokens": 100_000, "per": "day"}]},
            {"name": "few", "limits": [{"requests": 4, "per": "day"}], "warn_at": ["50%"]},
        ],
        webhook={"url": hook.url, "secret": "plain"},
    )
    gateway = await start_gateway(config, reload=lambda: load_settings(file, env={}))
    await gateway.post("/v1/chat/completions", CHAT)
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    upstream.enqueue(stream(*chat_events("Hi", " there", " you", usage=usage)))
    await gateway.post("/v1/chat/completions", {**CHAT, "stream": True})
    upstream.enqueue(plain({"error": {"message": "no"}}, status=500))
    for _ in range(5):
        await gateway.post("/v1/chat/completions", CHAT)
    return gateway


async def test_prometheus_scrapes_answers_every_panel_and_evaluates_every_rule(
    start_gateway: StartGateway,
    upstream: FakeUpstream,
    hook: FakeUpstream,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = tmp_path / "config0.yaml"
    gateway = await busy(start_gateway, upstream, hook, file)
    lone = await without_store(start_gateway)
    assert "Traceback" not in caplog.text  # that the store is lost is told in a sentence
    async with prometheus(tmp_path, gateway, lone) as server:
        scraped = f'count(count_over_time(up{{job="{JOB}"}}[1m]) > 3) == 2'
        await until(lambda: server.query(scraped), "both gateways were scraped several times")
        targets = (await server.ask("targets"))["activeTargets"]
        assert [(target["health"], target["lastError"]) for target in targets] == [("up", "")] * 2

        silent = [query for query in panel_queries() if not await server.query(query)]
        assert silent == []
        for variable in DASHBOARD["templating"]["list"]:
            if variable["type"] == "query":
                metric, label = variable["query"].removeprefix("label_values(").removesuffix(")").split(", ")
                assert await server.ask(f"label/{label}/values", **{"match[]": metric}) == [JOB]

        async def evaluated() -> Any:
            rules = (await server.ask("rules"))["groups"][0]["rules"]
            return rules if {rule["health"] for rule in rules} == {"ok"} else None

        rules = await until(evaluated, "every rule was evaluated")
        names = [alert["alert"] for alert in ALERTS]
        assert [rule["name"] for rule in rules] == names
        assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []

        async def firing() -> bool:
            alerts = (await server.ask("alerts"))["alerts"]
            return any(
                (each["labels"]["alertname"], each["state"]) == ("TollgateConfigRefused", "firing") for each in alerts
            )

        assert await server.query(ALERTS[names.index("TollgateConfigsDiffer")]["expr"])  # they have files of their own
        assert not await firing()
        await asyncio.to_thread(file.write_text, "budgets: [")
        await until(firing, "a bad file was told of")
