"""``/dashboard``: the page that operators look at, its sign-in, and the figures it lives on."""

from __future__ import annotations

import asyncio
import hmac
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from aiohttp import web

from gateway.callers import require_admin
from gateway.endpoints.answers import answer
from gateway.endpoints.dashboard_answer import RANGES, Lens, View, choices
from gateway.endpoints.dashboard_figures import NOTHING_YET, Figures
from gateway.endpoints.dashboard_session import COOKIE, LASTS_S, Brakes, Sessions
from gateway.errors import BadRequest, Forbidden, GatewayError, NotFound, StoreUnavailable, Unauthorized
from gateway.exchange import EXCHANGE
from gateway.incoming import read_body
from gateway.runtime import RUNTIME
from policies.policy import digest

_WEB = Path(__file__).parent.parent / "web"
_FILES = (
    "dashboard.css",
    "dashboard.js",
    "dashboard_chart.js",
    "dashboard_draw.js",
    "dashboard_panels.js",
    "dashboard_words.js",
    "login.js",
)
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

STREAM_LASTS_S = 600.0
"""Then the page connects again, and its session is looked at again."""
PERIOD_S = 1.0
MOST_CREDENTIAL = 4096
MOST_FILTER = 512
FIRST_TRIES = 5


class Dashboard:
    """What one application keeps for the page. `ending` is set when it shuts down, so that no stream holds it up."""

    def __init__(self, figures: Figures) -> None:
        self.figures = figures
        self.sessions = Sessions()
        self.brakes = Brakes()
        self.ending = asyncio.Event()


DASHBOARD = web.AppKey("dashboard", Dashboard)


def attach(app: web.Application) -> None:
    """Give an application its dashboard."""
    board = app[DASHBOARD] = Dashboard(Figures(app[RUNTIME]))

    async def end(_: web.Application) -> None:
        board.ending.set()
        await board.figures.end()

    app.on_shutdown.append(end)


async def page(request: web.Request) -> web.StreamResponse:
    """The page, the sign-in, or how to open both."""
    if request.app[RUNTIME].current.settings.admin.digest is None:
        return _file("dashboard_closed.html")
    return _file("dashboard.html" if await _is_open(request) else "dashboard_login.html")


async def asset(request: web.Request) -> web.StreamResponse:
    """A file that the page is made of."""
    name = request.match_info["file"]
    if name not in _FILES:
        raise NotFound(f"/dashboard has no file '{name}'.")
    return _file(name)


async def session(request: web.Request) -> web.Response:
    """Whether this browser is signed in: a link followed from elsewhere comes without its strict cookie."""
    return answer({"open": await _is_open(request)})


async def login(request: web.Request) -> web.Response:
    """Take the admin key once and give a session for it."""
    runtime, board = request.app[RUNTIME].current, request.app[DASHBOARD]
    _same_origin(request)
    now, client = runtime.clock(), request[EXCHANGE].client
    wait = board.brakes.wait_s(client, now=now)
    if wait > 0:
        raise GatewayError(
            f"Too many wrong keys from this address; try again in {wait:.0f} s.",
            status=429,
            type="invalid_request_error",
            code="too_many_tries",
            headers={"Retry-After": str(max(1, round(wait)))},
        )
    expected = runtime.settings.admin.digest
    if expected is None:
        raise Forbidden("The dashboard is closed: no admin key is configured.", code="admin_closed")
    length = request.content_length
    if length is None or length > MOST_CREDENTIAL or request.content_type != "application/x-www-form-urlencoded":
        raise BadRequest("Send the key as a form field of known length, and no longer than any key.", param="key")
    form = parse_qs((await read_body(request, max_body_bytes=MOST_CREDENTIAL)).decode("utf-8", "replace"))
    presented = form.get("key", [""])[0].strip()
    good = hmac.compare_digest(digest(presented), expected)
    board.brakes.note(client, good=good, now=now)
    if not good:
        raise Unauthorized("This is not the admin key.", code="invalid_admin_key")
    response = answer({"open": True})
    token = await board.sessions.make(runtime, now=now)
    # No path: the browser takes the folder of this address, so that no other path, and no upstream, is sent the cookie.
    response.headers["Set-Cookie"] = f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Max-Age={int(LASTS_S)}" + (
        "; Secure" if request.secure else ""
    )
    return response


async def logout(request: web.Request) -> web.Response:
    """End the session of this browser."""
    _same_origin(request)
    response = answer({"open": False})
    response.headers["Set-Cookie"] = f"{COOKIE}=; HttpOnly; SameSite=Strict; Max-Age=0"
    return response


async def data(request: web.Request) -> web.Response:
    """The figures once."""
    await _require_open(request)
    body, view = NOTHING_YET, _view(request)
    for _ in range(FIRST_TRIES):
        body = await request.app[DASHBOARD].figures.of(view)
        if body != NOTHING_YET:
            return web.Response(body=body, content_type="application/json", headers=_HEADERS)
    raise StoreUnavailable("The store has not answered yet. Try again shortly.", retry_after_s=PERIOD_S)


async def names(request: web.Request) -> web.Response:
    """Keys, tags or models to filter by, as far as they contain what was typed."""
    await _require_open(request)
    of, text = request.query.get("of", ""), request.query.get("q", "")
    if of not in ("key", "tag", "model"):
        raise BadRequest("'of' is one of key, tag, model.", param="of", code="invalid_value")
    runtime, lines = request.app[RUNTIME].current, await request.app[DASHBOARD].figures.lines()
    found = await asyncio.to_thread(choices, runtime, lines, of, text)
    return web.json_response({"values": found}, headers=_HEADERS)


async def stream(request: web.Request) -> web.StreamResponse:
    """The figures again and again, as server-sent events."""
    await _require_open(request)
    board, view = request.app[DASHBOARD], _view(request)
    response = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
    await response.prepare(request)
    await response.write(b"retry: 1000\n\n")
    loop = asyncio.get_running_loop()
    until = loop.time() + STREAM_LASTS_S
    while not board.ending.is_set() and loop.time() < until:
        try:
            await response.write(b"data: " + await board.figures.of(view) + b"\n\n")
        except ConnectionError:  # the page was closed
            return response
        try:
            await asyncio.wait_for(board.ending.wait(), PERIOD_S)
        except TimeoutError:
            continue
    return response


DASHBOARD_ENDPOINTS = (
    ("GET", "/dashboard", page),
    ("GET", "/dashboard/session", session),
    ("POST", "/dashboard/login", login),
    ("POST", "/dashboard/logout", logout),
    ("GET", "/dashboard/data", data),
    ("GET", "/dashboard/names", names),
    ("GET", "/dashboard/stream", stream),
    ("GET", "/dashboard/{file}", asset),
)


async def _is_open(request: web.Request) -> bool:
    runtime = request.app[RUNTIME].current
    token = request.cookies.get(COOKIE, "")
    if not token or runtime.settings.admin.digest is None:
        return False
    return await request.app[DASHBOARD].sessions.holds(runtime, token, now=runtime.clock())


async def _require_open(request: web.Request) -> None:
    if not await _is_open(request):
        require_admin(request.app[RUNTIME].current, request)


def _same_origin(request: web.Request) -> None:
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise Forbidden("This may only be asked by the dashboard itself.", code="cross_origin")


def _view(request: web.Request) -> View:
    query = request.query
    span = query.get("range", "1h")
    if span not in RANGES:
        raise BadRequest(f"'range' is one of {', '.join(RANGES)}.", param="range", code="invalid_value")
    key, model, tag, find = (query.get(name, "")[:MOST_FILTER] for name in ("key", "model", "tag", "find"))
    return View(Lens(span, key, model, tag), find, all_budgets=query.get("show") == "all")


def _file(name: str) -> web.FileResponse:
    return web.FileResponse(_WEB / name, headers=_HEADERS)
