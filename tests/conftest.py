"""Fixtures shared by all tests: nothing may block the event loop, and gateways run on real loopback sockets."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
import yaml
from aiohttp import web
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings

from tests.fakes import FakeClock, FakeUpstream

MODELS_DIR = Path(os.environ.get("MODELS_DIR", Path(__file__).parent.parent / "models")).absolute()
if "MODELS_DIR" in os.environ:
    os.environ["MODELS_DIR"] = str(MODELS_DIR)  # make sets it to a relative path, and some tests run elsewhere
KEY = "sk-test-alice"

# How long an example takes says more of the machine than of the law it tries.
settings.register_profile("any-machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")


@pytest.fixture(autouse=True)
def _never_block_the_event_loop() -> Iterator[None]:
    with blockbuster_ctx() as guard:
        # A stat of a small local file takes microseconds; it is how a fetch is seen while the gateway runs.
        for name in ("os.stat", "os.scandir", "os.listdir", "io.BufferedReader.read", "io.TextIOWrapper.read"):
            guard.functions[name].can_block_in("tokenizers_offline/store.py", {"template", "encoding", "installed"})
        # A few rows written to the log of a file, waiting for nobody, take less time than a thread is woken in.
        for name in ("Connection.execute", "Connection.executemany", "Cursor.fetchone"):
            guard.functions[f"sqlite3.{name}"].can_block_in(
                "policies/stores/sqlite_writer.py", {"_carried_out_here", "_end_transaction"}
            )
        # Playwright looks for its own program once, when a browser is started.
        guard.functions["os.stat"].can_block_in("playwright/_impl/_driver.py", {"compute_driver_executable"})
        yield


@pytest.fixture(autouse=True)
def _log_to_pytest() -> None:
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer(["event"])],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    server = FakeUpstream()
    await server.start()
    yield server
    await server.stop()


@dataclass
class RunningGateway:
    """A gateway on a free loopback port."""

    url: str
    port: int
    runtime: Any
    client: aiohttp.ClientSession
    server: Any = None
    """Who serves its connections, where that is this process: an `Entrance`."""

    async def post(self, path: str, body: Any = None, *, key: str | None = KEY, **options: Any) -> tuple[Any, Any]:
        """POST and read the whole answer: (response, JSON or bytes)."""
        return await self.request("POST", path, body, key=key, **options)

    async def get(self, path: str, *, key: str | None = KEY, **options: Any) -> tuple[Any, Any]:
        return await self.request("GET", path, key=key, **options)

    async def request(
        self, method: str, path: str, body: Any = None, *, key: str | None = KEY, **options: Any
    ) -> tuple[Any, Any]:
        headers = dict(options.pop("headers", {}))
        if key is not None:
            headers.setdefault("Authorization", f"Bearer {key}")
        sent = {"data": body} if isinstance(body, bytes | io.IOBase) else {"json": body} if body is not None else {}
        async with self.client.request(method, self.url + path, headers=headers, **sent, **options) as response:
            data = await response.read()
            is_json = response.content_type == "application/json" and data
            return response, (await response.json() if is_json else data)

    async def budget(self, name: str = "main", *, key: str = KEY, unit: str = "tokens") -> dict[str, Any]:
        """One limit of one budget, as /budgets tells it."""
        _, body = await self.get("/budgets", key=key)
        return next(row for row in body["data"] if row["budget"] == name and row["unit"] == unit)


StartGateway = Callable[..., Awaitable[RunningGateway]]


@pytest.fixture(scope="session")
def counter() -> Any:
    from gateway.app import load_tokenizers
    from gateway.settings import Settings, TokenizerSettings
    from policies.policy import Policy

    return load_tokenizers(Settings(policy=Policy(), tokenizers=TokenizerSettings(dir=MODELS_DIR)))


def digest(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def config_for(*, upstreams: list[dict[str, Any]] | None = None, **sections: Any) -> dict[str, Any]:
    """A small configuration: one key, one budget of 100,000 tokens a day."""
    config: dict[str, Any] = {
        "server": {"host": "127.0.0.1"},
        "store": {"url": "memory:"},
        "tokenizers": {"dir": str(MODELS_DIR)},
        "upstreams": upstreams or [{"name": "echo", "url": "echo:"}],
        "keys": [{"id": "alice", "digest": digest(KEY), "tags": {"team": "search"}}],
        "budgets": [{"name": "main", "each": "key", "limits": [{"tokens": 100_000, "per": "day"}]}],
    }
    config.update(sections)
    return config


@pytest.fixture
async def start_gateway(tmp_path: Path, clock: FakeClock, counter: Any) -> AsyncIterator[StartGateway]:
    """Start a gateway from a config dictionary or from YAML text; all of them end with the test."""
    from gateway.app import build_app
    from gateway.config import load_settings
    from gateway.runtime import RUNTIME
    from gateway.serving import make_runner

    runners: list[web.AppRunner] = []
    sessions: list[aiohttp.ClientSession] = []

    async def start(config: dict[str, Any] | str | None = None, **options: Any) -> RunningGateway:
        text = config if isinstance(config, str) else yaml.safe_dump(config or config_for())
        path = tmp_path / f"config{len(runners)}.yaml"

        def load() -> Any:
            path.write_text(text)
            return load_settings(path, env={})

        settings = await asyncio.to_thread(load)
        options.setdefault("clock", clock)
        app = build_app(settings, counter=options.pop("counter", counter), **options)
        runner = make_runner(app, replace(settings.server, shutdown_timeout_s=1.0))
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=None)
        await site.start()
        port = runner.addresses[0][1]
        session = aiohttp.ClientSession(auto_decompress=True)
        sessions.append(session)
        return RunningGateway(f"http://127.0.0.1:{port}", port, app[RUNTIME].current, session, runner.server)

    yield start
    for session in sessions:
        await session.close()
    for runner in reversed(runners):
        await runner.cleanup()
