"""Gateways under test, in this process: each row has its own, each cell its own key and budget."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from aiohttp import web

from gateway.app import build_app, load_tokenizers
from gateway.config import load_settings
from gateway.runtime import RUNTIME, Runtime
from gateway.serving import make_runner
from gateway.settings import ServerSettings, Settings, TokenizerSettings
from policies.model import Estimate
from policies.policy import Policy
from policies.usage import Usage
from tests.compat.cells import Row
from tests.compat.provider import Provider
from tests.conftest import MODELS_DIR
from tokenizers_offline.counter import TokenCounter

MONTH = 100_000
"""Tokens each cell's key may use; the key of `errors` has used them all."""

_counters: list[TokenCounter] = []


@dataclass(frozen=True)
class Place:
    """Where a row's cells happen: what its clients ask, who counts, who bills."""

    url: str
    runtime: Runtime
    provider: Provider
    environment: dict[str, str]


def key_for(row: Row, cell: str) -> str:
    """The key a cell uses."""
    return "sk-" + hashlib.sha256(row.name.encode()).hexdigest()[:8] + "-" + cell


class _Served:
    """An application on a free loopback port while the context lasts."""

    url: str
    runtime: Runtime

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    async def __aenter__(self) -> Any:
        if not _counters:
            _counters.append(load_tokenizers(Settings(policy=Policy(), tokenizers=TokenizerSettings(dir=MODELS_DIR))))
        with TemporaryDirectory() as folder:
            path = Path(folder) / "config.yaml"
            path.write_text(yaml.safe_dump(self._config))
            app = build_app(load_settings(path, env={}), counter=_counters[0], clock=time.time)
        self._runner = make_runner(app, ServerSettings(shutdown_timeout_s=1.0))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.runtime = app[RUNTIME].current
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


class EchoGateway(_Served):
    """What answers behind the recorder: no keys, no budgets."""

    def __init__(self) -> None:
        super().__init__(_config("echo:"))


class Gateway(_Served):
    """The gateway that a row's cells are about."""

    def __init__(self, row: Row, *, upstream_url: str) -> None:
        keys = [
            {"id": cell, "digest": "sha256:" + hashlib.sha256(key_for(row, cell).encode()).hexdigest()}
            for cell in row.cells
        ]
        budgets = [{"name": "main", "each": "key", "limits": [{"tokens": MONTH, "per": "month"}]}]
        super().__init__(_config(upstream_url) | {"keys": keys, "budgets": budgets})
        self._row = row

    async def __aenter__(self) -> Gateway:
        await super().__aenter__()
        if "errors" in self._row.cells:
            engine, now = self.runtime.engine, time.time()
            subject = self.runtime.policy.subject(self.runtime.policy.keys[0], model="gpt-4o", upstream="provider")
            for key in self.runtime.policy.keys:
                if key.id == "errors":
                    subject = self.runtime.policy.subject(key, model="gpt-4o", upstream="provider")
            decision = await engine.reserve(subject, Estimate(input_tokens=1, output_cap=0), now=now)
            assert decision.reservation is not None
            await engine.settle(decision.reservation, Usage(MONTH, 0), now=now)
        return self

    def place(self, provider: Provider, *, url: str = "", environment: dict[str, str] | None = None) -> Place:
        """Where the cells happen: at the gateway itself, or at a program's `url` before it."""
        return Place(url or self.url, self.runtime, provider, environment or {})


def _config(upstream_url: str) -> dict[str, Any]:
    return {
        "server": {"host": "127.0.0.1"},
        "store": {"url": "memory:"},
        "tokenizers": {"dir": str(MODELS_DIR)},
        "upstreams": [{"name": "provider", "url": upstream_url}],
    }
