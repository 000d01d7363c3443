"""``POST /admin/reload``: read the configuration again, now."""

from __future__ import annotations

from aiohttp import web

from gateway.audit import audit
from gateway.config.problems import ConfigError
from gateway.endpoints.answers import answer
from gateway.errors import BadRequest, NotFound
from gateway.runtime import RUNTIME


async def reload(request: web.Request) -> web.Response:
    """Put the file in force in this worker; the others follow within a second. Wrong: 400 with every problem, and
    nothing changes."""
    reloader = request.app[RUNTIME].current.reloader
    if reloader is None:
        raise NotFound("This gateway was not started from a configuration file.", code="no_config_file")
    try:
        changes = await reloader.reload("/admin/reload")
    except ConfigError as error:
        raise BadRequest(
            "The configuration cannot be used; the one from before stays in force: "
            + " | ".join(str(problem) for problem in error.problems),
            code="invalid_configuration",
            details={
                "problems": [{"place": each.place, "what": each.what, "remedy": each.remedy} for each in error.problems]
            },
        ) from None
    told = {"changes": list(changes.applied), "needs_restart": list(changes.needs_restart)}
    audit(request, "config_reloaded", before=None, after=told)
    return answer({"status": "reloaded" if changes.applied else "unchanged", **told})
