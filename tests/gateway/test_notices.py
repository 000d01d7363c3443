"""Operators are told of thresholds and exhausted budgets: once a window, signed, retried, never at a caller's cost."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import ConfigError, load_settings
from gateway.config.changes import changes_between
from gateway.http.client import HttpClient
from gateway.metrics import Metrics
from gateway.notices import Notice
from gateway.settings import WebhookSettings
from gateway.webhook import Webhook, signing_key
from policies.model import BudgetStatus
from tests.conftest import KEY, RunningGateway, StartGateway, config_for, digest
from tests.fakes import FakeClock, FakeUpstream, Received, plain

SECRET = "whsec_" + base64.b64encode(b"a secret of operators").decode()
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 10}


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what another task is about to do."""
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.005)


async def told_gateway(
    start_gateway: StartGateway, receiver: FakeUpstream, *limits: dict[str, Any], **budget: Any
) -> RunningGateway:
    receiver.default = plain(b"", status=204)
    return await start_gateway(
        config_for(
            webhook={"url": receiver.url + "/hook?team=ops", "secret": SECRET},
            budgets=[{"name": "main", "each": "key", "limits": list(limits), **budget}],
        )
    )


def assert_signed(received: Received) -> None:
    """As any verifier of the Standard Webhooks specification does it."""
    signed = f"{received.header('webhook-id')}.{received.header('webhook-timestamp')}.".encode() + received.body
    expected = base64.b64encode(hmac.new(b"a secret of operators", signed, hashlib.sha256).digest()).decode()
    assert received.header("webhook-signature") == f"v1,{expected}"


async def test_webhook_is_told_of_thresholds_and_exhaustion_once_a_window(
    start_gateway: StartGateway, upstream: FakeUpstream, clock: FakeClock
) -> None:
    gateway = await told_gateway(start_gateway, upstream, {"requests": 4, "per": "minute"}, warn_at=["50%"])
    statuses = [(await gateway.post("/v1/chat/completions", CHAT))[0].status for _ in range(6)]
    assert statuses == [200, 200, 200, 200, 429, 429]
    await until(lambda: len(upstream.requests) >= 2)
    warning, exhausted = upstream.requests
    assert (warning.method, warning.target) == ("POST", "/hook?team=ops")
    for received in (warning, exhausted):
        assert_signed(received)
        assert received.header("webhook-id") == received.json["id"]
        assert received.header("webhook-timestamp") == str(int(clock.now))
    assert warning.json["type"] == "budget.warning"
    assert warning.json["data"]["threshold"] == 0.5
    assert (warning.json["data"]["budget"], warning.json["data"]["scope"]) == ("main", "key=alice")
    assert (warning.json["data"]["limit"], warning.json["data"]["used"] + warning.json["data"]["held"]) == (4, 2)
    assert exhausted.json["type"] == "budget.exhausted"
    assert exhausted.json["data"]["remaining"] == 0
    assert "main" in exhausted.json["data"]["message"]
    clock.advance(60)
    for _ in range(2):
        assert (await gateway.post("/v1/chat/completions", CHAT))[0].status == 200
    await until(lambda: len(upstream.requests) >= 3)
    again = upstream.requests[2]
    assert again.json["type"] == "budget.warning"
    assert again.json["id"] != warning.json["id"]
    await asyncio.sleep(0.05)
    assert len(upstream.requests) == 3


async def test_log_and_metrics_tell_without_a_webhook(
    start_gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    gateway = await start_gateway(
        config_for(
            budgets=[
                {"name": "main", "limits": [{"requests": 2, "per": "month"}], "warn_at": ["50%"]},
                {"name": "other", "limits": [{"requests": 100, "per": "month"}]},
            ]
        )
    )
    for _ in range(4):
        await gateway.post("/v1/chat/completions", CHAT)
    told = [found[1] for each in caplog.records if (found := re.search(r"event='(budget_\w+)'", each.getMessage()))]
    assert told == ["budget_warning", "budget_exhausted"]
    _, text = await gateway.get("/metrics", key=None)
    for kind in ("warning", "exhausted"):
        assert f'tollgate_budget_notices_total{{budget="main",kind="budget_{kind}"}} 1.0' in text.decode()
    assert 'budget="other",kind' not in text.decode()


async def test_two_workers_give_the_same_notice_the_same_id(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    for _ in range(2):
        gateway = await told_gateway(start_gateway, upstream, {"requests": 1, "per": "day"})
        for _ in range(2):
            await gateway.post("/v1/chat/completions", CHAT)
    await until(lambda: len(upstream.requests) == 2)
    first, second = upstream.requests
    assert first.json["id"] == second.json["id"]


async def test_requests_never_wait_for_a_webhook_that_hangs(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    release = asyncio.Event()

    async def hang(connection: Any, received: Received) -> None:
        await release.wait()
        await plain(b"", status=204)(connection, received)

    gateway = await told_gateway(start_gateway, upstream, {"requests": 1, "per": "day"})
    upstream.enqueue(hang)
    async with asyncio.timeout(3):
        assert (await gateway.post("/v1/chat/completions", CHAT))[0].status == 200
        for _ in range(5):
            assert (await gateway.post("/v1/chat/completions", CHAT))[0].status == 429
    await until(lambda: len(upstream.requests) == 1)
    release.set()


def notice(number: int = 1) -> Notice:
    status = BudgetStatus("main", "all", "requests", "day", 10, 10, 0, 1_800_057_600.0)
    return Notice(f"evt_{number}", "budget_exhausted", 1_800_000_000.0, 1.0, status, "Nothing is left.")


@asynccontextmanager
async def webhook_to(
    url: str, clock: FakeClock, *, runs: bool = True, **options: Any
) -> AsyncIterator[tuple[Webhook, Metrics]]:
    metrics = Metrics()
    client = HttpClient(limit_per_host=0, keepalive_s=5.0, trust_env=False)
    options.setdefault("first_wait_s", 0.001)
    webhook = Webhook(client, metrics=metrics, clock=clock, **options)
    webhook.aim(WebhookSettings(url, "plain"))
    task = asyncio.create_task(webhook.run()) if runs else None
    yield webhook, metrics
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await client.close()


def delivered(metrics: Metrics, result: str) -> float:
    return metrics.registry.get_sample_value("tollgate_webhook_deliveries_total", {"result": result}) or 0.0


async def test_webhook_is_tried_again_when_it_fails(upstream: FakeUpstream, clock: FakeClock) -> None:
    async def reset(connection: Any, received: Received) -> None:
        connection.reset()

    upstream.enqueue(plain({}, status=500), reset, plain({}, status=429), plain({}))
    async with webhook_to(upstream.url, clock) as (webhook, metrics):
        webhook.send(notice())
        await webhook.finish()
        assert delivered(metrics, "delivered") == 1
    assert len(upstream.requests) == 4
    assert {each.header("webhook-id") for each in upstream.requests} == {"evt_1"}
    assert len({each.body for each in upstream.requests}) == 1


async def test_webhook_gives_up_and_goes_on_with_the_next(upstream: FakeUpstream, clock: FakeClock) -> None:
    upstream.enqueue(*[plain({}, status=503)] * 8, plain({}))
    async with webhook_to(upstream.url, clock) as (webhook, metrics):
        webhook.send(notice(1))
        webhook.send(notice(2))
        await webhook.finish()
        assert (delivered(metrics, "failed"), delivered(metrics, "delivered")) == (1, 1)
    assert [each.json["id"] for each in upstream.requests] == ["evt_1"] * 8 + ["evt_2"]


async def test_webhook_that_is_down_is_found_again(clock: FakeClock) -> None:
    receiver = FakeUpstream(default=plain(b"", status=204))
    await receiver.start()
    await receiver.stop()  # its port is known, and nobody listens there
    async with webhook_to(f"http://127.0.0.1:{receiver.port}", clock, first_wait_s=0.05) as (webhook, metrics):
        webhook.send(notice())
        await asyncio.sleep(0.1)
        assert delivered(metrics, "delivered") == 0
        await receiver.start()
        await until(lambda: delivered(metrics, "delivered") == 1)
    await receiver.stop()
    assert [each.json["id"] for each in receiver.requests] == ["evt_1"]


async def test_waits_between_tries_double(upstream: FakeUpstream, clock: FakeClock) -> None:
    came_s: list[float] = []

    async def refuse(connection: Any, received: Received) -> None:
        came_s.append(time.monotonic())
        await plain({}, status=500)(connection, received)

    upstream.enqueue(*[refuse] * 4)
    async with webhook_to(upstream.url, clock, first_wait_s=0.1) as (webhook, metrics):
        webhook.send(notice())
        await until(lambda: delivered(metrics, "delivered") == 1)
    waits_s = [later - earlier for earlier, later in itertools.pairwise(came_s)]
    assert all(waited_s >= least_s for waited_s, least_s in zip(waits_s, (0.1, 0.2, 0.4), strict=True))


async def test_a_receiver_that_hangs_does_not_keep_a_gateway_from_stopping(
    upstream: FakeUpstream, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang(connection: Any, received: Received) -> None:
        await connection.closed_by_caller()

    upstream.enqueue(hang)
    async with webhook_to(upstream.url, clock) as (webhook, _):
        webhook.send(notice())
        webhook.send(notice(2))
        await until(lambda: len(upstream.requests) == 1)
        started_s = time.monotonic()
        await webhook.finish()
        assert 2.5 < time.monotonic() - started_s < 6
    (told,) = [each.getMessage() for each in caplog.records if "webhook_notices_undelivered" in each.getMessage()]
    assert "waiting=2" in told


async def test_what_is_waiting_is_told_before_a_gateway_stops(upstream: FakeUpstream, clock: FakeClock) -> None:
    upstream.enqueue(plain({}, status=500), plain({}, status=500))
    async with webhook_to(upstream.url, clock, first_wait_s=0.05) as (webhook, metrics):
        for number in range(3):
            webhook.send(notice(number))
        await webhook.finish()
        assert delivered(metrics, "delivered") == 3


async def test_reload_repeats_no_notice_and_aims_at_the_new_receiver(
    start_gateway: StartGateway, upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.default = plain(b"", status=204)
    other = FakeUpstream(default=plain(b"", status=204))
    await other.start()

    def config(receiver: FakeUpstream | None, requests: int) -> dict[str, Any]:
        limits = [{"requests": requests, "per": "day"}]
        sections = {} if receiver is None else {"webhook": {"url": receiver.url, "secret": SECRET}}
        return config_for(
            budgets=[{"name": "main", "each": "key", "limits": limits, "warn_at": ["50%"]}],
            admin={"digest": digest(KEY)},
            **sections,
        )

    file = tmp_path / "config0.yaml"
    gateway = await start_gateway(config(upstream, 4), reload=lambda: load_settings(file, env={}))

    async def reload(changed: dict[str, Any]) -> Any:
        await asyncio.to_thread(file.write_text, yaml.safe_dump(changed))
        return (await gateway.post("/admin/reload"))[1]

    for _ in range(5):
        await gateway.post("/v1/chat/completions", CHAT)
    await until(lambda: len(upstream.requests) == 2)
    told = await reload(config(other, 4))
    assert (told["changes"], told["needs_restart"]) == (["webhook: changed"], [])
    for _ in range(3):
        assert (await gateway.post("/v1/chat/completions", CHAT))[0].status == 429
    assert (other.requests, len(upstream.requests)) == ([], 2)  # this window has been told of
    await reload(config(other, 6))  # more, and used up again: the window is the one that was told of
    statuses = [(await gateway.post("/v1/chat/completions", CHAT))[0].status for _ in range(3)]
    assert statuses == [200, 200, 429]
    gateway.runtime.clock.advance(86_400)
    for _ in range(3):
        assert (await gateway.post("/v1/chat/completions", CHAT))[0].status == 200
    await until(lambda: len(other.requests) == 1)
    assert other.requests[0].json["type"] == "budget.warning"
    assert_signed(other.requests[0])
    assert (await reload(config(None, 6)))["changes"] == ["webhook: changed"]
    for _ in range(4):
        await gateway.post("/v1/chat/completions", CHAT)
    assert (len(other.requests), len(upstream.requests)) == (1, 2)
    await other.stop()


async def test_webhook_drops_and_counts_what_it_has_no_room_for(upstream: FakeUpstream, clock: FakeClock) -> None:
    async with webhook_to(upstream.url, clock, runs=False, waiting_at_most=2) as (webhook, metrics):
        for number in range(5):
            webhook.send(notice(number))
        assert delivered(metrics, "dropped") == 3


def test_signing_key_is_base64_only_behind_its_prefix() -> None:
    assert signing_key(SECRET) == b"a secret of operators"
    assert signing_key("plain") == b"plain"


@pytest.mark.parametrize(
    ("webhook", "said"),
    [
        ({"url": "ftp://ops", "secret": "s"}, "`url` is not a webhook"),
        ({"url": "https://", "secret": "s"}, "is not a webhook"),
        ({"url": "http://ops:99999/", "secret": "s"}, "is not a webhook"),
        ({"url": "http://ops/", "secret": "whsec_tell!nobody"}, "begins with `whsec_`"),
        ({"url": "http://ops/"}, "`webhook` has no `secret`"),
    ],
)
def test_bad_webhook_is_refused_when_the_configuration_is_read(
    webhook: dict[str, str], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config_for(webhook=webhook)))
    with pytest.raises(ConfigError) as refused:
        load_settings(path, env={})
    assert said in str(refused.value)
    assert "nobody" not in str(refused.value)
    assert "Traceback" not in str(refused.value)


def test_settings_never_show_the_secret(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    settings = []
    for secret in ("tell-nobody", "nor-this"):
        path.write_text(yaml.safe_dump(config_for(webhook={"url": "http://ops/", "secret": secret})))
        settings.append(load_settings(path, env={}))
    assert "tell-nobody" not in repr(settings[0])
    assert changes_between(*settings).applied == ("webhook: changed",)
    assert changes_between(*settings).needs_restart == ()
