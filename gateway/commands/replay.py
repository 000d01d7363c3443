"""``tollgate replay``: what would this configuration have done to the traffic there was?"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.commands.configured import settings_from
from gateway.commands.failure import Failure
from gateway.commands.stored import store_option, with_store
from gateway.commands.tables import json_option, print_json, print_table

if TYPE_CHECKING:
    from gateway.access_logs import AccessLog
    from gateway.settings import Settings
    from policies.engine import BudgetEngine
    from policies.policy import Policy
    from policies.replay import ModelMax
    from policies.replay_findings import Findings, WindowUse
    from policies.traffic import Request

SHOWN_WINDOWS = 30
_PAGE = 2_000
_HEADROOM = 1.2
"""A suggested limit is the most that was used in a window, and a fifth more."""


@click.command()
@click.option("--config", "new", metavar="NEW.yaml", required=True, help="The configuration to try.")
@click.option("--current", metavar="FILE", help="The one to compare with; else TOLLGATE_CONFIG, else config.yaml.")
@click.option("--since", default="7d", show_default=True, help="A date, a time, or so long ago.")
@click.option("--log", type=click.Path(path_type=Path), help="A JSON access log to replay instead of the ledger.")
@store_option
@json_option
def replay(*, new: str, current: str | None, since: str, log: Path | None, store: str | None, as_json: bool) -> None:
    """Replay past requests under another configuration, beside the current one, with the live engine's own decisions.

    The requests come from the ledger of the current configuration's store, or from an access log. Says per key,
    budget and day what would have been admitted and refused, and what limits would have fitted. Nothing is changed.
    Exit code 1: a configuration or an option is wrong. 3: the store cannot be reached.
    """
    tried, running = settings_from(new), settings_from(current, store=store)
    model_max = _model_max(tried)
    size = log.stat().st_size if log is not None and log.is_file() else 0

    async def work(engine: BudgetEngine, now: float) -> tuple[dict[str, Findings], int]:
        from dataclasses import replace

        from gateway.access_logs import AccessLog
        from gateway.moments import read_moment
        from policies.keyring import kept_keys, merged
        from policies.replay import replayed
        from policies.traffic import traffic
        from policies.windows import time_zone

        try:
            begin = read_moment(since, now=now, zone=time_zone(running.policy.time_zone))
        except ValueError as error:
            raise Failure(str(error)) from None
        kept = kept_keys(await engine.store.notes()) if log is None else {}
        policies = {
            name: replace(policy, keys=merged(policy.keys, kept.values()))
            for name, policy in (("new", tried.policy), ("current", running.policy))
        }
        lines = AccessLog(log, since=begin) if log is not None else None
        pages = _streamed(lines) if lines is not None else traffic(engine.store, since=begin)
        with _Progress(lines, size=size) as progress:
            try:
                found = await replayed(pages, policies, model_max=model_max, told=progress.show)
            except OSError as error:
                raise Failure(f"{log} cannot be read: {error.strerror}") from None
        return found, lines.skipped if lines is not None else 0

    if log is not None:
        from dataclasses import replace

        from gateway.app import operate

        apart = replace(running, store=replace(running.store, url="memory:"))
        found, skipped = asyncio.run(operate(apart, work))
    else:
        found, skipped = with_store(running, work, instead="access log, with --log")
    report = _report(found, tried.policy)
    if as_json:
        print_json({**report, "skipped_lines": skipped, "peak_mib": _peak_mib()})
    else:
        _print(report, skipped)


async def _streamed(log: AccessLog) -> AsyncIterator[Sequence[Request]]:
    from policies.traffic import request_of

    requests = map(request_of, log)
    while page := await asyncio.to_thread(lambda: list(islice(requests, _PAGE))):
        yield page


def _model_max(settings: Settings) -> ModelMax:
    """The catalog's answer to how much a model can write, looked up once a name."""
    from functools import cache

    from gateway.app import load_tokenizers
    from tokenizers_offline.prompt import CountingError

    catalog = load_tokenizers(settings).catalog

    @cache
    def most(model: str) -> int | None:
        try:
            return catalog.resolve(model).max_output_tokens
        except CountingError:
            return None

    return most


def _peak_mib() -> float | None:
    """The most memory this process has had at once; Linux tells it in KiB, Windows not at all."""
    try:
        import resource
    except ImportError:
        return None
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


class _Progress:
    """Requests done, on a terminal's standard error; of a log also the share of the file."""

    def __init__(self, log: AccessLog | None, *, size: int) -> None:
        self._log = log
        self._size = size
        self._shows = sys.stderr.isatty()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._shows:
            click.echo("\r\033[K", nl=False, err=True)

    def show(self, requests: int) -> None:
        """Say how far it is."""
        if self._shows:
            share = f", {self._log.read_bytes / self._size:.0%} of the log" if self._log and self._size else ""
            click.echo(f"\r{requests:,} requests{share}", nl=False, err=True)


def _report(found: dict[str, Findings], policy: Policy) -> dict[str, Any]:
    from gateway.refusals import write_time
    from policies.windows import time_zone

    zone = time_zone(policy.time_zone)
    new, current = found["new"], found["current"]

    def day(start: float) -> str:
        return datetime.fromtimestamp(start, zone).strftime("%Y-%m-%d")

    return {
        "since": write_time(new.since),
        "until": write_time(new.until),
        "time_zone": policy.time_zone,
        "new": _total(new),
        "current": _total(current),
        "days": [
            {
                "key": key_id,
                "budget": budget or None,
                "day": day(start),
                "admitted": tally.admitted,
                "refused": tally.refused,
                "refused_elsewhere": tally.refused_elsewhere,
                "refused_now": before.refused if (before := current.days.get((key_id, budget, start))) else None,
                "tokens_admitted": tally.tokens_admitted,
                "tokens_refused": tally.tokens_refused,
                "would_refuse": tally.would_refuse,
                "first_refusal": write_time(tally.first_refusal),
            }
            for (key_id, budget, start), tally in sorted(new.days.items(), key=lambda item: (item[0][2], *item[0][:2]))
        ],
        "windows": [_window(use) for use in sorted(new.windows.values(), key=_nearness) if use.figures],
    }


def _nearness(use: WindowUse) -> float:
    return -use.shares(1.0)[0] / max(1, use.limit)


def _window(use: WindowUse) -> dict[str, Any]:
    half, most, largest = use.shares(0.5, 0.95, 1.0)
    return {
        "budget": use.budget,
        "scope": use.scope,
        "unit": use.unit,
        "per": f"sliding {use.per}" if use.sliding else use.per,
        "limit": use.limit,
        "windows": len(use.figures),
        "p50": half,
        "p95": most,
        "max": largest,
        "over_limit": sum(figure > use.limit for figure in use.figures),
        "suggested": int(largest * _HEADROOM),
    }


def _total(outcome: Findings) -> dict[str, int]:
    return {
        "requests": outcome.requests,
        "admitted": outcome.admitted,
        "refused": outcome.refused,
        "would_refuse": outcome.would_refuse,
        "tokens_admitted": outcome.tokens_admitted,
        "tokens_refused": outcome.tokens_refused,
        "assumed": outcome.assumed,
    }


def _print(report: dict[str, Any], skipped: int) -> None:
    if skipped:
        click.echo(f"{skipped:,} lines of the log are no request that met budgets, and were passed over", err=True)
    if not report["new"]["requests"]:
        click.echo("there was no request in that time")
        return
    click.echo(f"{report['since']} to {report['until']}")
    totals = [{"configuration": name, **report[name]} for name in ("current", "new")]
    print_table(totals, columns={name: name.replace("_", " ") for name in totals[0]})
    if report["new"]["assumed"]:
        click.echo("assumed: refused in truth, so what they would have used is taken to be what they would have held")
    hit = [row for row in report["days"] if row["refused"] or row["refused_now"]]
    if hit:
        columns = {name: name.replace("_", " ") for name in hit[0]}
        print_table(hit, columns=columns, title="days with refusals (refused now: by the current configuration)")
    windows = report["windows"]
    if windows:
        columns = {name: name.replace("_", " ") for name in windows[0]}
        title = "what was wanted of each limit per window, whatever was admitted; nearest to its limit first"
        print_table(windows[:SHOWN_WINDOWS], columns=columns, title=title)
        if len(windows) > SHOWN_WINDOWS:
            click.echo(f"{len(windows) - SHOWN_WINDOWS:,} more limits are in --json")
