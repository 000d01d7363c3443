"""Which path is answered by what: the gateway's own endpoints, and everything else forwarded."""

from __future__ import annotations

import re

from aiohttp import web

from gateway.endpoints import admission_answers, admissions, budgets, checks, counting, docs, health, metrics
from gateway.endpoints.admin import ADMIN_ENDPOINTS
from gateway.endpoints.answers import METHODS, refuse_method
from gateway.endpoints.dashboard import DASHBOARD_ENDPOINTS
from gateway.endpoints.forwarding import forward
from gateway.incoming import expect_continue
from gateway.lane.server import DIRECT
from gateway.middleware import Handler

DIRECT_ENDPOINTS: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/calculate", counting.calculate),
    ("POST", "/batch-calculate", counting.batch_calculate),
    ("GET", "/models", counting.list_models),
    ("GET", "/health", health.health),
    ("GET", "/budgets", budgets.budgets),
    ("GET", "/metrics", metrics.metrics),
    ("GET", "/openapi.json", docs.openapi),
    ("GET", "/docs", docs.docs),
    ("GET", "/docs/{file}", docs.asset),
    ("POST", "/v1/admissions", admissions.admit),
    ("POST", "/v1/admissions/{id}/settle", admissions.settle),
    ("POST", "/v1/admissions/{id}/release", admissions.release),
    ("POST", "/v1/admissions/{id}/answer", admission_answers.take_answer),
    *ADMIN_ENDPOINTS,
    *DASHBOARD_ENDPOINTS,
)

CHECKS: tuple[tuple[str, Handler], ...] = (
    (checks.ENVOY_PREFIX, checks.ext_authz),
    (checks.NGINX_PREFIX, checks.auth_request),
)
"""What other proxies ask before they forward a request: its own path follows, with any method."""


_DIRECT_PATHS = re.compile(
    "|".join(
        [re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)) for _, path, _ in DIRECT_ENDPOINTS]
        + [re.escape(prefix) + "/.*" for prefix, _ in CHECKS]
    )
)


def add_routes(app: web.Application) -> None:
    """Teach an application all of them."""
    app[METHODS] = {}
    app[DIRECT] = _DIRECT_PATHS
    for path in dict.fromkeys(path for _, path, _ in DIRECT_ENDPOINTS):
        handlers = {method: handler for method, each, handler in DIRECT_ENDPOINTS if each == path}
        resource = app.router.add_resource(path)
        for method, handler in handlers.items():
            resource.add_route(method, handler, expect_handler=expect_continue)
        resource.add_route("*", refuse_method)
        app[METHODS][resource.canonical] = ", ".join(handlers)
    for prefix, handler in CHECKS:
        app.router.add_route("*", prefix + "/{path:.*}", handler, expect_handler=expect_continue)
    app.router.add_route("*", "/{path:.*}", forward, expect_handler=expect_continue)
