"""What the policy tests share: a moment in time, small policies, and every store behind one fixture."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import pytest

from policies.engine import BudgetEngine
from policies.model import Budget, Limit, Subject
from policies.policy import Policy
from policies.stores import open_store
from policies.stores.base import BudgetStore
from policies.stores.memory import MemoryStore
from tests.policies.redis_server import RedisServer

NOON = datetime(2026, 3, 10, 12, 0, 30, tzinfo=UTC).timestamp()
"""A Tuesday, half a minute past noon."""

ALICE = Subject("alice", {"team": "search"}, "gpt-4o", "openai")
BOB = Subject("bob", {"team": "search"}, "gpt-4o", "openai")

OpenStore = Callable[[], BudgetStore]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of our own on a socket, for the whole run; every test has a prefix of its own."""
    if not RedisServer.installed():
        pytest.skip("redis-server is not installed")
    import_module("policies.stores.redis")  # what it reads from disk when first opened must not block a test's loop
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


def fresh_url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if kind == "memory":
        return "memory:"
    name = secrets.token_hex(4)
    if kind == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return server.url(prefix=name)
    return f"sqlite:///{tmp_path / name}.db"


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return fresh_url(request.param, request, tmp_path)


@pytest.fixture(params=["sqlite", "redis"])
def kept_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that outlives its process."""
    return fresh_url(request.param, request, tmp_path)


@pytest.fixture(params=["memory", "sqlite"])
async def pruned_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BudgetStore]:
    """A store that drops counters when it is told the time; Redis has them expire by itself."""
    opened = open_store(fresh_url(request.param, request, tmp_path))
    yield opened
    await opened.close()


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[BudgetStore]:
    opened = open_store(store_url, server_time=False)
    yield opened
    await opened.close()


@pytest.fixture
def open_fresh(request: pytest.FixtureRequest, store_url: str, tmp_path: Path) -> OpenStore:
    """Open a store of the same kind that has nothing in it, as often as it is called."""
    kind = store_url.partition(":")[0].replace("unix", "redis")
    return lambda: open_store(fresh_url(kind, request, tmp_path), server_time=False)


def policy(*limits: Limit, name: str = "plan", **more: object) -> Policy:
    """A policy of one budget for each key."""
    return Policy(budgets=(Budget(name, limits, each="key", **more),))  # type: ignore[arg-type]


def engine(for_policy: Policy, store: BudgetStore | None = None, **more: object) -> BudgetEngine:
    return BudgetEngine(for_policy, store or MemoryStore(), owner="here", **more)  # type: ignore[arg-type]
