"""``tollgate keys``: make keys, digest them, list who may call. Only digests are ever written down."""

from __future__ import annotations

import secrets
import sys
from datetime import UTC, datetime

import click

from gateway.commands.configured import config_option, settings_from
from gateway.commands.failure import Failure
from gateway.commands.tables import json_option, print_json, print_table
from gateway.config.names import is_name
from policies.policy import digest as digest_credential

_KEY_BYTES = 32


@click.group()
def keys() -> None:
    """Make keys, digest them, list them."""


@keys.command()
@click.argument("key_id", metavar="[ID]", default="new-key")
@json_option
def new(key_id: str, *, as_json: bool) -> None:
    """Make a key and show it this once, with the entry for config.yaml."""
    if not is_name(key_id):
        raise Failure(f"`{key_id}` is not a name; use letters, digits and . _ - + @, beginning with a letter or digit")
    key = f"sk-{secrets.token_urlsafe(_KEY_BYTES)}"
    digest = digest_credential(key)
    if as_json:
        print_json({"id": key_id, "key": key, "digest": digest})
        return
    click.echo(key)
    click.echo(f'\n# for config.yaml; the key above is stored nowhere\nkeys:\n  - id: {key_id}\n    digest: "{digest}"')


@keys.command()
@json_option
def digest(*, as_json: bool) -> None:
    """Digest a key read from standard input (or asked for, unseen).

    It is no argument, so that it stays out of the shell's history and the process list.
    """
    key = click.prompt("Key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    key = key.strip()
    if not key:
        raise Failure('no key was given; type it, or pipe it: printf %s "$KEY" | tollgate keys digest')
    if as_json:
        print_json({"digest": digest_credential(key)})
    else:
        click.echo(digest_credential(key))


@keys.command("list")
@config_option
@json_option
def list_(config: str | None, *, as_json: bool) -> None:
    """List the configured keys: who, with which tags, until when."""
    settings = settings_from(config)
    rows = [
        {
            "id": key.id,
            "tags": dict(key.tags),
            "expires": datetime.fromtimestamp(key.expires, UTC).isoformat() if key.expires is not None else None,
            "disabled": key.disabled,
            "upstream_key": key.upstream_key is not None,
            "digest": key.digest,
        }
        for key in settings.policy.keys
    ]
    if as_json:
        print_json(rows)
        return
    shown = [
        {**row, "tags": [f"{tag}={value}" for tag, value in key.tags.items()], "digest": key.digest[:15] + "..."}
        for row, key in zip(rows, settings.policy.keys, strict=True)
    ]
    columns = {"id": "key", "tags": "tags", "expires": "expires", "disabled": "disabled", "digest": "digest"}
    print_table(shown, columns=columns)
