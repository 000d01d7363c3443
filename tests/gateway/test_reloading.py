"""Another configuration while requests run: nothing fails, nothing is forgotten, and a bad file changes nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import load_settings
from tests.conftest import KEY, RunningGateway, StartGateway, config_for, digest
from tests.fakes import FakeUpstream, chat, plain
from tests.gateway.test_workers import serve

ADMIN = "sk-test-admin"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}


def limited(amount: int, **sections: Any) -> dict[str, Any]:
    budgets = [{"name": "main", "each": "key", "limits": [{"tokens": amount, "per": "day"}]}]
    return config_for(**{"budgets": budgets, "admin": {"digest": digest(ADMIN)}, **sections})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config0.yaml"


def write(file: Path, config: dict[str, Any] | str) -> None:
    """Replace the file in one step, as careful tools do."""
    new = file.with_suffix(".new")
    new.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    new.replace(file)


async def start_following(start: StartGateway, file: Path, config: dict[str, Any]) -> RunningGateway:
    return await start(config, reload=lambda: load_settings(file, env={}))


async def rewrite(file: Path, config: dict[str, Any] | str) -> None:
    await asyncio.to_thread(write, file, config)


async def config_health(gateway: RunningGateway) -> dict[str, Any]:
    response, body = await gateway.get("/health", key=None)
    assert response.status == 200
    return {"overall": body["status"], **body["config"]}


async def limit_of(gateway: RunningGateway) -> int:
    return int((await gateway.budget())["limit"])


async def until(done: Callable[[], Any], *, within_s: float = 5.0) -> None:
    started_s = time.perf_counter()
    while not await done():
        assert time.perf_counter() - started_s < within_s
        await asyncio.sleep(0.02)


async def test_a_changed_file_is_in_force_within_a_second_and_usage_is_kept(
    start_gateway: StartGateway, file: Path
) -> None:
    gateway = await start_following(start_gateway, file, limited(100_000))
    await gateway.post("/v1/chat/completions", CHAT)
    used = (await gateway.budget())["used"]
    assert used > 0
    await rewrite(file, limited(777))
    started_s = time.perf_counter()

    async def in_force() -> bool:
        return await limit_of(gateway) == 777

    await until(in_force)
    assert time.perf_counter() - started_s < 1.0
    assert (await gateway.budget())["used"] == used


async def test_reloads_under_load_fail_no_request_and_lose_no_token(
    start_gateway: StartGateway, file: Path, upstream: FakeUpstream
) -> None:
    upstream.default = plain(chat(prompt_tokens=7, completion_tokens=3))
    upstreams = [{"name": "own", "url": upstream.url}]
    gateway = await start_following(start_gateway, file, limited(10**9, upstreams=upstreams))
    statuses: list[int] = []
    stop = asyncio.Event()

    async def caller() -> None:
        while not stop.is_set():
            response, _ = await gateway.post("/v1/chat/completions", CHAT)
            statuses.append(response.status)

    callers = [asyncio.create_task(caller()) for _ in range(8)]
    for number in range(20):
        renamed = [{"name": f"own-{number}", "url": upstream.url, "headers": {"X-Number": str(number)}}]
        await rewrite(file, limited(10**9 + number, upstreams=renamed))
        response, body = await gateway.post("/admin/reload", key=ADMIN)
        # On a slow machine the file has been noticed by then.
        assert (response.status, body["status"]) in {(200, "reloaded"), (200, "unchanged")}
        assert await limit_of(gateway) == 10**9 + number
    stop.set()
    await asyncio.gather(*callers)
    assert len(statuses) >= 20
    assert set(statuses) == {200}
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (10 * len(statuses), 0)


async def test_fifty_bad_reloads_change_nothing_and_are_told(
    start_gateway: StartGateway, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start_following(start_gateway, file, limited(100_000))
    await gateway.post("/v1/chat/completions", CHAT)
    before = await gateway.budget()
    version = (await config_health(gateway))["version"]
    good = yaml.safe_dump(limited(5))
    bad = [
        "",
        "server: [",
        "budgets: 7\n",
        good.replace("tokens: 5", "tokens: many"),
        good.replace("upstreams", "upstream"),
        "\x00",
        good.replace("per: day", "per: fortnight"),
        good + "time_zone: Mars/Olympus\n",
        good.replace("sha256:", "md5:"),
        good.replace("name: main", "name: ''"),
    ]
    for number in range(50):
        await rewrite(file, bad[number % len(bad)] + f"# {number}\n")
        response, body = await gateway.post("/admin/reload", key=ADMIN)
        assert (response.status, body["error"]["code"]) == (400, "invalid_configuration")
        assert body["error"]["problems"][0]["remedy"]
    after = await gateway.budget()
    assert after == before
    assert (await gateway.post("/v1/chat/completions", CHAT))[0].status == 200
    health = await config_health(gateway)
    assert (health["overall"], health["status"]) == ("degraded", "degraded")
    assert f"{file}:" in health["problems"][0]
    _, metrics = await gateway.get("/metrics", key=None)
    (failures,) = re.findall(rb"^tollgate_config_reload_failures_total (\S+)$", metrics, re.MULTILINE)
    assert float(failures) >= 50  # on a slow machine the file is looked at in between too
    assert sum("config_reload_failed" in record.getMessage() for record in caplog.records) == float(failures)
    assert b"tollgate_config_last_reload_successful 0.0" in metrics
    assert health["version"] == (await config_health(gateway))["version"] == version

    await rewrite(file, limited(100_000))
    assert (await gateway.post("/admin/reload", key=ADMIN))[1]["status"] == "unchanged"
    health = await config_health(gateway)
    assert (health["overall"], health["status"], health["problems"]) == ("ok", "ok", [])
    assert b"tollgate_config_last_reload_successful 1.0" in (await gateway.get("/metrics", key=None))[1]


async def test_version_in_force_is_how_the_files_digest_begins(start_gateway: StartGateway, file: Path) -> None:
    gateway = await start_following(start_gateway, file, limited(100_000))
    text = await asyncio.to_thread(file.read_text)
    assert (await config_health(gateway))["version"] == hashlib.sha256(text.encode()).hexdigest()[:12]
    remarked = text + "# nothing changes but this\n"
    await rewrite(file, remarked)
    assert (await gateway.post("/admin/reload", key=ADMIN))[1]["status"] == "unchanged"
    version = (await config_health(gateway))["version"]
    assert version == hashlib.sha256(remarked.encode()).hexdigest()[:12]
    _, metrics = await gateway.get("/metrics", key=None)
    (hashed,) = re.findall(rb"^tollgate_config_hash (\S+)$", metrics, re.MULTILINE)
    assert int(float(hashed)) == int(version, 16)


async def test_a_bad_file_is_noticed_and_told_once(
    start_gateway: StartGateway, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start_following(start_gateway, file, limited(100_000))
    await rewrite(file, "budgets: [")

    async def degraded() -> bool:
        return (await config_health(gateway))["status"] == "degraded"

    await until(degraded, within_s=2.0)
    await asyncio.sleep(0.6)
    assert sum("config_reload_failed" in record.getMessage() for record in caplog.records) == 1
    await asyncio.to_thread(file.unlink)
    await until(lambda: _has_problem(gateway, "no such file"), within_s=2.0)


async def _has_problem(gateway: RunningGateway, text: str) -> bool:
    return any(text in problem for problem in (await config_health(gateway))["problems"])


async def test_keys_made_at_run_time_survive_a_reload(start_gateway: StartGateway, file: Path) -> None:
    gateway = await start_following(start_gateway, file, limited(100_000))
    _, made = await gateway.post("/admin/keys", {"id": "carol"}, key=ADMIN)
    await rewrite(file, limited(900))
    await gateway.post("/admin/reload", key=ADMIN)
    assert (await gateway.post("/v1/chat/completions", CHAT, key=made["key"]))[0].status == 200
    assert (await gateway.budget(key=made["key"]))["limit"] == 900
    assert await limit_of(gateway) == 900


async def test_a_request_that_runs_ends_as_it_began(
    start_gateway: StartGateway, file: Path, upstream: FakeUpstream
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow(connection: Any, received: Any) -> None:
        arrived.set()
        await go_on.wait()
        await plain(chat(prompt_tokens=7, completion_tokens=3))(connection, received)

    upstream.enqueue(slow)
    gateway = await start_following(
        start_gateway, file, limited(1_000, upstreams=[{"name": "own", "url": upstream.url}])
    )
    running = asyncio.create_task(gateway.post("/v1/chat/completions", CHAT))
    await arrived.wait()
    await rewrite(file, limited(2_000))  # and the upstream is gone: echo takes its place
    _, told = await gateway.post("/admin/reload", key=ADMIN)
    assert "upstreams.own: removed" in told["changes"]
    assert (await gateway.budget())["held"] > 0
    go_on.set()
    response, _ = await running
    assert response.status == 200
    budget = await gateway.budget()
    assert (budget["used"], budget["held"], budget["limit"]) == (10, 0, 2_000)


async def test_what_needs_a_restart_is_named_and_left(
    start_gateway: StartGateway, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start_following(start_gateway, file, limited(100_000))
    changed = limited(100_000, store={"url": "redis://:secret@127.0.0.1:1"})
    changed["server"] |= {"port": 9, "workers": 3, "unmatched": "refuse"}
    changed["tokenizers"] |= {"unknown_model": "estimate"}
    await rewrite(file, changed)
    with caplog.at_level(logging.INFO, logger="config"):
        _, told = await gateway.post("/admin/reload", key=ADMIN)
    assert told["changes"] == ["server.unmatched: pass -> refuse"]
    named = {each.partition(":")[0] for each in told["needs_restart"]}
    assert named == {"server.port", "server.workers", "store.url", "tokenizers.unknown_model"}
    assert "config_needs_restart" in caplog.text
    assert "secret" not in caplog.text
    assert (await gateway.get("/nothing/here"))[0].status == 404
    assert (await gateway.post("/v1/chat/completions", CHAT))[0].status == 200


async def test_reload_is_not_for_everyone(start_gateway: StartGateway, file: Path) -> None:
    gateway = await start_following(start_gateway, file, limited(100_000))
    assert (await gateway.post("/admin/reload", key=KEY))[0].status == 401
    without = await start_gateway(limited(100_000))
    response, body = await without.post("/admin/reload", key=ADMIN)
    assert (response.status, body["error"]["code"]) == (404, "no_config_file")


def test_every_worker_follows_the_file_and_heeds_sighup(tmp_path: Path) -> None:
    child, port = serve(tmp_path, store={"url": f"sqlite:///{tmp_path}/b.db"}, admin={"digest": digest(ADMIN)})
    file = tmp_path / "config.yaml"

    def budget_limit() -> int:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/budgets", headers={"Authorization": f"Bearer {KEY}", "Connection": "close"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(json.load(answer)["data"][0]["limit"])

    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                assert budget_limit() == 100_000
                break
            except (urllib.error.URLError, ConnectionError):
                assert time.monotonic() < deadline
                time.sleep(0.1)
        config = yaml.safe_load(file.read_text())
        config["budgets"][0]["limits"][0]["tokens"] = 4_321
        write(file, config)
        time.sleep(1.0)
        assert {budget_limit() for _ in range(24)} == {4_321}
        # In place: the arbiter and its workers are the ones from before.
        os.kill(child.pid, signal.SIGHUP)
        config["budgets"][0]["limits"][0]["tokens"] = 8_765
        write(file, config)
        os.kill(child.pid, signal.SIGHUP)
        time.sleep(1.0)
        assert {budget_limit() for _ in range(24)} == {8_765}
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        output = child.communicate(timeout=20)[0]
    assert child.returncode == 0
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    reloads = [line for line in lines if line["event"] == "config_reloaded"]
    assert len(reloads) == 4
    assert reloads[0]["changes"] == ["budgets.main.limits.tokens per day: 100,000 -> 4,321"]
    assert [line for line in lines if line.get("level") in ("warning", "error")] == []
