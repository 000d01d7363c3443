"""Who reaches /admin, and what is written down of it."""

from __future__ import annotations

import logging

import pytest

from tests.conftest import StartGateway, config_for, digest

ADMIN = "sk-test-admin"


async def test_admin_is_closed_when_no_key_is_configured(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    for path in ("/admin/keys", "/admin/budgets", "/admin/holds", "/admin/usage", "/admin/drift"):
        response, answer = await gateway.get(path, key=ADMIN)
        assert (response.status, answer["error"]["code"]) == (403, "admin_closed")
        assert "admin.digest" in answer["error"]["message"]


async def test_admin_needs_its_own_key(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(config_for(admin={"digest": digest(ADMIN)}))
    for key in (None, "sk-test-alice", "sk-nobody"):
        response, answer = await gateway.post("/admin/keys", {"id": "new"}, key=key)
        assert (response.status, answer["error"]["code"]) == (401, "invalid_admin_key")
    assert (await gateway.get("/admin/keys", key=ADMIN))[0].status == 200
    assert (await gateway.get("/admin/keys", key=None, headers={"x-api-key": ADMIN}))[0].status == 200


async def test_the_admin_key_spends_nothing(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(config_for(admin={"digest": digest(ADMIN)}))
    chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
    assert (await gateway.post("/v1/chat/completions", chat, key=ADMIN))[0].status == 401


async def test_another_method_is_told_which_there_are(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(config_for(admin={"digest": digest(ADMIN)}))
    response, _ = await gateway.request("DELETE", "/admin/keys", key=ADMIN)
    assert (response.status, response.headers["Allow"]) == (405, "GET, POST")
    response, _ = await gateway.get("/admin/keys/x/rotate", key=ADMIN)
    assert (response.status, response.headers["Allow"]) == (405, "POST")


async def test_every_change_is_audited_without_credentials(
    start_gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start_gateway(config_for(admin={"digest": digest(ADMIN)}))
    with caplog.at_level(logging.INFO, logger="audit"):
        _, made = await gateway.post("/admin/keys", {"id": "carol", "tags": {"team": "ads"}}, key=ADMIN)
        _, again = await gateway.post("/admin/keys/carol/rotate", key=ADMIN)
        await gateway.post("/admin/keys/carol/disable", key=ADMIN)
        await gateway.post("/admin/keys/carol/expire", {"at": "1h"}, key=ADMIN)
        await gateway.post("/admin/budgets/main/top-up", {"scope": "key=alice", "amount": 7}, key=ADMIN)
        await gateway.post("/admin/budgets/main/reset", {"scope": "key=alice"}, key=ADMIN)
        await gateway.post("/admin/drift/reset", key=ADMIN)
    lines = [record.getMessage() for record in caplog.records if record.name == "audit"]
    events = [
        "key_created",
        "key_rotated",
        "key_disabled",
        "key_expires",
        "budget_topped_up",
        "budget_reset",
        "drift_reset",
    ]
    assert len(lines) == len(events)
    assert all(f"event='{event}'" in line for event, line in zip(events, lines, strict=True))
    for line in lines:
        assert "admin" in line
        assert "before" in line
        assert "after" in line
    assert "'granted': 7" in lines[4]
    for secret in (made["key"], again["key"], ADMIN, digest(made["key"])):
        assert secret not in caplog.text
