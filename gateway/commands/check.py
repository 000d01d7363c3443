"""``tollgate check``: is this configuration right?"""

from __future__ import annotations

import sys

import click

from gateway.commands.tables import json_option, print_json
from gateway.config import ConfigError, config_path, load_settings


@click.command()
@click.argument("file", required=False)
@click.option("--schema", is_flag=True, help="Print the JSON Schema of config.yaml and exit.")
@json_option
def check(file: str | None, *, schema: bool, as_json: bool) -> None:
    """Check a configuration and name every mistake with file:line:column.

    FILE is config.yaml unless given (or TOLLGATE_CONFIG). Exit code 0: it can be served. 1: it cannot.
    """
    if schema:
        from gateway.config.schema import json_schema

        print_json(json_schema())
        return
    path = config_path(file)
    try:
        settings = load_settings(path)
    except ConfigError as error:
        if as_json:
            problems = [{"place": each.place, "what": each.what, "remedy": each.remedy} for each in error.problems]
            print_json({"file": str(path), "ok": False, "problems": problems})
        else:
            for problem in error.problems:
                click.echo(str(problem), err=True)
        sys.exit(1)
    policy = settings.policy
    counts = {"upstreams": len(settings.upstreams), "keys": len(policy.keys), "budgets": len(policy.budgets)}
    if as_json:
        print_json({"file": str(path), "ok": True, "problems": [], **counts})
    else:
        click.echo(f"{path}: right ({', '.join(f'{count} {name}' for name, count in counts.items())})")
