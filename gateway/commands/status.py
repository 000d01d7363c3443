"""``tollgate status``: how do the budgets stand?"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import click

from gateway.commands.configured import config_option, settings_from
from gateway.commands.failure import Failure
from gateway.commands.tables import json_option, print_json, print_table


@click.command()
@click.option("--key", "key_ids", multiple=True, metavar="ID", help="Only this key's budgets; may be repeated.")
@click.option("--store", help="Where budgets are kept, as a URL (also TOLLGATE_STORE).")
@config_option
@json_option
def status(key_ids: tuple[str, ...], *, store: str | None, config: str | None, as_json: bool) -> None:
    """Show every key's budgets as they stand in the store: limit, used, held, remaining, reset.

    Exit code 1: a key is unknown. 3: the store cannot be reached.
    """
    settings = settings_from(config, store=store)
    known = {key.id for key in settings.policy.keys}
    if unknown := sorted(set(key_ids) - known):
        raise Failure(f"there is no key `{unknown[0]}`; `tollgate keys list` shows them")
    if settings.store.url.startswith("memory:"):
        raise Failure(
            "the store is `memory:`, which only the gateway itself can see; ask its GET /budgets", exit_code=3
        )

    from gateway.app import read_budgets
    from policies.model import StoreLost

    try:
        budgets = asyncio.run(read_budgets(settings))
    except StoreLost as lost:
        raise Failure(f"the store cannot be read: {lost}", exit_code=3) from None
    rows = [
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
            "remaining": each.remaining,
            "resets_at": _iso(each.resets_at),
        }
        for key_id, statuses in budgets.items()
        if not key_ids or key_id in key_ids
        for each in statuses
    ]
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("no budget meets these keys")
        return
    print_table(rows, columns={name: name.replace("_", " ") for name in rows[0]})


def _iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
