"""``tollgate check``: is this configuration right?"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from gateway.commands.tables import json_option, print_json
from gateway.config import ConfigError, Problem, config_path, load_settings


@click.command()
@click.argument("file", required=False)
@click.option("--schema", is_flag=True, help="Print the JSON Schema of config.yaml and exit.")
@click.option("--strict", is_flag=True, help="Let warnings fail too.")
@json_option
def check(file: str | None, *, schema: bool, strict: bool, as_json: bool) -> None:
    """Check a configuration and name every mistake with file:line:column.

    What can be served and is likely not meant so is warned of: budgets for nobody, keys without a budget, limits out
    of reach or too small for any request, upstreams that get no request, tokenizers that are not installed.
    FILE is config.yaml unless given (or TOLLGATE_CONFIG). Exit code 0: it can be served. 1: it cannot, or there are
    warnings and --strict.
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
            print_json({"file": str(path), "ok": False, "problems": _listed(error.problems), "warnings": []})
        else:
            for problem in error.problems:
                click.echo(str(problem), err=True)
        sys.exit(1)
    from gateway.config.advice import advise  # late: a wrong file needs no catalog

    policy, warnings = settings.policy, advise(path, settings, env=os.environ)
    counts = {"upstreams": len(settings.upstreams), "keys": len(policy.keys), "budgets": len(policy.budgets)}
    if as_json:
        print_json({"file": str(path), "ok": True, "problems": [], "warnings": _listed(warnings), **counts})
    else:
        for warning in warnings:
            click.echo(f"{warning.place}: warning: {warning.what}; {warning.remedy}", err=True)
        told = ", ".join(f"{count} {name if count != 1 else name[:-1]}" for name, count in counts.items())
        click.echo(f"{path}: right ({told})")
    if warnings and strict:
        sys.exit(1)


def _listed(problems: Sequence[Problem]) -> list[dict[str, str]]:
    return [{"place": each.place, "what": each.what, "remedy": each.remedy} for each in problems]
