"""A real browser for tests of pages: Debian's Chromium, driven by Playwright, and what must never be seen in it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NO_CHROMIUM = "there is no Chromium here (Debian: apt-get install chromium)"

# What Chromium does by itself (updates, the time) finds no name to go to.
QUIET = (
    "--headless",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)

PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)

LIGHT = {"color_scheme": "light", "viewport": {"width": 1440, "height": 900}}
DARK = {**LIGHT, "color_scheme": "dark"}
PHONE = {"color_scheme": "light", "viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}

_REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error("policy violation: " + event.violatedDirective + " " + event.blockedURI));
"""


@dataclass
class Watched:
    """A browser's context, and what its pages did: complaints in the console, and addresses asked for."""

    context: BrowserContext
    origin: str
    foreseen: tuple[str, ...] = ()
    """Parts of complaints that the test itself brings about."""
    complaints: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    async def open(self, address: str) -> Page:
        """A page at an address of the origin."""
        page = await self.context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on("request", lambda request: self.asked.add(request.url))
        await page.goto(self.origin + address)
        return page

    def assert_clean(self) -> None:
        """Nothing was complained about, and nobody else was asked."""
        assert self.complaints == []
        origin = urlsplit(self.origin).netloc
        assert {url for url in self.asked if urlsplit(url).netloc != origin and not url.startswith("data:")} == set()

    def _hear(self, message: ConsoleMessage) -> None:
        told = message.type in ("error", "warning", "assert")
        if told and not any(part in message.text for part in self.foreseen):
            self.complaints.append(f"{message.type}: {message.text} ({message.location.get('url')})")


@asynccontextmanager
async def browser(home: Path) -> AsyncIterator[Browser]:
    """A browser of our own, whose files lie in `home`."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=list(QUIET), env={**os.environ, "HOME": str(home)}
        )
        try:
            yield chromium
        finally:
            await chromium.close()


@asynccontextmanager
async def watched(
    chromium: Browser, origin: str, look: dict[str, Any], *, foreseen: tuple[str, ...] = ()
) -> AsyncIterator[Watched]:
    """A context of its own, with no cookies of others; a clean one at the end unless the test failed."""
    context = await chromium.new_context(**look)
    await context.add_init_script(_REPORT_VIOLATIONS)
    yield (seen := Watched(context, origin, foreseen))
    await context.close()
    seen.assert_clean()


async def serious_problems(page: Page) -> list[str]:
    """What axe-core finds on a page that keeps people from using it."""
    # The page's own policy allows no foreign script; this one comes from the test, by the debugger.
    found = await Axe().run(page)
    return [
        f"{problem['impact']} {problem['id']}: {problem['nodes'][0]['html'][:200]}"
        for problem in found.response["violations"]
        if problem["impact"] in ("serious", "critical")
    ]


async def take_picture(page: Page, name: str, otherwise: Path) -> None:
    """A picture of the whole page, in the folder that ``TOLLGATE_SCREENSHOTS`` names."""
    folder = Path(os.environ.get("TOLLGATE_SCREENSHOTS", otherwise))
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    await page.screenshot(path=folder / f"{name}.png", full_page=True)
