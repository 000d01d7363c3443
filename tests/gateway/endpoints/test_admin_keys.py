"""Keys made, changed and refused while gateways run, on stores of every kind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import KEY, RunningGateway, StartGateway, config_for, digest

ADMIN = "sk-test-admin"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}


def with_admin(url: str = "memory:", **sections: Any) -> dict[str, Any]:
    return config_for(admin={"digest": digest(ADMIN)}, store={"url": url}, **sections)


async def chat_status(gateway: RunningGateway, key: str | None) -> int:
    return int((await gateway.post("/v1/chat/completions", CHAT, key=key))[0].status)


async def made(gateway: RunningGateway, key_id: str = "carol", **more: Any) -> str:
    response, answer = await gateway.post("/admin/keys", {"id": key_id, **more}, key=ADMIN)
    assert response.status == 201, answer
    return str(answer["key"])


async def test_a_key_is_made_used_rotated_disabled_and_expired(
    start_gateway: StartGateway, store_url: str, clock: Any
) -> None:
    gateway = await start_gateway(with_admin(store_url))
    first = await made(gateway, tags={"team": "ads"})
    assert await chat_status(gateway, first) == 200
    _, rotated = await gateway.post("/admin/keys/carol/rotate", key=ADMIN)
    assert (await chat_status(gateway, first), await chat_status(gateway, rotated["key"])) == (401, 200)
    _, disabled = await gateway.post("/admin/keys/carol/disable", key=ADMIN)
    assert (disabled["status"], await chat_status(gateway, rotated["key"])) == ("disabled", 401)
    await gateway.post("/admin/keys/carol/enable", key=ADMIN)
    assert await chat_status(gateway, rotated["key"]) == 200
    _, expires = await gateway.post("/admin/keys/carol/expire", {"at": "10m"}, key=ADMIN)
    assert (expires["status"], await chat_status(gateway, rotated["key"])) == ("active", 200)
    clock.advance(601)
    assert await chat_status(gateway, rotated["key"]) == 401
    await gateway.post("/admin/keys/carol/expire", {"at": None}, key=ADMIN)
    assert await chat_status(gateway, rotated["key"]) == 200
    await gateway.post("/admin/keys/carol/expire", key=ADMIN)
    _, shown = await gateway.get("/admin/keys/carol", key=ADMIN)
    assert (shown["status"], shown["source"], shown["tags"]) == ("expired", "store", {"team": "ads"})


async def test_a_key_survives_a_restart_and_reaches_other_workers_within_a_second(
    start_gateway: StartGateway, kept_url: str
) -> None:
    gateway, other = await start_gateway(with_admin(kept_url)), await start_gateway(with_admin(kept_url))
    credential = await made(gateway)
    await _within_a_second(other, credential, status=200)
    _, rotated = await other.post("/admin/keys/carol/rotate", key=ADMIN)
    await _within_a_second(gateway, credential, status=401)
    restarted = await start_gateway(with_admin(kept_url))
    assert (await chat_status(restarted, rotated["key"]), await chat_status(restarted, credential)) == (200, 401)


async def _within_a_second(gateway: RunningGateway, credential: str, *, status: int) -> None:
    async with asyncio.timeout(1.0):
        while (await gateway.get("/budgets", key=credential))[0].status != status:
            await asyncio.sleep(0.05)


async def test_usage_under_a_key_stays_when_it_is_rotated_or_tagged(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(with_admin())
    credential = await made(gateway)
    await chat_status(gateway, credential)
    used = (await gateway.budget(key=credential))["used"]
    _, rotated = await gateway.post("/admin/keys/carol/rotate", key=ADMIN)
    await gateway.post("/admin/keys/carol/tags", {"tags": {"team": "new"}}, key=ADMIN)
    assert (await gateway.budget(key=rotated["key"]))["used"] == used > 0


async def test_the_configurations_keys_are_listed_and_cannot_be_changed(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(with_admin())
    await made(gateway)
    _, listed = await gateway.get("/admin/keys", key=ADMIN)
    assert [(row["id"], row["source"]) for row in listed["data"]] == [("alice", "config"), ("carol", "store")]
    assert KEY not in str(listed)
    assert digest(KEY) not in str(listed)
    for change in ("rotate", "disable", "enable", "expire"):
        response, answer = await gateway.post(f"/admin/keys/alice/{change}", key=ADMIN)
        assert (response.status, answer["error"]["code"]) == (409, "key_is_configured")
        assert "configuration" in answer["error"]["message"]
    response, answer = await gateway.post("/admin/keys", {"id": "alice"}, key=ADMIN)
    assert (response.status, answer["error"]["code"]) == (409, "key_exists")
    assert await chat_status(gateway, KEY) == 200


async def test_the_configuration_wins_when_it_names_a_kept_key(start_gateway: StartGateway, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'keys.db'}"
    credential = await made(await start_gateway(with_admin(url)))
    keys = [{"id": "carol", "digest": digest("sk-carols-own")}]
    gateway = await start_gateway(with_admin(url, keys=keys))
    assert (await chat_status(gateway, credential), await chat_status(gateway, "sk-carols-own")) == (401, 200)
    _, listed = await gateway.get("/admin/keys", key=ADMIN)
    assert ([row["source"] for row in listed["data"]], listed["unused"]) == (["config"], ["carol"])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "id"),
        ({"id": "no spaces"}, "id"),
        ({"id": 5}, "id"),
        ({"id": "x", "expires": "someday"}, "expires"),
        ({"id": "x", "tags": {"team": 5}}, "tags.team"),
        ({"id": "x", "digest": "sha256:00"}, "digest"),
    ],
)
async def test_a_wrong_key_is_a_400_that_names_the_field(
    start_gateway: StartGateway, body: dict[str, Any], param: str
) -> None:
    gateway = await start_gateway(with_admin())
    response, answer = await gateway.post("/admin/keys", body, key=ADMIN)
    assert (response.status, answer["error"]["param"]) == (400, param)
    assert len((await gateway.get("/admin/keys", key=ADMIN))[1]["data"]) == 1


async def test_an_unknown_key_is_a_404(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(with_admin())
    for method, path in (("GET", ""), ("POST", "/rotate"), ("POST", "/disable"), ("POST", "/expire")):
        response, answer = await gateway.request(method, f"/admin/keys/nobody{path}", key=ADMIN)
        assert (response.status, answer["error"]["code"]) == (404, "key_not_found")


async def test_the_first_key_closes_an_open_gateway_and_says_so(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(with_admin(keys=[]))
    assert await chat_status(gateway, None) == 200
    _, answer = await gateway.post("/admin/keys", {"id": "carol"}, key=ADMIN)
    assert "refused" in answer["warning"]
    assert (await chat_status(gateway, None), await chat_status(gateway, answer["key"])) == (401, 200)


async def test_nobody_is_unknown_while_the_stores_keys_have_never_been_read(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    await asyncio.to_thread((tmp_path / "no.db").mkdir)  # opening it as a file fails until it is gone
    gateway = await start_gateway(with_admin(f"sqlite:///{tmp_path / 'no.db'}"))
    response, answer = await gateway.post("/v1/chat/completions", CHAT, key="sk-kept-perhaps")
    assert (response.status, answer["error"]["code"]) == (503, "budget_store_unavailable")
    await asyncio.to_thread((tmp_path / "no.db").rmdir)
    async with asyncio.timeout(20):
        while await chat_status(gateway, "sk-kept-perhaps") != 401:
            await asyncio.sleep(0.05)
