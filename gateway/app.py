"""The composition root: the only place that constructs, and the only one that names the clock."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from threading import Event, Thread
from typing import TypeVar

import structlog
from aiohttp import web

from gateway.counting import Counting
from gateway.echo import EchoUpstream
from gateway.endpoints.dashboard import attach
from gateway.http.client import HttpClient
from gateway.http_upstream import HttpUpstream
from gateway.load import Load, share
from gateway.metrics import Metrics
from gateway.middleware import boundary
from gateway.notices import Notices
from gateway.operator_notes import OperatorNotes
from gateway.owners import dead_owners, new_owner
from gateway.relearning import LINES, relearn
from gateway.reloading import Reloader, follow
from gateway.routes import add_routes
from gateway.runtime import RUNTIME, Runtime, RuntimeHolder
from gateway.settings import Settings, UpstreamSettings
from gateway.unfinished import Unfinished
from gateway.upstream import Upstream, Upstreams
from gateway.watchdog import Watchdog
from gateway.webhook import Webhook
from policies.engine import BudgetEngine
from policies.model import StoreLost
from policies.stores import open_store
from tokenizers_offline.carried import open_tokenizers
from tokenizers_offline.catalog import Catalog, Override
from tokenizers_offline.counter import TokenCounter
from tokenizers_offline.encoders import Encoders
from tokenizers_offline.learning import DriftLearner
from tokenizers_offline.overheads import Overheads
from tokenizers_offline.prompt import CountingError
from tokenizers_offline.tiers import PLACES

_log = structlog.get_logger("app")

T = TypeVar("T")

LOOK_PERIOD_S = 0.4
"""How often the store is asked whether operators changed something: each worker must know within a second."""

SWEEP_PERIOD_S = 5.0
"""How often orphaned holds are looked for, and this process's sign of life is renewed."""

SWEEPS_A_TIMEOUT = 4
"""And at least so often within the hold timeout, or a living process would be taken for dead."""

UPSTREAM_KEEPALIVE_S = 55.0
"""Idle upstream connections are closed before the 60 s at which most load balancers close theirs."""


def load_tokenizers(settings: Settings) -> TokenCounter:
    """The counter for a configuration, safe to share by forking."""
    store = open_tokenizers(settings.tokenizers.dir)
    overrides = {
        name: Override(each.like, each.encoding, each.layout, each.max_output_tokens)
        for name, each in settings.tokenizers.models.items()
    }
    return TokenCounter(
        Catalog.load(overrides, installed=store.installed()),
        # What a worker moves to the fast engine, it has for itself: the more workers, the fewer encodings in each.
        Encoders(store, fast_places=max(1, PLACES // settings.server.processes)),
        store,
        overheads=known_overheads(),
        unknown_model=settings.tokenizers.unknown_model,
    )


def preload(counter: TokenCounter, settings: Settings) -> Iterator[None]:
    """Load the tokenizers that the configuration names, one a step: each takes up to two seconds. The only one is
    loaded in the fast engine, several start in the light one."""
    names = settings.tokenizers.preload
    fast = len(names) == 1
    for encoding in names:
        try:
            counter.warm([encoding], fast=fast)
        except CountingError as error:
            _log.error("preload_failed", reason=str(error))
        yield


@asynccontextmanager
async def _preloading(counter: TokenCounter, settings: Settings | None) -> AsyncIterator[None]:
    """Load tokenizers beside what happens meanwhile. In the end waits for the one that is being loaded: a thread that
    is in an engine's own code when the interpreter ends can take the whole process down (SIGABRT)."""
    ending = Event()

    def load() -> None:
        for _ in preload(counter, settings) if settings is not None else ():
            if ending.is_set():
                break

    thread = Thread(target=load, name="preload")
    thread.start()
    try:
        yield
    finally:
        ending.set()
        await asyncio.to_thread(thread.join)


@cache
def known_overheads() -> Overheads:
    """The hidden prompts of known hosts, read once."""
    return Overheads.load()


def build_app(
    settings: Settings,
    *,
    counter: TokenCounter | None = None,
    clock: Callable[[], float] = time.time,
    reload: Callable[[], Settings] | None = None,
    loads_tokenizers: bool = True,
) -> web.Application:
    """The gateway as an aiohttp application. Sockets, threads and files are opened when it starts, so it may be built
    before a fork.

    `reload` reads the settings again, as they were read for `settings`; with it the gateway follows its file.
    Without `loads_tokenizers` those to preload are somebody else's care.
    """
    app = web.Application(middlewares=[boundary], client_max_size=settings.server.max_body_bytes)
    app[RUNTIME] = RuntimeHolder()
    attach(app)
    add_routes(app)

    async def run(app: web.Application) -> AsyncIterator[None]:
        counting = counter or load_tokenizers(settings)
        async with (
            open_runtime(settings, app[RUNTIME], counter=counting, clock=clock, reload=reload),
            _preloading(counting, settings if loads_tokenizers else None),
        ):
            yield

    app.cleanup_ctx.append(run)
    return app


@asynccontextmanager
async def open_runtime(
    settings: Settings,
    holder: RuntimeHolder,
    *,
    counter: TokenCounter,
    clock: Callable[[], float],
    reload: Callable[[], Settings] | None = None,
) -> AsyncIterator[None]:
    """Put everything a worker needs into `holder`, opened and in the end closed in order: nothing begun is lost."""
    engine = _engine(settings)
    client = HttpClient(limit_per_host=0, keepalive_s=UPSTREAM_KEEPALIVE_S)
    prompts = Counting(counter, DriftLearner(), known_overheads())
    watchdog = Watchdog()
    unfinished = Unfinished()
    notes = OperatorNotes(holder)

    metrics = Metrics(most_models=settings.metrics.most_models, most_keys=settings.metrics.most_keys)
    metrics.tell_config(settings.version, at=clock())
    webhook = Webhook(client, metrics=metrics, clock=clock)
    webhook.aim(settings.webhook)

    def open_upstreams(configured: Sequence[UpstreamSettings]) -> Upstreams:
        return Upstreams([_upstream(each, client, prompts, clock) for each in configured])

    reloader = None
    if reload is not None and settings.source is not None:
        reloader = Reloader(holder, file=settings.source, load=reload, open_upstreams=open_upstreams)
    holder.current = Runtime(
        settings=settings,
        policy=settings.policy,
        engine=engine,
        unfinished=unfinished,
        counting=prompts,
        upstreams=open_upstreams(settings.upstreams),
        watchdog=watchdog,
        metrics=metrics,
        clock=clock,
        started_at=clock(),
        notes=notes,
        notices=Notices(metrics, webhook),
        load=Load(
            share(settings.server.max_concurrent_requests, settings.server.processes), refused=metrics.overloads.inc
        ),
        reloader=reloader,
    )
    with suppress(StoreLost):  # looked for again and again; until then nobody is called unknown
        await notes.look()
    background = [
        asyncio.create_task(watchdog.run()),
        asyncio.create_task(metrics.tallies.run()),
        asyncio.create_task(_sweep(engine, clock)),
        asyncio.create_task(_follow(notes)),
        asyncio.create_task(_relearn(prompts, notes, engine)),
        asyncio.create_task(webhook.run()),
    ]
    if reloader is not None:
        # A worker that replaces a dead one was forked from a process that read the file long ago.
        await reloader.try_reload("started")
        background += [asyncio.create_task(follow(reloader)), asyncio.create_task(_heed_hangups(reloader))]
    try:
        yield
    finally:
        await webhook.finish()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        metrics.tallies.tell()
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
        replicas=settings.store.replicas * settings.server.processes,
        ledger_keep_s=settings.store.retention_days * 86_400,
    )


async def operate(
    settings: Settings, work: Callable[[BudgetEngine, float], Awaitable[T]], *, clock: Callable[[], float] = time.time
) -> T:
    """Do something to the configured store from outside a running gateway; `work` takes an engine and the time.
    Raises `StoreLost`."""
    engine = _engine(settings)
    try:
        return await work(engine, clock())
    finally:
        await engine.close(now=clock())


def open_offline(settings: Settings, *, clock: Callable[[], float] = time.time) -> tuple[Counting, Upstreams]:
    """What counts prompts and what chooses upstreams, as the gateway has them; nothing is connected. The first is to
    be closed."""
    prompts = Counting(load_tokenizers(settings), DriftLearner(), known_overheads())
    client = HttpClient(limit_per_host=0, keepalive_s=UPSTREAM_KEEPALIVE_S)
    return prompts, Upstreams([_upstream(each, client, prompts, clock) for each in settings.upstreams])


def _upstream(
    settings: UpstreamSettings, client: HttpClient, prompts: Counting, clock: Callable[[], float]
) -> Upstream:
    if settings.url.startswith("echo:"):
        return Upstream(settings, EchoUpstream(settings, prompts, clock))
    return Upstream(settings, HttpUpstream(client, settings))


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
        await asyncio.sleep(min(SWEEP_PERIOD_S, engine.hold_timeout_s / SWEEPS_A_TIMEOUT))


async def _follow(notes: OperatorNotes) -> None:
    while True:
        await asyncio.sleep(LOOK_PERIOD_S)
        try:
            await notes.look()
        except StoreLost:  # the sweeper says so
            continue
        except Exception:  # one unreadable note must not end the following of all others
            _log.exception("operator_notes_failed")


async def _heed_hangups(reloader: Reloader) -> None:
    """Reload at SIGHUP, where this thread may be told of signals."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    if not hasattr(signal, "SIGHUP"):  # Windows
        return
    try:
        loop.add_signal_handler(signal.SIGHUP, asked.set)
    except (RuntimeError, ValueError, NotImplementedError):
        return
    try:
        while True:
            await asked.wait()
            asked.clear()
            await reloader.try_reload("SIGHUP")
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


async def _relearn(prompts: Counting, notes: OperatorNotes, engine: BudgetEngine) -> None:
    try:
        while True:
            try:
                lines = await engine.store.latest(limit=LINES)
                break
            except StoreLost:  # the sweeper says so, and finds it again
                await asyncio.sleep(SWEEP_PERIOD_S)
        used = await relearn(prompts, lines, notes.forgotten)
    except Exception:  # counts are right without it; they were better with it
        _log.exception("relearning_failed")
    else:
        _log.debug("relearned", bills=used)


async def _dead_owners(engine: BudgetEngine) -> frozenset[str]:
    """Owners of holds that need not be waited for: workers of this machine that were killed."""
    try:
        holds = await engine.store.holds()
    except StoreLost:
        return frozenset()
    return dead_owners({hold.owner for hold in holds}, me=engine.owner)
