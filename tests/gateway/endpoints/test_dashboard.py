"""Who sees the dashboard, and that its figures are the store's."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.config import load_settings
from gateway.endpoints.dashboard_figures import FEW_LINES
from gateway.settings import Settings
from policies.ledger import LedgerEntry
from policies.model import StoreLost
from policies.stores.base import HeldLine
from tests.conftest import RunningGateway, StartGateway, config_for, digest

ADMIN = "sk-test-admin"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}


async def opened(
    start_gateway: StartGateway, *, reload: Callable[[], Settings] | None = None, **sections: Any
) -> tuple[RunningGateway, dict[str, str]]:
    gateway = await start_gateway(config_for(admin={"digest": digest(ADMIN)}, **sections), reload=reload)
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


async def test_dashboard_has_a_banner_while_the_configuration_file_cannot_be_used(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    file = tmp_path / "config0.yaml"
    gateway, cookie = await opened(start_gateway, reload=lambda: load_settings(file, env={}))
    good = await asyncio.to_thread(file.read_text)

    async def problems_after(text: str, *, count: int) -> list[str]:
        await asyncio.to_thread(file.write_text, text)
        await gateway.post("/admin/reload", key=ADMIN)
        async with asyncio.timeout(10):
            while True:  # figures are kept for a moment
                _, data = await gateway.get("/dashboard/data", key=None, headers=cookie)
                told: list[str] = data["health"]["config"]["problems"]
                if len(told) == count:
                    return told
                await asyncio.sleep(0.05)

    (problem,) = await problems_after(good + "time_zone: Mars\n", count=1)
    assert "`time_zone: Mars` is not a time zone" in problem
    assert await problems_after(good, count=0) == []


async def test_figures_stay_and_say_so_when_the_store_is_lost(start_gateway: StartGateway) -> None:
    gateway, cookie = await opened(start_gateway)
    assert (await gateway.post("/v1/chat/completions", CHAT))[0].status == 200
    _, told = await gateway.get("/dashboard/data", key=None, headers=cookie)
    assert (told["health"]["store"]["lost"], told["total"]["requests"]) == ("", 1)
    engine = gateway.runtime.engine
    working, engine.store = engine.store, LostStore()
    try:
        told = await asyncio.wait_for(figures_where(gateway, cookie, lambda told: told["health"]["store"]["lost"]), 20)
    finally:
        engine.store = working
    assert told["health"]["store"]["lost"] == "redis at 127.0.0.1:1 does not answer"
    assert (told["total"]["requests"], len(told["budgets"])) == (1, 1)
    assert told["age_s"] > 0


async def test_budgets_of_a_view_are_those_that_can_meet_it(start_gateway: StartGateway) -> None:
    everyone = [{"tokens": 1000, "per": "day"}]
    gateway, cookie = await opened(
        start_gateway,
        budgets=[
            {"name": "mine", "each": "key", "limits": [{"tokens": 50, "per": "day"}]},
            {"name": "searchers", "match": {"team": "search"}, "limits": everyone},
            {"name": "others", "match": {"team": "ads"}, "limits": everyone},
            {"name": "claude", "match": {"model": "claude-*"}, "limits": everyone},
            {"name": "watched", "mode": "shadow", "limits": [{"tokens": 1, "per": "day"}]},
        ],
    )
    await gateway.post("/v1/chat/completions", CHAT)

    async def names(query: str) -> list[str]:
        _, told = await gateway.get(f"/dashboard/data?{query}", key=None, headers=cookie)
        return [each["budget"] for each in told["budgets"]]

    # What refuses comes before what only watches.
    assert await names("") == ["mine", "searchers", "claude", "others", "watched"]
    assert set(await names("key=alice")) == {"mine", "searchers", "claude", "watched"}
    assert set(await names("tag=team:search")) == {"mine", "searchers", "claude", "watched"}
    assert set(await names("tag=team:ads")) == {"others", "claude", "watched"}
    assert "claude" not in await names("model=gpt-4o")
    assert await names("find=ARCH") == ["searchers"]
    assert await names("find=alice") == ["mine"]


async def test_names_to_filter_by_are_found_by_a_part(start_gateway: StartGateway) -> None:
    gateway, cookie = await opened(start_gateway)
    await gateway.post("/v1/chat/completions", CHAT)
    for query, found in (
        ("of=key&q=LIC", ["alice"]),
        ("of=tag&q=sea", ["team:search"]),
        ("of=model&q=", ["gpt-4o"]),
        ("of=model&q=claude", []),
    ):
        _, told = await gateway.get(f"/dashboard/names?{query}", key=None, headers=cookie)
        assert told == {"values": found}
    assert (await gateway.get("/dashboard/names?of=digest", key=None, headers=cookie))[0].status == 400
    assert (await gateway.get("/dashboard/names?of=key", key=None))[0].status == 401


async def test_page_stays_small_with_ten_thousand_keys(start_gateway: StartGateway, store_url: str) -> None:
    gateway, cookie = await opened(
        start_gateway,
        store={"url": store_url},
        budgets=[{"name": f"plan-{n}", "each": "key", "limits": [{"tokens": 1000, "per": "day"}]} for n in range(100)],
    )
    engine = gateway.runtime.engine
    now = engine.store.aligned(gateway.runtime.clock())
    day = engine.calendar.window("day", now)
    for first in range(0, 10_000, 1_000):
        lines = [
            HeldLine(f"plan-{n % 100}|key=user-{n:05d}|tokens|day", int(day.start), n % 900, now + 86_400)
            for n in range(first, first + 1_000)
        ]
        await engine.store.charge(lines, batch=f"batch-{first}", now=now)
    engine.store.record(LedgerEntry("q", now, "user-00001", "gpt-4o", "echo", "ok"))
    response, told = await gateway.get("/dashboard/data", key=None, headers=cookie)
    assert int(response.headers["Content-Length"]) < 30_000
    assert (len(told["budgets"]), told["budget_count"]) == (12, 9_988)  # some counters are at nothing
    assert told["budgets"][0]["used"] == 899
    _, told = await gateway.get("/dashboard/data?show=all", key=None, headers=cookie)
    assert len(told["budgets"]) == 100
    _, told = await gateway.get("/dashboard/data?find=user-09998", key=None, headers=cookie)
    assert [(each["scope"], each["used"]) for each in told["budgets"]] == [("key=user-09998", 98)]


async def test_every_ledger_line_is_summed_once_however_many_come_between(
    start_gateway: StartGateway, store_url: str
) -> None:
    gateway, cookie = await opened(start_gateway, store={"url": store_url})
    store, now = gateway.runtime.engine.store, gateway.runtime.clock()
    written = 0
    for more in (3, FEW_LINES + 200, 2, 0):
        for _ in range(more):
            written += 1
            store.record(LedgerEntry(f"q{written}", now, "alice", "gpt-4o", "echo", "ok", input_tokens=written))
        wanted = [written, sum(range(written + 1))]
        await asyncio.wait_for(
            figures_where(gateway, cookie, lambda told: [told["total"]["requests"], told["total"]["tokens"]] == wanted),  # noqa: B023
            30,
        )


async def figures_where(gateway: RunningGateway, cookie: dict[str, str], holds: Callable[[Any], Any]) -> Any:
    """The next figures of which something holds, from the stream of a page."""
    async with gateway.client.get(f"{gateway.url}/dashboard/stream", headers=cookie) as response:
        async for line in response.content:
            if line.startswith(b"data: ") and holds(told := json.loads(line[6:])):
                return told
    raise AssertionError("the stream ended")


class LostStore:
    """A store behind a broken connection."""

    def __getattr__(self, _: str) -> Any:
        async def lost(*_: Any, **__: Any) -> Any:
            raise StoreLost("redis at 127.0.0.1:1 does not answer")

        return lost

    def aligned(self, now: float) -> float:
        return now
