"""``tollgate replay``: what would this configuration have done to the traffic there was?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from gateway.commands.configured import settings_from
from gateway.commands.failure import Failure
from gateway.commands.stored import store_option, with_store
from gateway.commands.tables import json_option, print_table

if TYPE_CHECKING:
    from gateway.access_logs import AccessLog
    from gateway.replay_report import Compared, Row
    from gateway.settings import Settings
    from policies.engine import BudgetEngine

SHOWN_WINDOWS = 30
SHOWN_DAYS = 100

_SMALL_LEDGER = 20_000
_SMALL_LOG = 8 << 20


@click.command()
@click.option("--config", "new", metavar="NEW.yaml", required=True, help="The configuration to try.")
@click.option("--current", metavar="FILE", help="The one to compare with; else TOLLGATE_CONFIG, else config.yaml.")
@click.option("--since", help="A date, a time, or so long ago; 7d when left out, all of a log.")
@click.option("--until", help="A date, a time, or so long ago; now when left out.")
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    help="A JSON access log to replay instead of the ledger, gzip'd or not; - is standard input.",
)
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Also write a report with charts.")
@store_option
@json_option
def replay(
    *,
    new: str,
    current: str | None,
    since: str | None,
    until: str | None,
    log: Path | None,
    html: Path | None,
    store: str | None,
    as_json: bool,
) -> None:
    """Replay past requests under another configuration, beside the current one, with the live engine's own decisions.

    The requests come from the ledger of the current configuration's store, or from an access log. Says per key,
    budget and day what would have been admitted and refused, and what limits would have fitted. Nothing is changed.
    Exit code 1: a configuration, an option or the log is wrong. 3: the store cannot be reached.
    """
    tried, running = settings_from(new), settings_from(current, store=store)
    if html is not None and not html.parent.is_dir():
        raise Failure(f"--html {html}: there is no folder {html.parent}")
    both, read = _replayed(tried, running, since=since, until=until, log=log)
    from gateway.replay_report import day_rows, summary

    report = summary(both)
    if read is not None:
        report["log"] = {
            "other_lines": read.other,
            "malformed_lines": read.malformed,
            "first_malformed_line": read.first_malformed[0] if read.first_malformed else None,
        }
    if html is not None:
        from gateway.replay_page import write_page

        try:
            write_page(html, report, day_rows(both), names=(current or "the current configuration", new))
        except OSError as error:
            raise Failure(f"--html {html} cannot be written: {error.strerror}") from None
    if as_json:
        _print_json(report, day_rows(both))
    else:
        _print(report, day_rows(both), read)
        if html is not None:
            click.echo(f"the report is in {html}")


def _replayed(
    tried: Settings, running: Settings, *, since: str | None, until: str | None, log: Path | None
) -> tuple[Compared, AccessLog | None]:
    log_bytes = log.stat().st_size if log is not None and log.is_file() else None

    async def work(engine: BudgetEngine, now: float) -> tuple[Compared, AccessLog | None]:
        from dataclasses import replace

        from gateway.replay_report import Compared
        from gateway.replaying import ModelMost, Past, pages_of, replay_each
        from policies.keyring import kept_keys, merged
        from policies.stores.sqlite import SqliteStore
        from policies.traffic import total, traffic

        zone = running.policy.time_zone
        begin = _moment(since or "7d", now=now, zone=zone) if since or log is None else 0.0
        end = _moment(until, now=now, zone=zone) if until is not None else None
        kept = kept_keys(await engine.store.notes()) if log is None else {}
        tried_policy, policy = (
            replace(each, keys=merged(each.keys, kept.values())) for each in (tried.policy, running.policy)
        )
        past, lines = None, None
        if log is not None:
            past = Past(log, is_log=True, since=begin, until=end)
            lines = past.log()
            pages = pages_of(lines)
        else:
            if isinstance(engine.store, SqliteStore):
                past = Past(engine.store.path.absolute(), is_log=False, since=begin, until=end)
            pages = traffic(engine.store, since=begin, until=end)
        whole = log_bytes if log is not None else await total(engine.store, since=begin, until=end)
        if whole is not None and whole < (_SMALL_LOG if log is not None else _SMALL_LEDGER):
            past = None  # done before a second process is ready
        with _progress(lines, whole) as told:
            try:
                found = await replay_each(
                    pages,
                    past,
                    {"new": tried_policy, "current": policy},
                    model_max=ModelMost.of(tried.tokenizers),
                    told=told,
                )
            except OSError as error:
                raise Failure(f"{log or 'the ledger'} cannot be read: {error.strerror or error}") from None
        return Compared(found["new"], found["current"], tried_policy, policy), lines

    if log is None:
        return with_store(running, work, instead="access log, with --log")
    import asyncio
    from dataclasses import replace

    from gateway.app import operate

    return asyncio.run(operate(replace(running, store=replace(running.store, url="memory:")), work))


def _moment(text: str, *, now: float, zone: str) -> float:
    from gateway.moments import read_moment
    from policies.windows import time_zone

    try:
        return read_moment(text, now=now, zone=time_zone(zone))
    except ValueError as error:
        raise Failure(str(error)) from None


@contextmanager
def _progress(log: AccessLog | None, size: int | None) -> Iterator[Callable[[int], None]]:
    """A bar over the requests of a ledger or the bytes of a log, on a terminal's standard error."""
    if not sys.stderr.isatty():
        yield lambda requests: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("Replaying", total=size)

        def told(requests: int) -> None:
            done = log.read_bytes if log is not None else requests
            bar.update(task, completed=done, description=f"Replaying: {requests:,} requests")

        yield told


def _peak_mib() -> float | None:
    """The most memory that this process and a process it started have had, each at its own time; Linux tells it in
    KiB, Windows not at all."""
    try:
        import resource
    except ImportError:
        return None
    used = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return round(sum(used) / 1024, 1)


def _print_json(report: Row, days: Iterator[Row]) -> None:
    """The days one by one: of many keys over many days they would fill the memory."""
    out = sys.stdout.buffer
    head = orjson.dumps({**report, "peak_mib": _peak_mib()}, option=orjson.OPT_INDENT_2)
    out.write(head.removesuffix(b"\n}") + b',\n  "days": [')
    separator = b"\n    "
    for row in days:
        out.write(separator + orjson.dumps(row))
        separator = b",\n    "
    out.write(b"\n  ]\n}\n")
    out.flush()


def _print(report: Row, days: Iterator[Row], log: AccessLog | None) -> None:
    from gateway.replay_report import describe_limit

    if log is not None:
        _print_lines(log)
    if not report["new"]["requests"]:
        click.echo("there was no request in that time")
        return
    click.echo(f"{report['since']} to {report['until']}")
    totals = [{"configuration": name, **report[name]} for name in ("current", "new")]
    print_table(totals, columns=_headings(totals[0]))
    if report["new"]["assumed"]:
        click.echo("assumed: refused in truth, so what they would have used is taken to be what they would have held")
    hit = [
        {
            **{name: row[name] for name in ("day", "key", "budget", "admitted", "refused", "tokens_refused")},
            "would_refuse": row["would_refuse"],
            "refused_now": row["refused_now"],
            "first_refusal": row["first_refusal"],
            "request": row["first_refusal_request"],
            "limit": describe_limit(row["first_refusal_by"]) or None,
        }
        for row in days
        if row["refused"] or row["refused_now"] or row["would_refuse"]
    ]
    if hit:
        title = (
            "days with refusals (would refuse: by budgets in shadow mode; refused now: by the current configuration)"
        )
        print_table(hit[:SHOWN_DAYS], columns=_headings(hit[0]), title=title)
        if len(hit) > SHOWN_DAYS:
            click.echo(f"{len(hit) - SHOWN_DAYS:,} more rows are in --json")
    windows: list[dict[str, Any]] = report["windows"]
    if windows:
        title = "what was wanted of each limit per window, whatever was admitted; nearest to its limit first"
        print_table(windows[:SHOWN_WINDOWS], columns=_headings(windows[0]), title=title)
        if len(windows) > SHOWN_WINDOWS:
            click.echo(f"{len(windows) - SHOWN_WINDOWS:,} more limits are in --json")
        if any(window["partial"] for window in windows[:SHOWN_WINDOWS]):
            click.echo("partial: the requests cover less than one window, so a whole one would have held more")


def _headings(row: dict[str, Any]) -> dict[str, str]:
    return {name: name.replace("_", " ") for name in row}


def _print_lines(log: AccessLog) -> None:
    if log.other:
        click.echo(f"{log.other:,} lines of the log are no request that met budgets, and were passed over", err=True)
    if log.first_malformed is not None:
        number, wrong = log.first_malformed
        lines = "line cannot" if log.malformed == 1 else "lines cannot"
        click.echo(f"{log.malformed:,} {lines} be read and left out; the first is line {number:,}: {wrong}", err=True)
