"""``tollgate version``: what is installed here?"""

from __future__ import annotations

import platform
from importlib import metadata

import click

from gateway.commands.tables import json_option, print_json

_SHOWN = ("tollgate", "aiohttp", "uvloop", "tokenizers", "fastokens", "splintr-rs", "pydantic", "orjson")


@click.command()
@json_option
def version(*, as_json: bool) -> None:
    """Print the versions that matter in a bug report."""
    versions = {"python": platform.python_version()}
    for name in _SHOWN:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    if as_json:
        print_json(versions)
        return
    for name, found in versions.items():
        click.echo(f"{name} {found}")
