"""Who sees the dashboard, and that its figures are the store's."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from tests.conftest import RunningGateway, StartGateway, config_for, digest

ADMIN = "sk-test-admin"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}


async def opened(start_gateway: StartGateway, **sections: Any) -> tuple[RunningGateway, dict[str, str]]:
    gateway = await start_gateway(config_for(admin={"digest": digest(ADMIN)}, **sections))
    response, _ = await gateway.post("/dashboard/login", b"key=" + ADMIN.encode(), key=None, headers=FORM)
    assert response.status == 200
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly; SameSite=Strict" in cookie
    return gateway, {"Cookie": cookie.partition(";")[0]}


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def test_dashboard_says_how_to_open_it_when_no_admin_key_is_configured(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    response, body = await gateway.get("/dashboard", key=None)
    assert response.status == 200
    assert b"tollgate keys new" in body
    assert (await gateway.get("/dashboard/data", key=None))[0].status == 403


async def test_dashboard_shows_nothing_without_a_session(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(config_for(admin={"digest": digest(ADMIN)}))
    _, body = await gateway.get("/dashboard", key=None)
    assert b'type="password"' in body
    for path in ("/dashboard/data", "/dashboard/stream"):
        for forged in ("", "x", "9999999999.a.b", "9999999999.é.b"):
            cookie = {"Cookie": f"tollgate_session={forged}"}
            assert (await gateway.get(path, key=None, headers=cookie))[0].status == 401


async def test_session_ends_by_itself(start_gateway: StartGateway, clock: Any) -> None:
    gateway, cookie = await opened(start_gateway)
    assert (await gateway.get("/dashboard/data", key=None, headers=cookie))[0].status == 200
    clock.advance(12 * 3600 + 1)
    assert (await gateway.get("/dashboard/data", key=None, headers=cookie))[0].status == 401


async def test_login_slows_down_who_guesses(start_gateway: StartGateway, clock: Any) -> None:
    gateway = await start_gateway(config_for(admin={"digest": digest(ADMIN)}))
    statuses = [
        (await gateway.post("/dashboard/login", b"key=wrong", key=None, headers=FORM))[0].status for _ in range(6)
    ]
    assert statuses == [401] * 5 + [429]
    clock.advance(2)
    right = b"key=" + ADMIN.encode()
    assert (await gateway.post("/dashboard/login", right, key=None, headers=FORM))[0].status == 200


async def test_login_and_logout_are_refused_from_other_origins(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(config_for(admin={"digest": digest(ADMIN)}))
    for path in ("/dashboard/login", "/dashboard/logout"):
        response, _ = await gateway.post(path, b"", key=None, headers={**FORM, "Origin": "https://evil.example"})
        assert response.status == 403


async def test_sessions_hold_in_every_gateway_on_the_store(start_gateway: StartGateway, kept_url: str) -> None:
    _, cookie = await opened(start_gateway, store={"url": kept_url})
    other = await start_gateway(config_for(admin={"digest": digest(ADMIN)}, store={"url": kept_url}))
    assert (await other.get("/dashboard/data", key=None, headers=cookie))[0].status == 200


async def test_figures_are_those_of_the_store(start_gateway: StartGateway, store_url: str) -> None:
    budget = {"name": "small", "each": "key", "limits": [{"tokens": 60, "per": "day"}]}
    gateway, cookie = await opened(start_gateway, store={"url": store_url}, budgets=[budget])
    statuses = [(await gateway.post("/v1/chat/completions", CHAT))[0].status for _ in range(6)]
    assert {200, 429} == set(statuses)
    _, told = await gateway.get("/dashboard/data", key=None, headers=cookie)
    assert told["total"]["requests"] == 6
    assert told["total"]["refused"] == statuses.count(429)
    assert [(row["key_id"], row["budget"], row["reason"], row["limit"]) for row in told["refusals"]] == [
        ("alice", "small", "quota_spent", "tokens per day")
    ]
    own = await gateway.budget("small")
    assert told["budgets"][0]["used"] == own["used"] == told["total"]["tokens"] > 0
    assert told["counted"][0]["equal"] == told["counted"][0]["bills"] == statuses.count(200)
    _, none = await gateway.get("/dashboard/data?key=nobody", key=None, headers=cookie)
    assert (none["total"]["requests"], none["budgets"]) == (0, [])
    assert (await gateway.get("/dashboard/data?range=9y", key=None, headers=cookie))[0].status == 400


async def test_stream_tells_figures_and_ends_with_the_gateway(start_gateway: StartGateway) -> None:
    gateway, cookie = await opened(start_gateway)
    async with gateway.client.get(f"{gateway.url}/dashboard/stream", headers=cookie) as response:
        assert response.content_type == "text/event-stream"
        while not (line := await asyncio.wait_for(response.content.readline(), 10)).startswith(b"data: "):
            assert line
        assert json.loads(line[6:])["health"]["store"]["lost"] == ""


async def test_pages_name_nothing_outside_and_tell_no_secret(start_gateway: StartGateway) -> None:
    gateway, cookie = await opened(start_gateway)
    response, page = await gateway.get("/dashboard", key=None, headers=cookie)
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "unsafe" not in response.headers["Content-Security-Policy"]
    assert b"//" not in page
    for name in re.findall(rb'(?:src|href)="(dashboard/[^"]+)"', page):
        assert (await gateway.get("/" + name.decode(), key=None))[0].status == 200
    assert (await gateway.get("/dashboard/app.py", key=None))[0].status == 404
    _, told = await gateway.get("/dashboard/data", key=None, headers=cookie)
    assert "sha256" not in json.dumps(told)
