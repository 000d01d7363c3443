"""Whether this gateway can do its work."""

from __future__ import annotations

import asyncio
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from aiohttp import web

from gateway.endpoints.answers import answer
from gateway.runtime import RUNTIME
from policies.model import StoreLost


def _version() -> str:
    try:
        return version("tollgate")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"


VERSION = _version()


async def health(request: web.Request) -> web.Response:
    """200 while the store answers, else 503. A configuration file that cannot be used makes it degraded, and still
    200: what was configured before is in force."""
    runtime = request.app[RUNTIME].current
    store: dict[str, Any] = {"status": "ok", "kind": runtime.settings.store.url.partition(":")[0]}
    try:
        await runtime.engine.store.ping()
    except StoreLost as lost:
        store |= {"status": "lost", "reason": str(lost), "on_error": runtime.settings.store.on_error}
    installed = await asyncio.to_thread(runtime.counting.counter.store.installed)
    source = runtime.settings.source
    healthy = store["status"] == "ok"
    problems = runtime.reloader.problems if runtime.reloader is not None else ()
    return answer(
        {
            "status": "ok" if healthy and not problems else "degraded",
            "version": VERSION,
            "uptime_s": round(runtime.clock() - runtime.started_at, 3),
            "store": store,
            "tokenizers": {
                "status": "ok" if installed else "none_installed",
                "installed": len(installed),
                "dir": str(runtime.settings.tokenizers.dir),
            },
            "config": {
                "status": "degraded" if problems else "ok",
                "version": runtime.settings.version or None,
                "problems": [str(problem) for problem in problems],
                "file": str(source) if source is not None else None,
                "keys": len(runtime.policy.keys),
                "budgets": len(runtime.policy.budgets),
                "upstreams": [upstream.name for upstream in runtime.upstreams.all],
            },
        },
        status=200 if healthy else 503,
    )
