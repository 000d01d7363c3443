"""The dashboard as people see it: in a real browser, on real gateways."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from playwright.async_api import Page, expect

from benchmarks.overspend.fleet import Process, free_port
from tests.browser import (
    CHROMIUM,
    DARK,
    LIGHT,
    NO_CHROMIUM,
    PHONE,
    browser,
    serious_problems,
    take_picture,
    watched,
)
from tests.conftest import RunningGateway, StartGateway, config_for, digest
from tests.fakes import FakeUpstream, chat_events, stream
from tests.gateway.test_workers import children_of

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)

ADMIN = "sk-test-admin"
BOB = "sk-test-bob"
HOSTILE = "<img src=x onerror=alert(1)>/gpt-4o"
"""A model with a vendor's name in front, as the catalog takes them."""
KEYS = [
    {"id": "alice", "digest": digest("sk-test-alice"), "tags": {"team": "search"}},
    {"id": "bob", "digest": digest(BOB), "tags": {"team": "<b>ads</b>"}},
]
BUDGETS = [
    {"name": "per-key", "each": "key", "limits": [{"tokens": 400, "per": "day"}]},
    {"name": "team", "each": "team", "limits": [{"tokens": 5_000, "per": "month"}]},
]


async def open_gateway(start_gateway: StartGateway, upstream: FakeUpstream, **sections: Any) -> RunningGateway:
    sections = {"admin": {"digest": digest(ADMIN)}, "keys": KEYS, "budgets": BUDGETS, **sections}
    upstreams = [{"name": "provider", "url": upstream.url}]
    return await start_gateway(config_for(upstreams=upstreams, **sections), clock=time.time)


async def log_in(page: Page) -> None:
    await page.get_by_label("Admin key").fill(ADMIN)
    await page.keyboard.press("Enter")
    await expect(page.locator("#live.good")).to_be_visible()


async def ask(gateway: RunningGateway, *, key: str = "sk-test-alice", model: str = "gpt-4o", **more: Any) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20, **more}
    response, _ = await gateway.post("/v1/chat/completions", body, key=key)
    return int(response.status)


async def filter_by(page: Page, name: str, text: str) -> None:
    await page.get_by_label(name, exact=True).fill(text)
    await page.keyboard.press("Enter")


@pytest.mark.parametrize("look", [LIGHT, DARK, PHONE], ids=["light", "dark", "phone"])
async def test_page_follows_what_happens(
    start_gateway: StartGateway, upstream: FakeUpstream, look: dict[str, Any], tmp_path: Path, request: Any
) -> None:
    gateway = await open_gateway(start_gateway, upstream)
    async with browser(tmp_path) as chromium, watched(chromium, gateway.url, look) as seen:
        page = await seen.open("/dashboard")
        await log_in(page)
        await expect(page.locator("#keys")).to_contain_text("No requests here yet")
        await expect(page.locator("#refusals")).to_contain_text("Nobody was refused")

        # A budget fills: held while the request runs, then used.
        goes_on = asyncio.Event()

        async def wait(number: int) -> None:
            if number:
                await goes_on.wait()

        usage = {"prompt_tokens": 30, "completion_tokens": 10, "total_tokens": 40}
        upstream.enqueue(stream(*chat_events("Hello", usage=usage), between=wait))
        running = asyncio.create_task(ask(gateway, stream=True, max_tokens=200))
        meter = page.get_by_role("meter", name="per-key key=alice tokens per day")
        await expect(meter).to_have_attribute("aria-valuetext", re.compile(r"^0 used, 2\d\d held, 1\d\d left of 400"))
        goes_on.set()
        assert await running == 200
        await expect(meter).to_have_attribute("aria-valuetext", re.compile(r"^40 used, 0 held, 360 left of 400"))
        await expect(meter.locator(".used")).to_have_attribute("width", "10.00%")

        # It is spent, and says so in words; the refusal says why.
        spent = [await ask(gateway) for _ in range(40)]
        assert 429 in spent
        card = page.locator(".budget", has_text="400 tokens per day").filter(has_text="alice")
        await expect(card).to_contain_text("Nearly full")
        await expect(page.locator("#refusals")).to_contain_text("Budget spent: tokens per day")
        await expect(page.locator("#refusals tr", has_text="budget per-key").last).to_contain_text("alice")
        await expect(page.locator("#latest tr", has_text="Refused").first).to_contain_text("budget per-key")

        # Names from outside are only ever text.
        assert await ask(gateway, key=BOB, model=HOSTILE) == 200
        assert await ask(gateway, key=BOB, model="gpt-4o-mini") == 200
        await expect(page.locator("#models")).to_contain_text(HOSTILE)
        assert await page.locator("main img, main script, main b:text-is('ads')").count() == 0
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        await take_picture(page, f"all-{request.node.callspec.id}", tmp_path / "pictures")

        # Filters are the address; what was typed may be a part of a name.
        await filter_by(page, "Team or tag", "search")
        await expect(page).to_have_url(re.compile(r"\?tag=team%3Asearch$"))
        await expect(page.locator("#keys tbody tr")).to_have_count(1)
        await page.get_by_role("link", name="Clear filters").click()
        await filter_by(page, "Model", "gpt-4o-mini")
        await expect(page.locator("#keys tbody tr")).to_have_count(1)
        await expect(page.locator("#keys")).to_contain_text("bob")
        await page.get_by_role("link", name="Clear filters").click()
        await expect(page).to_have_url(gateway.url + "/dashboard")
        await filter_by(page, "Key", "ali")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Key alice")
        await page.get_by_role("link", name="All keys").click()

        # One key, then the same from a link, and after a reload.
        await page.locator("#keys").get_by_role("link", name="bob").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Key bob")
        await expect(page.locator("#title")).to_contain_text("<b>ads</b>")
        await expect(page.get_by_role("meter", name="per-key key=bob")).to_be_visible()
        await expect(page.get_by_role("meter", name="per-key key=alice")).to_have_count(0)
        await expect(page.locator('[data-k="Requests"] strong')).to_have_text("2")
        await take_picture(page, f"key-{request.node.callspec.id}", tmp_path / "pictures")
        shared = await seen.open(page.url.removeprefix(gateway.url))
        await page.reload()
        for each in (shared, page):
            await expect(each.get_by_role("heading", level=1)).to_have_text("Key bob")
            await expect(each.locator('[data-k="Requests"] strong')).to_have_text("2")
            await expect(each.locator("#latest tbody tr")).to_have_count(2)


async def test_page_is_worked_with_the_keyboard(
    start_gateway: StartGateway, upstream: FakeUpstream, tmp_path: Path
) -> None:
    gateway = await open_gateway(start_gateway, upstream)
    assert [await ask(gateway), await ask(gateway), await ask(gateway, key=BOB)] == [200] * 3
    async with browser(tmp_path) as chromium, watched(chromium, gateway.url, LIGHT) as seen:
        page = await seen.open("/dashboard")
        await log_in(page)
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the figures")).to_be_focused()
        plot = page.get_by_role("slider")
        await plot.focus()
        await page.keyboard.press("ArrowLeft")
        await expect(plot).to_have_attribute("aria-valuetext", re.compile(r": 36 tokens$"))
        await expect(page.locator("#chart")).to_contain_text("Step:")
        await page.keyboard.press("Escape")
        await expect(page.locator("#chart")).to_contain_text("Whole range:")
        keys = page.locator("#keys")
        await keys.get_by_role("button", name="Requests").focus()
        await page.keyboard.press("Enter")
        await expect(keys.get_by_role("columnheader", name="Requests")).to_have_attribute("aria-sort", "descending")
        await expect(keys.locator("tbody tr").first).to_contain_text("alice")
        await page.keyboard.press("Enter")
        await expect(keys.locator("tbody tr").first).to_contain_text("bob")
        # Figures that arrive meanwhile leave the focus where it is.
        requests = page.locator('[data-k="Requests"] strong')
        await ask(gateway)
        await expect(requests).to_have_text("4")
        await expect(keys.get_by_role("button", name="Requests")).to_be_focused()
        await page.get_by_role("link", name="by model").focus()
        await page.keyboard.press("Enter")
        await expect(page).to_have_url(re.compile(r"\?by=models$"))
        await expect(page.get_by_role("list", name="Tokens by model")).to_contain_text("gpt-4o")
        await page.go_back()
        await expect(page.get_by_role("list", name="Tokens by key")).to_contain_text("alice")
        await page.get_by_role("button", name="Log out").press("Enter")
        await expect(page.get_by_label("Admin key")).to_be_visible()


@pytest.mark.parametrize("look", [LIGHT, DARK], ids=["light", "dark"])
async def test_pages_have_no_serious_accessibility_problem(
    start_gateway: StartGateway, upstream: FakeUpstream, look: dict[str, Any], tmp_path: Path, request: Any
) -> None:
    gateway = await open_gateway(start_gateway, upstream)
    statuses = [await ask(gateway, max_tokens=60) for _ in range(40)]
    assert {200, 429} == set(statuses)
    async with browser(tmp_path) as chromium, watched(chromium, gateway.url, look) as seen:
        page = await seen.open("/dashboard")
        found = {"sign-in": await serious_problems(page)}
        await take_picture(page, f"sign-in-{request.node.callspec.id}", tmp_path / "pictures")
        await log_in(page)
        await expect(page.locator("#refusals")).to_contain_text("alice")
        found["dashboard"] = await serious_problems(page)
        await page.locator("#keys").get_by_role("link", name="alice").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Key alice")
        found["key"] = await serious_problems(page)
        page = await seen.open("/docs")
        await expect(page.locator(".opblock").first).to_be_visible()
        found["docs"] = await serious_problems(page)
        assert found == {"sign-in": [], "dashboard": [], "key": [], "docs": []}


async def test_wrong_key_is_told_beside_the_field(
    start_gateway: StartGateway, upstream: FakeUpstream, tmp_path: Path
) -> None:
    gateway = await open_gateway(start_gateway, upstream)
    async with browser(tmp_path) as chromium, watched(chromium, gateway.url, PHONE, foreseen=("401",)) as seen:
        page = await seen.open("/dashboard?key=alice")
        await page.get_by_label("Admin key").fill("sk-wrong")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("This is not the admin key.")
        assert await serious_problems(page) == []
        await log_in(page)
        await expect(page.get_by_role("heading", level=1)).to_have_text("Key alice")


@pytest.mark.timeout(300)  # a machine that has other things to do starts two gateways and a browser slowly
async def test_page_shows_all_workers_and_outlives_what_goes_wrong(tmp_path: Path) -> None:
    port = free_port()
    url, file = f"http://127.0.0.1:{port}", tmp_path / "config.yaml"
    config = config_for(
        server={"host": "127.0.0.1", "port": port, "workers": 2},
        store={"url": f"sqlite:///{tmp_path / 'budgets.db'}"},
        admin={"digest": digest(ADMIN)},
    )
    good = yaml.safe_dump(config)
    await asyncio.to_thread(file.write_text, good)
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(file), "--log-format", "json"]
    gateway = Process(command, tmp_path / "log")
    await asyncio.to_thread(gateway.start)
    # Each request on a connection of its own: whichever worker is free takes it.
    client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))
    running = RunningGateway(url, port, None, client)
    try:
        await answers(running)
        assert [await ask(running) for _ in range(10)] == [200] * 10
        used = (await running.budget())["used"]
        async with browser(tmp_path) as chromium, watched(chromium, url, LIGHT, foreseen=("net::ERR_",)) as seen:
            page = await seen.open("/dashboard")
            await log_in(page)
            requests, workers = page.locator('[data-k="Requests"] strong'), page.locator('[data-k="Workers"]')
            for _ in range(4):  # whichever worker answers, it tells of all
                await expect(workers).to_contain_text("2 alive")
                await expect(page.locator("#health tbody tr")).to_have_count(2)
                await expect(requests).to_have_text("10")
                await expect(page.get_by_role("meter")).to_have_attribute("aria-valuenow", str(used))
                await page.reload()

            # A file that cannot be used is shouted about until it can be.
            banners = page.locator("#banners")
            await asyncio.to_thread(file.write_text, good + "budgets: {}\nkyes: []\n")
            await expect(banners).to_contain_text("The configuration file cannot be used")
            await expect(banners.locator("li").filter(has_text="kyes")).to_have_count(1)
            assert await serious_problems(page) == []
            await take_picture(page, "bad-config", tmp_path / "pictures")
            assert await ask(running) == 200
            await expect(requests).to_have_text("11")
            await asyncio.to_thread(file.write_text, good)
            await expect(banners).to_be_empty()

            # A worker that is killed is told of, and replaced.
            assert gateway.child is not None
            killed = min(await asyncio.to_thread(children_of, gateway.child.pid))
            os.kill(killed, signal.SIGKILL)
            await expect(page.locator("#health tr", has_text=f"process {killed}")).to_contain_text("gone")
            await expect(workers).to_contain_text("2 alive")

            # Without the gateway the figures stay, marked as old; then the page finds it again by itself.
            gateway.send(signal.SIGTERM)
            await gateway.gone()
            await expect(page.locator("#live")).to_have_text("Disconnected")
            await expect(banners).to_contain_text("The gateway is not heard")
            await expect(requests).to_have_text("11")
            assert await serious_problems(page) == []
            await take_picture(page, "disconnected", tmp_path / "pictures")
            await asyncio.to_thread(gateway.start)
            await expect(page.locator("#live.good")).to_be_visible()
            await expect(banners).to_be_empty()
            await expect(requests).to_have_text("11")
    finally:
        await client.close()
        gateway.send(signal.SIGTERM)
        await gateway.gone()


async def answers(gateway: RunningGateway) -> None:
    """Wait until a gateway that was just started takes requests."""
    for _ in range(600):
        try:
            if (await gateway.get("/health", key=None))[0].status == 200:
                return
        except aiohttp.ClientConnectionError:
            await asyncio.sleep(0.1)
    raise AssertionError("the gateway does not answer")
