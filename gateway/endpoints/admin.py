"""``/admin``: what operators do to a gateway that runs. All of it needs the admin key; every change is logged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from gateway.callers import require_admin
from gateway.endpoints import admin_budgets, admin_holds, admin_keys, admin_reload, admin_reports
from gateway.refusals import error_for_store
from gateway.runtime import RUNTIME
from policies.model import StoreLost

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def for_admin(handler: Handler) -> Handler:
    """Let only the admin key's holder reach a handler, and tell them when the store is lost."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        require_admin(request.app[RUNTIME].current, request)
        try:
            return await handler(request)
        except StoreLost as lost:
            raise error_for_store(lost) from None

    return guarded


ADMIN_ENDPOINTS: tuple[tuple[str, str, Handler], ...] = tuple(
    (method, path, for_admin(handler))
    for method, path, handler in (
        ("GET", "/admin/keys", admin_keys.list_keys),
        ("POST", "/admin/keys", admin_keys.create),
        ("GET", "/admin/keys/{id}", admin_keys.show),
        ("POST", "/admin/keys/{id}/rotate", admin_keys.rotate),
        ("POST", "/admin/keys/{id}/disable", admin_keys.disable),
        ("POST", "/admin/keys/{id}/enable", admin_keys.enable),
        ("POST", "/admin/keys/{id}/expire", admin_keys.expire),
        ("POST", "/admin/keys/{id}/tags", admin_keys.retag),
        ("GET", "/admin/budgets", admin_budgets.list_budgets),
        ("POST", "/admin/budgets/{name}/top-up", admin_budgets.top_up),
        ("POST", "/admin/budgets/{name}/reset", admin_budgets.reset),
        ("GET", "/admin/holds", admin_holds.list_holds),
        ("POST", "/admin/holds/{id}/release", admin_holds.release),
        ("POST", "/admin/reload", admin_reload.reload),
        ("GET", "/admin/usage", admin_reports.usage),
        ("GET", "/admin/drift", admin_reports.drift),
        ("POST", "/admin/drift/reset", admin_reports.reset_drift),
    )
)
