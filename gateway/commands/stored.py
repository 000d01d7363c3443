"""Commands that work on the budget store itself, beside or without a running gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from gateway.commands.failure import Failure

if TYPE_CHECKING:
    from gateway.settings import Settings
    from policies.engine import BudgetEngine

T = TypeVar("T")

store_option = click.option("--store", help="Where budgets are kept, as a URL (also TOLLGATE_STORE).")


def with_store(settings: Settings, work: Callable[[BudgetEngine, float], Awaitable[T]], *, instead: str) -> T:
    """Run `work` on the configured store, with the keys that are kept there. Ends the command with exit code 3 where
    the store cannot be reached, or is one gateway's own memory; `instead` is what to ask then."""
    if settings.store.url.startswith("memory:"):
        raise Failure(f"the store is `memory:`, which only the gateway itself can see; ask its {instead}", exit_code=3)

    from dataclasses import replace

    from gateway.app import operate
    from policies.keyring import kept_keys, merged
    from policies.model import StoreLost

    async def with_kept_keys(engine: BudgetEngine, now: float) -> T:
        kept = kept_keys(await engine.store.notes())
        policy = replace(engine.policy, keys=merged(engine.policy.keys, kept.values()))
        return await work(engine.with_policy(policy), now)

    try:
        return asyncio.run(operate(settings, with_kept_keys))
    except StoreLost as lost:
        raise Failure(f"the store cannot be used: {lost}", exit_code=3) from None
