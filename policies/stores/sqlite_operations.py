"""What is to be done to the SQLite file, and telling those who wait, each on the event loop it waits on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from policies.stores.sqlite_file import SqliteFile


class Operation(NamedTuple):
    """One step of a transaction."""

    run: Callable[[SqliteFile], Any]
    future: asyncio.Future[Any] | None
    """Who waits for it; None for what must be written in the end, however often it takes."""
    brief: bool = False
    """Whether it reads and writes a few rows, and never waits for the disk."""


def answer_all(results: Sequence[tuple[Operation, Any]]) -> None:
    """Hand out results, those that are exceptions too."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for operation, result in results:
        if operation.future is not None:
            by_loop.setdefault(operation.future.get_loop(), []).append((operation.future, result))
    for loop, answers in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it everybody who waited
            loop.call_soon_threadsafe(resolve, answers)


def resolve(answers: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    """Hand out results on the event loop that runs."""
    for future, result in answers:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
