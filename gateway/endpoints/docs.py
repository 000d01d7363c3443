"""``/openapi.json`` and ``/docs``: the direct endpoints described for programs and people, with no internet."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path

import orjson
from aiohttp import web

from gateway.endpoints.answers import METHODS
from gateway.endpoints.health import VERSION
from gateway.errors import NotFound

_WEB = Path(__file__).parent.parent / "web"
_OWN_FILES = ("docs.css", "docs.js")
_SWAGGER_FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")
_PARTS = ("/docs/", "/dashboard/")
"""What pages are made of: no endpoint for others."""

# The page itself is held to what it promises: nothing from elsewhere is loaded, nothing is told to elsewhere.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def openapi(request: web.Request) -> web.Response:
    """The description, written at its first reading."""
    endpoints = tuple(
        (method, path)
        for path, methods in request.app[METHODS].items()
        if not path.startswith(_PARTS)
        for method in methods.split(", ")
    )
    return web.Response(body=await asyncio.to_thread(_written, endpoints), content_type="application/json")


async def docs(request: web.Request) -> web.FileResponse:
    """Swagger UI over the description."""
    return _file(_WEB / "docs.html")


async def asset(request: web.Request) -> web.FileResponse:
    """A file that the page is made of."""
    name = request.match_info["file"]
    if name in _OWN_FILES:
        return _file(_WEB / name)
    if name in _SWAGGER_FILES:
        return _file(await asyncio.to_thread(_swagger_dir) / name)
    raise NotFound(f"/docs has no file '{name}'.")


def _file(path: Path) -> web.FileResponse:
    return web.FileResponse(path, headers={"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"})


@cache
def _swagger_dir() -> Path:
    from swagger_ui_bundle import swagger_ui_path  # late: few gateways are ever asked for their page

    return Path(swagger_ui_path)


@cache
def _written(endpoints: tuple[tuple[str, str], ...]) -> bytes:
    from gateway.openapi.document import describe

    return orjson.dumps(describe(endpoints, version=VERSION))
