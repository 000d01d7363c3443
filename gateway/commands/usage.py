"""``tollgate usage``: what was used, by whom, of what, when?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gateway.commands.configured import config_option, settings_from
from gateway.commands.failure import Failure
from gateway.commands.stored import store_option, with_store
from gateway.commands.tables import json_option, print_json, print_table

if TYPE_CHECKING:
    from policies.engine import BudgetEngine


@click.command()
@click.option("--since", default="7d", show_default=True, help="A date, a time, or so long ago.")
@click.option("--until", help="A date, a time, or so long ago; now when left out.")
@click.option(
    "--by",
    default="key",
    show_default=True,
    help="key, model, upstream, outcome, refused_by, shadowed_by, hour, day, month or any tag; several with commas.",
)
@click.option("--key", "key_id", metavar="ID", help="Only this key's requests.")
@click.option("--model", help="Only requests to this model.")
@store_option
@config_option
@json_option
def usage(
    *,
    since: str,
    until: str | None,
    by: str,
    key_id: str | None,
    model: str | None,
    store: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Sum the ledger of finished requests.

    Exit code 1: an option cannot be read. 3: the store cannot be reached.
    """
    settings = settings_from(config, store=store)
    names = [name.strip() for name in by.split(",") if name.strip()]
    if not names:
        raise Failure("--by names nothing; write --by key,model")

    async def read(engine: BudgetEngine, now: float) -> list[dict[str, Any]]:
        from gateway.describing import describe_usage, total_usage
        from gateway.moments import read_moment
        from policies import ledger
        from policies.windows import time_zone

        zone = time_zone(engine.policy.time_zone)
        try:
            begin = read_moment(since, now=now, zone=zone)
            end = read_moment(until, now=now, zone=zone) if until is not None else None
        except ValueError as error:
            raise Failure(str(error)) from None
        entries = engine.store.entries(since=begin, until=end, key_id=key_id, model=model)
        rows = await ledger.usage(entries, by=names, zone=zone)
        total = describe_usage([total_usage(rows)], by=())
        return describe_usage(rows, by=names) + [{**dict.fromkeys(names, "total"), **each} for each in total]

    *rows, total = with_store(settings, read, instead="GET /admin/usage")
    if as_json:
        print_json({"by": names, "data": rows, "total": {name: total[name] for name in total if name not in names}})
        return
    if not rows:
        click.echo(f"no request was written down since {since}")
        return
    print_table([*rows, total], columns={name: name.replace("_", " ") for name in total})
