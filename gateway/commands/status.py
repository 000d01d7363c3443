"""``tollgate status``: how do the budgets stand?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gateway.commands.configured import config_option, settings_from
from gateway.commands.failure import Failure
from gateway.commands.stored import store_option, with_store
from gateway.commands.tables import json_option, print_json, print_table

if TYPE_CHECKING:
    from policies.engine import BudgetEngine
    from policies.model import BudgetStatus


@click.command()
@click.option("--key", "key_ids", multiple=True, metavar="ID", help="Only this key's budgets; may be repeated.")
@store_option
@config_option
@json_option
def status(key_ids: tuple[str, ...], *, store: str | None, config: str | None, as_json: bool) -> None:
    """Show budgets as they stand in the store: limit, used, held, granted, remaining, over, reset.

    `over` is what is taken beyond the limit: what a budget in shadow mode let by, or what answers owe.

    Every key's come first, then all other counters that hold anything (of models, upstreams, tags nobody carries now).
    Exit code 1: a key is unknown. 3: the store cannot be reached.
    """
    from gateway.refusals import write_time

    settings = settings_from(config, store=store)

    async def read(engine: BudgetEngine, now: float) -> list[tuple[str | None, BudgetStatus]]:
        from policies.operating import live_counters

        known = {key.id: key for key in engine.policy.keys}
        if unknown := sorted(set(key_ids) - set(known)):
            raise Failure(f"there is no key `{unknown[0]}`; `tollgate keys list` shows them")
        found: list[tuple[str | None, BudgetStatus]] = []
        for key_id in key_ids or known:
            found += [(key_id, each) for each in await engine.status(known[key_id], now=now)]
        if not key_ids:
            seen = {(each.budget, each.scope) for _, each in found}
            live = await live_counters(engine, now=now)
            found += [(None, each) for each in live if (each.budget, each.scope) not in seen]
        return found

    rows: list[dict[str, Any]] = [
        {
            "key": key_id,
            "budget": each.budget,
            "scope": each.scope,
            "unit": each.unit,
            "per": f"sliding {each.per}" if each.sliding else each.per,
            "mode": each.mode,
            "limit": each.limit,
            "used": each.used,
            "held": each.held,
            "granted": each.granted,
            "remaining": each.remaining,
            "over": each.over,
            "resets_at": write_time(each.resets_at),
        }
        for key_id, each in with_store(settings, read, instead="GET /budgets")
    ]
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("no budget meets these keys")
        return
    print_table(rows, columns={name: name.replace("_", " ") for name in rows[0]})
