"""The provider behind the gateway under test: `echo:` behind a recorder that reads every bill for itself.

It reads answers with a few lines of its own, so that the gateway's reading is held against something else.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

PACE_S = 0.02
"""Between two events of an answer that is to be cancelled."""
SLOW = "cancellation"
"""Keys with this in their name are answered slowly."""
FAILING = "failure"
"""Keys with this in their name are answered with an error."""
_NOT_PASSED = {"host", "authorization", "x-api-key", "x-goog-api-key", "content-length", "accept-encoding"}


@dataclass
class Bills:
    """What one key was billed: `tokens` by all its answers, and what was sent of the last one."""

    requests: int = 0
    tokens: int = 0
    sent: list[str] = field(default_factory=list)


class Provider:
    """Forwards to an echo gateway and remembers, by the key that came along."""

    def __init__(self, echo_url: str) -> None:
        self._echo_url = echo_url
        self.bills: dict[str, Bills] = defaultdict(Bills)
        self.url = ""

    async def __aenter__(self) -> Provider:
        self._session = aiohttp.ClientSession(auto_decompress=True)
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        key = _key(request)
        bills = self.bills[key]
        bills.requests += 1
        if FAILING in key:
            return web.json_response({"error": {"message": "out of order", "type": "server_error"}}, status=500)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _NOT_PASSED}
        url = self._echo_url + request.rel_url.raw_path_qs
        async with self._session.request(request.method, url, headers=headers, data=await request.read()) as answer:
            body = await answer.read()
        told = {"Content-Type": answer.headers.get("Content-Type", "application/json")}
        if "event-stream" not in told["Content-Type"] or SLOW not in key:
            bills.tokens += billed(body)
            return web.Response(status=answer.status, headers=told, body=body)
        response = web.StreamResponse(status=answer.status, headers=told)
        await response.prepare(request)
        bills.sent.clear()
        try:
            for event in body.split(b"\n\n"):
                bills.sent.append(event.decode())
                await response.write(event + b"\n\n")
                await asyncio.sleep(PACE_S)
        except ConnectionError:  # hung up on, as it should be: a provider bills nothing for what it could not end
            return response
        bills.tokens += billed(body)
        return response


def _key(request: web.Request) -> str:
    if "x-tollgate-key" in request.headers:
        return request.headers["x-tollgate-key"]
    bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
    named = request.headers.get("x-api-key") or request.headers.get("x-goog-api-key")
    return named or bearer or request.query.get("key", "")


def billed(body: bytes) -> int:
    """The tokens an answer reports: the most that any of its documents says of either kind."""
    lines = [line.removeprefix("data: ") for line in body.decode().splitlines()]
    given = written = 0
    for document in filter(None, (_read(text) for text in [body.decode(), *lines])):
        for usage in _usages(document):
            named = {name: usage[name] for name in usage if isinstance(usage[name], int)}
            given = max(given, *(named.get(n, 0) for n in ("prompt_tokens", "input_tokens", "promptTokenCount")))
            written = max(
                written, *(named.get(n, 0) for n in ("completion_tokens", "output_tokens", "candidatesTokenCount"))
            )
    return given + written


def _usages(document: Any) -> list[dict[str, Any]]:
    places = [document, document.get("message"), document.get("response")]
    found = [place.get(name) for place in places if isinstance(place, dict) for name in ("usage", "usageMetadata")]
    return [usage for usage in found if isinstance(usage, dict)]


def _read(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
