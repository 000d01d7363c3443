"""``tollgate tokenizers export``, ``import`` and ``wheel``: tokenizers carried to machines without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from gateway.commands.failure import Failure
from gateway.commands.folders import dir_option, tokenizer_folder, told
from tokenizers_offline.store import TokenizerStore

_Command = Callable[..., Any]


def _chosen_options(command: _Command) -> _Command:
    """What export and wheel choose by; nothing chosen means all."""
    for option in (
        click.argument("names", nargs=-1, metavar="[NAME]..."),
        click.option("--family", "families", multiple=True, metavar="FAMILY", help="All of a family, such as qwen."),
        click.option("--model", "models", multiple=True, metavar="MODEL", help="What this model is counted with."),
        dir_option,
    ):
        command = option(command)
    return command


@click.command()
@click.argument("bundle", type=click.Path(dir_okay=False, path_type=Path))
@_chosen_options
def export(
    bundle: Path, names: tuple[str, ...], *, families: tuple[str, ...], models: tuple[str, ...], folder: str | None
) -> None:
    """Write installed tokenizers (all, or those chosen) to one file, for a machine without a network.

    The same tokenizers give the same bytes; every file in it goes with its SHA-256.
    """
    from tokenizers_offline.bundles import write_bundle

    with told():
        store, wanted = _chosen(folder, names, families, models)
        with _counting("Writing", total=_files_of(store, wanted)) as on_file:
            count = write_bundle(store, bundle, wanted, on_file=on_file)
    click.echo(f"{count} tokenizers are in {bundle}. On the other machine: tollgate tokenizers import {bundle.name}")


@click.command()
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@_chosen_options
def wheel(
    output: Path, names: tuple[str, ...], *, families: tuple[str, ...], models: tuple[str, ...], folder: str | None
) -> None:
    """Write installed tokenizers (all, or those chosen) to a Python wheel in the folder OUTPUT.

    Where it is installed beside Tollgate, its tokenizers are found by themselves; those in MODELS_DIR come first.
    """
    from tokenizers_offline.wheels import write_wheel

    with told():
        store, wanted = _chosen(folder, names, families, models)
        with _counting("Writing", total=_files_of(store, wanted)) as on_file:
            path = write_wheel(store, output, wanted, version=metadata.version("tollgate"), on_file=on_file)
    click.echo(f"{len(wanted)} tokenizers are in {path}. On the other machine: pip install --no-index {path.name}")


@click.command(name="import")
@click.argument("bundle", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@dir_option
def import_bundle(bundle: Path, *, folder: str | None) -> None:
    """Install the tokenizers of a bundle made by export, after verifying all of it."""
    from tokenizers_offline.bundles import install_bundle
    from tokenizers_offline.installing import StoreWriter

    with told(), _counting("Verifying") as on_file:
        writer = StoreWriter(tokenizer_folder(folder))
        installed = install_bundle(bundle, writer, on_file=on_file)
    click.echo(f"{len(installed)} tokenizers were installed in {writer.root}.")


def _chosen(
    folder: str | None, names: tuple[str, ...], families: tuple[str, ...], models: tuple[str, ...]
) -> tuple[TokenizerStore, list[str]]:
    """The store, and the installed encodings that were asked for."""
    from tokenizers_offline.carried import open_tokenizers

    store = open_tokenizers(tokenizer_folder(folder))
    installed = store.installed()
    if not installed:
        raise Failure(f"No tokenizers are in {store.root}. Run: tollgate tokenizers fetch", exit_code=3)
    if not (names or families or models):
        return store, list(installed)
    wanted = {*names, *_of_families(families, installed), *_of_models(models, installed)}
    missing = sorted(wanted - set(installed))
    if missing:
        raise Failure(f"{', '.join(missing)} is not in {store.root}. Run: tollgate tokenizers list", exit_code=3)
    return store, sorted(wanted)


def _of_families(families: tuple[str, ...], installed: tuple[str, ...]) -> list[str]:
    """The encodings of some families that are there; one of them missing is no mistake, all of them is."""
    from tokenizers_offline.encodings import load_encodings

    known, found = load_encodings(), []
    for family in families:
        there = [name for name in known.of_families([family]) if name in installed]
        if not there:
            raise Failure(f"No tokenizer of the family '{family}' is installed.", exit_code=3)
        found += there
    return found


def _of_models(models: tuple[str, ...], installed: tuple[str, ...]) -> list[str]:
    """What models are counted with; raises `UnknownModel`."""
    if not models:
        return []
    from tokenizers_offline.catalog import Catalog

    catalog = Catalog.load(installed=installed)
    return [catalog.resolve(model).encoding for model in models]


def _files_of(store: TokenizerStore, names: list[str]) -> int:
    return len(names) + len({store.encoding(name).core for name in names}) + len(store.templates())


@contextmanager
def _counting(what: str, *, total: int | None = None) -> Iterator[Callable[[str], None]]:
    """A progress bar that counts files, on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda file: progress.advance(task)
