"""What the policy tests share: a moment in time, small policies, and every store behind one fixture."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from policies.engine import BudgetEngine
from policies.model import Budget, Limit, Subject
from policies.policy import Policy
from policies.stores import open_store
from policies.stores.base import BudgetStore
from policies.stores.memory import MemoryStore

NOON = datetime(2026, 3, 10, 12, 0, 30, tzinfo=UTC).timestamp()
"""A Tuesday, half a minute past noon."""

ALICE = Subject("alice", {"team": "search"}, "gpt-4o", "openai")
BOB = Subject("bob", {"team": "search"}, "gpt-4o", "openai")

OpenStore = Callable[[], BudgetStore]


@pytest.fixture(params=["memory", "sqlite"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return "memory:"
    return f"sqlite:///{tmp_path / 'budgets.db'}"


@pytest.fixture(params=["sqlite"])
def kept_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that outlives its process."""
    return f"sqlite:///{tmp_path / 'kept.db'}"


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[BudgetStore]:
    opened = open_store(store_url, server_time=False)
    yield opened
    await opened.close()


@pytest.fixture
def open_fresh(store_url: str, tmp_path: Path) -> OpenStore:
    """Open a store of the same kind that has nothing in it, as often as it is called."""
    count = itertools.count()

    def opened() -> BudgetStore:
        url = store_url if store_url == "memory:" else f"sqlite:///{tmp_path / f'fresh{next(count)}.db'}"
        return open_store(url, server_time=False)

    return opened


def policy(*limits: Limit, name: str = "plan", **more: object) -> Policy:
    """A policy of one budget for each key."""
    return Policy(budgets=(Budget(name, limits, each="key", **more),))  # type: ignore[arg-type]


def engine(for_policy: Policy, store: BudgetStore | None = None, **more: object) -> BudgetEngine:
    return BudgetEngine(for_policy, store or MemoryStore(), owner="here", **more)  # type: ignore[arg-type]
