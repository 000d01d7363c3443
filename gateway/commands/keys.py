"""``tollgate keys``: make keys, digest them, list and change who may call. Only digests are ever written down."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import click

from gateway.commands.configured import config_option, settings_from
from gateway.commands.failure import Failure
from gateway.commands.stored import store_option, with_store
from gateway.commands.tables import json_option, print_json, print_table
from gateway.config.names import is_name
from policies.policy import digest as digest_credential

if TYPE_CHECKING:
    from gateway.settings import Settings
    from policies.engine import BudgetEngine
    from policies.keyring import KeptKey, Keyring

_INSTEAD = "/admin/keys"


@click.group()
def keys() -> None:
    """Make keys, digest them, list and change who may call.

    Keys of config.yaml are changed there. create, rotate, disable, enable and expire work on keys in the budget store,
    which running gateways heed within a second.
    """


@keys.command()
@click.argument("key_id", metavar="[ID]", default="new-key")
@json_option
def new(key_id: str, *, as_json: bool) -> None:
    """Make a key and show it this once, with the entry for config.yaml."""
    from policies.keyring import make_credential

    _check_name(key_id)
    key = make_credential()
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
@store_option
@config_option
@json_option
def list_(store: str | None, config: str | None, *, as_json: bool) -> None:
    """List the keys of the configuration and of the store: who, with which tags, until when."""
    settings = settings_from(config, store=store)
    rows = _rows_of(settings)
    if as_json:
        print_json(rows)
        return
    shown = [
        {
            **row,
            "tags": [f"{tag}={value}" for tag, value in row["tags"].items()],
            "digest": row["digest"][:15] + "...",
        }
        for row in rows
    ]
    columns = {"id": "key", "source": "from", "tags": "tags", "expires": "expires", "disabled": "disabled"}
    print_table(shown, columns={**columns, "digest": "digest"})


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="What budgets match; may be repeated.")
@click.option("--expires", help="From then on it is refused: a date, a time, or a duration from now.")
@store_option
@config_option
@json_option
def create(
    key_id: str, tags: tuple[str, ...], expires: str | None, store: str | None, config: str | None, *, as_json: bool
) -> None:
    """Make a key in the store and show it this once.

    Exit code 1: the id is taken. 3: the store cannot be reached.
    """
    _check_name(key_id)
    read_tags = dict(_read_tag(tag) for tag in tags)

    async def work(ring: Keyring, now: float, engine: BudgetEngine) -> tuple[None, KeptKey, str]:
        at = _moment(expires, engine, now) if expires is not None else None
        made, credential = await ring.create(key_id, tags=read_tags, expires=at, now=now)
        return None, made, credential

    _change(settings_from(config, store=store), "key_created", work, as_json=as_json)


@keys.command()
@click.argument("key_id", metavar="ID")
@store_option
@config_option
@json_option
def rotate(key_id: str, store: str | None, config: str | None, *, as_json: bool) -> None:
    """Give a key of the store a new credential, shown this once; the old one is refused from now on."""

    async def work(ring: Keyring, now: float, engine: BudgetEngine) -> tuple[KeptKey, KeptKey, str]:
        before = await ring.find(key_id)
        made, credential = await ring.rotate(key_id, now=now)
        return before, made, credential

    _change(settings_from(config, store=store), "key_rotated", work, as_json=as_json)


@keys.command()
@click.argument("key_id", metavar="ID")
@store_option
@config_option
@json_option
def disable(key_id: str, store: str | None, config: str | None, *, as_json: bool) -> None:
    """Refuse a key of the store from now on."""
    _set_disabled(key_id, settings_from(config, store=store), disabled=True, as_json=as_json)


@keys.command()
@click.argument("key_id", metavar="ID")
@store_option
@config_option
@json_option
def enable(key_id: str, store: str | None, config: str | None, *, as_json: bool) -> None:
    """Admit a disabled key of the store again."""
    _set_disabled(key_id, settings_from(config, store=store), disabled=False, as_json=as_json)


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--at", help="A date, a time, or a duration from now; now when left out.")
@click.option("--never", is_flag=True, help="It expires no more.")
@store_option
@config_option
@json_option
def expire(key_id: str, at: str | None, never: bool, store: str | None, config: str | None, *, as_json: bool) -> None:
    """Say when a key of the store is refused by itself."""
    if never and at is not None:
        raise Failure("--at and --never exclude each other; give one of them")

    async def work(ring: Keyring, now: float, engine: BudgetEngine) -> tuple[KeptKey, KeptKey, None]:
        before = await ring.find(key_id)
        when = None if never else now if at is None else _moment(at, engine, now)
        return before, await ring.expire(key_id, at=when, now=now), None

    _change(settings_from(config, store=store), "key_expires", work, as_json=as_json)


def _set_disabled(key_id: str, settings: Settings, *, disabled: bool, as_json: bool) -> None:
    async def work(ring: Keyring, now: float, engine: BudgetEngine) -> tuple[KeptKey, KeptKey, None]:
        before = await ring.find(key_id)
        return before, await ring.disable(key_id, disabled=disabled, now=now), None

    _change(settings, "key_disabled" if disabled else "key_enabled", work, as_json=as_json)


_Work = Callable[["Keyring", float, "BudgetEngine"], Awaitable["tuple[KeptKey | None, KeptKey, str | None]"]]


def _change(settings: Settings, action: str, work: _Work, *, as_json: bool) -> None:
    """Change one key as /admin does, write it down, and show the key."""
    from gateway.audit import audit_command
    from gateway.describing import audited_key, describe_key
    from gateway.logging import configure_logging
    from policies.keyring import Keyring, KeyringError

    configure_logging(level="INFO", style=settings.server.log_format, stream=sys.stderr)

    async def run(engine: BudgetEngine, now: float) -> dict[str, Any]:
        try:
            before, after, credential = await work(Keyring(engine.store, settings.policy.keys), now, engine)
        except KeyringError as error:
            raise Failure(str(error)) from None
        audit_command(
            getpass.getuser(),
            action,
            key_id=after.key.id,
            before=audited_key(before.key) if before is not None else None,
            after=audited_key(after.key),
        )
        shown = describe_key(after.key, kept=after, now=now)
        return shown if credential is None else {"key": credential, **shown}

    shown = with_store(settings, run, instead=_INSTEAD)
    if as_json:
        print_json(shown)
        return
    if "key" in shown:
        click.echo(shown["key"])
    until = f", expires {shown['expires']}" if shown["expires"] else ""
    click.echo(f"{shown['id']}: {shown['status']}{until}", err="key" in shown)


def _rows_of(settings: Settings) -> list[dict[str, Any]]:
    from gateway.refusals import write_time
    from policies.model import Key

    configured = {key.id for key in settings.policy.keys}

    async def read(engine: BudgetEngine, now: float) -> tuple[Key, ...]:
        return engine.policy.keys

    found = settings.policy.keys if _is_empty(settings.store.url) else with_store(settings, read, instead=_INSTEAD)
    return [
        {
            "id": key.id,
            "source": "config" if key.id in configured else "store",
            "tags": dict(key.tags),
            "expires": write_time(key.expires),
            "disabled": key.disabled,
            "upstream_key": key.upstream_key is not None,
            "digest": key.digest,
        }
        for key in found
    ]


def _is_empty(store_url: str) -> bool:
    """Whether a store holds no keys because it is not there yet, or not to be seen from here."""
    if store_url.startswith("sqlite:"):
        return not Path(unquote(urlsplit(store_url).path[1:])).exists()
    return store_url.startswith("memory:")


def _check_name(key_id: str) -> None:
    if not is_name(key_id):
        raise Failure(f"`{key_id}` is not a name; use letters, digits and . _ - + @, beginning with a letter or digit")


def _read_tag(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not is_name(name):
        raise Failure(f"`{text}` is no tag; write --tag team=search")
    return name, value


def _moment(text: str, engine: BudgetEngine, now: float) -> float:
    from gateway.moments import read_moment
    from policies.windows import time_zone

    try:
        return read_moment(text, now=now, zone=time_zone(engine.policy.time_zone), ahead=True)
    except ValueError as error:
        raise Failure(str(error)) from None
