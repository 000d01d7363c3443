"""The composition root: the only place that constructs, and the only one that names the clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache

import structlog
from aiohttp import web

from gateway.counting import Counting
from gateway.echo import EchoUpstream
from gateway.endpoints import admissions, budgets, counting, health, metrics
from gateway.endpoints.answers import METHODS, refuse_method
from gateway.http.client import HttpClient
from gateway.http_upstream import HttpUpstream
from gateway.incoming import expect_continue
from gateway.metrics import Metrics
from gateway.middleware import Handler, boundary
from gateway.owners import dead_owners, new_owner
from gateway.proxy import proxy
from gateway.runtime import RUNTIME, Runtime, RuntimeHolder
from gateway.settings import Settings, UpstreamSettings
from gateway.unfinished import Unfinished
from gateway.upstream import Upstream, Upstreams
from gateway.watchdog import Watchdog
from policies.engine import BudgetEngine
from policies.model import BudgetStatus, StoreLost
from policies.stores import open_store
from tokenizers_offline.catalog import Catalog, Override
from tokenizers_offline.counter import TokenCounter
from tokenizers_offline.encoders import Encoders
from tokenizers_offline.learning import DriftLearner
from tokenizers_offline.overheads import Overheads
from tokenizers_offline.prompt import CountingError
from tokenizers_offline.store import TokenizerStore

_log = structlog.get_logger("app")

SWEEP_PERIOD_S = 5.0
"""How often orphaned holds are looked for, and this process's sign of life is renewed."""

UPSTREAM_KEEPALIVE_S = 55.0
"""Idle upstream connections are closed before the 60 s at which most load balancers close theirs."""

DIRECT_ENDPOINTS: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/calculate", counting.calculate),
    ("POST", "/batch-calculate", counting.batch_calculate),
    ("GET", "/models", counting.list_models),
    ("GET", "/health", health.health),
    ("GET", "/budgets", budgets.budgets),
    ("GET", "/metrics", metrics.metrics),
    ("POST", "/v1/admissions", admissions.admit),
    ("POST", "/v1/admissions/{id}/settle", admissions.settle),
    ("POST", "/v1/admissions/{id}/release", admissions.release),
)


def load_tokenizers(settings: Settings) -> TokenCounter:
    """The counter for a configuration, safe to share by forking.

    With several workers the tokenizers to preload are loaded here, so that their pages are shared; one worker alone
    loads them when it is already answering.
    """
    store = TokenizerStore(settings.tokenizers.dir)
    overrides = {
        name: Override(each.like, each.encoding, each.layout, each.max_output_tokens)
        for name, each in settings.tokenizers.models.items()
    }
    counter = TokenCounter(
        Catalog.load(overrides, installed=store.installed()),
        Encoders(store),
        store,
        overheads=known_overheads(),
        unknown_model=settings.tokenizers.unknown_model,
    )
    if settings.server.workers != 1:
        _warm(counter, settings)
    return counter


@cache
def known_overheads() -> Overheads:
    """The hidden prompts of known hosts, read once."""
    return Overheads.load()


def build_app(
    settings: Settings, *, counter: TokenCounter | None = None, clock: Callable[[], float] = time.time
) -> web.Application:
    """The gateway as an aiohttp application. Sockets, threads and files are opened when it starts, so it may be built
    before a fork."""
    app = web.Application(middlewares=[boundary], client_max_size=settings.server.max_body_bytes)
    app[RUNTIME] = RuntimeHolder()
    app[METHODS] = {}
    for method, path, handler in DIRECT_ENDPOINTS:
        resource = app.router.add_resource(path)
        resource.add_route(method, handler, expect_handler=expect_continue)
        resource.add_route("*", refuse_method)
        app[METHODS][resource.canonical] = method
    app.router.add_route("*", "/{path:.*}", proxy, expect_handler=expect_continue)

    async def run(app: web.Application) -> AsyncIterator[None]:
        async with open_runtime(settings, counter=counter or load_tokenizers(settings), clock=clock) as runtime:
            app[RUNTIME].current = runtime
            yield

    app.cleanup_ctx.append(run)
    return app


@asynccontextmanager
async def open_runtime(
    settings: Settings, *, counter: TokenCounter, clock: Callable[[], float]
) -> AsyncIterator[Runtime]:
    """Everything a worker needs, opened and in the end closed in order: nothing begun is lost."""
    engine = _engine(settings)
    client = HttpClient(limit_per_host=0, keepalive_s=UPSTREAM_KEEPALIVE_S)
    prompts = Counting(counter, DriftLearner(), known_overheads())
    watchdog = Watchdog()
    unfinished = Unfinished()
    runtime = Runtime(
        settings=settings,
        policy=settings.policy,
        engine=engine,
        unfinished=unfinished,
        counting=prompts,
        upstreams=Upstreams([_upstream(each, client, prompts, clock) for each in settings.upstreams]),
        watchdog=watchdog,
        metrics=Metrics(),
        clock=clock,
        started_at=clock(),
    )
    background = [
        asyncio.create_task(watchdog.run()),
        asyncio.create_task(_sweep(engine, clock)),
        asyncio.create_task(asyncio.to_thread(_warm, counter, settings)),
    ]
    try:
        yield runtime
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await unfinished.close()
        await client.close()
        prompts.close()
        await engine.close(now=clock())


def _engine(settings: Settings) -> BudgetEngine:
    return BudgetEngine(
        settings.policy,
        open_store(settings.store.url),
        owner=new_owner(),
        hold_timeout_s=settings.store.hold_timeout_s,
        on_store_error=settings.store.on_error,
        replicas=settings.store.replicas,
        ledger_keep_s=settings.store.retention_days * 86_400,
    )


async def read_budgets(
    settings: Settings, *, clock: Callable[[], float] = time.time
) -> dict[str, tuple[BudgetStatus, ...]]:
    """How every key's budgets stand in the store now, by key id. Raises `StoreLost`."""
    engine = _engine(settings)
    try:
        return {key.id: await engine.status(key, now=clock()) for key in settings.policy.keys}
    finally:
        await engine.close(now=clock())


def _upstream(
    settings: UpstreamSettings, client: HttpClient, prompts: Counting, clock: Callable[[], float]
) -> Upstream:
    if settings.url.startswith("echo:"):
        return Upstream(settings, EchoUpstream(settings, prompts, clock))
    return Upstream(settings, HttpUpstream(client, settings))


def _warm(counter: TokenCounter, settings: Settings) -> None:
    try:
        counter.warm(settings.tokenizers.preload)
    except CountingError as error:
        _log.error("preload_failed", reason=str(error))


async def _sweep(engine: BudgetEngine, clock: Callable[[], float]) -> None:
    lost = False
    while True:
        try:
            abandoned = await engine.sweep(now=clock(), dead_owners=await _dead_owners(engine))
        except Exception:  # without its sweeper a gateway would look dead to the others: it must go on
            _log.exception("sweep_failed")
            abandoned = []
        if abandoned:
            _log.warning("abandoned_holds_settled", count=len(abandoned))
        if bool(engine.store_error) != lost:
            lost = not lost
            if lost:
                _log.error("store_lost", reason=engine.store_error)
            else:
                _log.info("store_recovered")
        await asyncio.sleep(SWEEP_PERIOD_S)


async def _dead_owners(engine: BudgetEngine) -> frozenset[str]:
    """Owners of holds that need not be waited for: workers of this machine that were killed."""
    try:
        holds = await engine.store.holds()
    except StoreLost:
        return frozenset()
    return dead_owners({hold.owner for hold in holds}, me=engine.owner)
