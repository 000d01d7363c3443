"""Past requests as a replay takes them: one narrow row each, in the order they began, whoever kept them."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson

from policies.ledger import LedgerEntry, Outcome
from policies.model import StoreLost
from policies.stores.base import BudgetStore
from policies.stores.sqlite import SqliteStore

PAGE = 2_000

LONGEST_S = 600.0
MOST_WAITING = 50_000
"""How much of a log is held to put it in order (`Waiting`)."""

_PAGE_OF_LEDGER = """
SELECT at, key_id, model, upstream, outcome, source, input_tokens, output_tokens, cached_tokens, reasoning_tokens,
       counted_tokens, choices, request_id, more, id
FROM ledger WHERE (at, id) > (?, ?) AND (? IS NULL OR at < ?) ORDER BY at, id LIMIT ?
"""


class Request(NamedTuple):
    """What was asked, and what it came to. `asked` input tokens are held, and up to `cap` output tokens for each of
    `choices` answers (None: no cap was named). Where a request was `refused` in truth, what it would have used is not
    known; `source` "" says that it was given back."""

    at: float
    ends_at: float
    request_id: str
    key_id: str
    tags: Mapping[str, str]
    model: str
    upstream: str
    asked: int
    cap: int | None
    choices: int
    refused: bool
    source: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int


class Waiting:
    """Puts requests that were written down when they ended in the order they began: each waits until those that began
    before it must have ended. One that took longer than `LONGEST_S`, or ended after `MOST_WAITING` others that began
    after it, comes late."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Request]] = []
        self._number = 0

    def take(self, request: Request) -> Iterator[Request]:
        """Let one wait, and yield those that have waited enough."""
        waiting = self._waiting
        self._number += 1
        heapq.heappush(waiting, (request.at, self._number, request))
        while waiting and (waiting[0][0] < request.ends_at - LONGEST_S or len(waiting) > MOST_WAITING):
            yield heapq.heappop(waiting)[2]

    def rest(self) -> Iterator[Request]:
        """Yield those that still wait."""
        while self._waiting:
            yield heapq.heappop(self._waiting)[2]


class Used(Protocol):
    """Whatever says how many tokens a request used: a `Request` itself, or a `Usage`."""

    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def reasoning_tokens(self) -> int: ...


def request_of(entry: LedgerEntry) -> Request:
    """Return a ledger line as the request it was."""
    return request(
        entry.at,
        entry.request_id,
        entry.key_id,
        entry.model,
        entry.upstream,
        entry.outcome,
        entry.source,
        entry.input_tokens,
        entry.output_tokens,
        entry.cached_tokens,
        entry.reasoning_tokens,
        entry.counted_tokens,
        entry.choices,
        entry.tags,
        entry.held_input or entry.refused_input,
        entry.output_cap,
        entry.endpoint,
        entry.latency_s,
    )


async def traffic(
    store: BudgetStore, *, since: float = 0.0, until: float | None = None
) -> AsyncIterator[Sequence[Request]]:
    """Yield the requests of a store's ledger by the page, oldest first. Raises `StoreLost`."""
    if isinstance(store, SqliteStore):
        await store.ping()
        async for found in from_file(store.path, since=since, until=until):
            yield found
        return
    page: list[Request] = []
    waiting = Waiting()
    async for entry in store.entries(since=since, until=until):
        page += waiting.take(request_of(entry))
        if len(page) >= PAGE:
            yield page
            page = []
    yield [*page, *waiting.rest()]


async def total(store: BudgetStore, *, since: float = 0.0, until: float | None = None) -> int | None:
    """Return how many requests `traffic` will yield; None where finding out would be reading them."""
    if not isinstance(store, SqliteStore):
        return None
    await store.ping()

    def counted() -> int:
        with contextlib.closing(_opened(store.path)) as file:
            question = "SELECT count(*) FROM ledger WHERE at >= ? AND (? IS NULL OR at < ?)"
            found: int = file.execute(question, (since, until, until)).fetchone()[0]
            return found

    try:
        return await asyncio.to_thread(counted)
    except sqlite3.Error as error:
        raise _lost(store.path, error) from error


async def from_file(path: Path, *, since: float, until: float | None) -> AsyncIterator[Sequence[Request]]:
    """Narrow rows straight from the file, on a connection of their own. Each page is a transaction, so that writers
    are never kept from tidying up behind a long one."""

    def page(file: sqlite3.Connection, after: tuple[float, int]) -> tuple[list[Request], tuple[float, int]]:
        rows = file.execute(_PAGE_OF_LEDGER, (*after, until, until, PAGE)).fetchall()
        return [_of_row(row) for row in rows], (rows[-1][0], rows[-1][14]) if rows else after

    try:
        with contextlib.closing(await asyncio.to_thread(_opened, path)) as file:
            found, after = await asyncio.to_thread(page, file, (since, -1))
            while found:
                yield found
                found, after = await asyncio.to_thread(page, file, after)
    except sqlite3.Error as error:
        raise _lost(path, error) from error


def _opened(path: Path) -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)


def _lost(path: Path, error: sqlite3.Error) -> StoreLost:
    return StoreLost(f"The ledger in '{path}' cannot be read: {error}. Check the file and its disk.")


def _of_row(row: Sequence[Any]) -> Request:
    more = orjson.loads(row[13])
    held = more["held"][0] or more.get("refused_input", 0)
    return request(
        row[0], row[12], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], row[9], row[10], row[11],
        more["tags"], held, more["output_cap"], more["endpoint"], more["seconds"][0],
    )  # fmt: skip


def request(
    at: float,
    request_id: str,
    key_id: str,
    model: str,
    upstream: str,
    outcome: Outcome,
    source: str,
    input_tokens: int,
    output_tokens: int,
    cached_tokens: int,
    reasoning_tokens: int,
    counted_tokens: int,
    choices: int,
    tags: Mapping[str, str],
    held_input: int,
    output_cap: int | None,
    endpoint: str,
    latency_s: float,
) -> Request:
    """Return a request from what was written down of it, field by field."""
    asked = held_input or counted_tokens or input_tokens
    if output_cap is None and (not endpoint or "embed" in endpoint):
        output_cap = 0  # no answer is written there, and the live gateway holds none
    ends_at = at + latency_s
    if choices < 1:
        choices = 1
    # As they are charged: no upstream gains by figures below zero, or by more special tokens than tokens.
    if not (0 <= cached_tokens <= input_tokens and 0 <= reasoning_tokens <= output_tokens):
        input_tokens, output_tokens = max(0, input_tokens), max(0, output_tokens)
        cached_tokens = min(max(0, cached_tokens), input_tokens)
        reasoning_tokens = min(max(0, reasoning_tokens), output_tokens)
    if outcome == "refused":
        used = counted_tokens or asked
        return Request(
            at,
            ends_at,
            request_id,
            key_id,
            tags,
            model,
            upstream,
            asked,
            output_cap,
            choices,
            True,
            "held",
            used,
            0,
            0,
            0,
        )
    return Request(
        at, ends_at, request_id, key_id, tags, model, upstream, asked, output_cap, choices, False, source,
        input_tokens, output_tokens, cached_tokens, reasoning_tokens,
    )  # fmt: skip
