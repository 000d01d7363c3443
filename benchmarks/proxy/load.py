"""A closed-loop load on uvloop: so many connections, each asking again as soon as it was answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import httptools
import orjson
import uvloop

_WORDS = (  # noqa: SIM905 - a list of sixty words would be sixty lines
    "the of and to in that it as was with be by on not he this are from have which one you had all there we been "
    "has when who will more if out so what up about than into them can only other time new some could these may "
    "function return async await class import error response timeout connection database index latency budget token"
).split()
MESSAGES = {1_000: 1, 32_000: 8, 400_000: 24}
"""How a conversation of so many bytes is cut up."""


@dataclass(frozen=True)
class Cell:
    """One kind of load. `fresh` says what no request has said before: ``all``, the ``last`` message, or ``none``."""

    size: int
    connections: int
    fresh: str = "last"
    chunks: int = 0
    every_ms: int = 10

    @property
    def name(self) -> str:
        if self.chunks:
            return f"SSE, {self.connections} streams"
        what = {"all": "all new", "last": "last message new", "none": "repeated"}[self.fresh]
        return f"{self.size // 1000} kB, {what}, c={self.connections}"


@dataclass
class Result:
    """What a load met. Times in milliseconds, first bytes for streams."""

    requests: int = 0
    errors: int = 0
    chunks: int = 0
    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        ordered = sorted(self.latencies_ms)
        return ordered[int(len(ordered) * share)] if ordered else float("nan")


def body_maker(cell: Cell) -> Callable[[int], bytes]:
    """Bodies by request number, cheap to make: only numbers are put into a text made once."""
    rng = random.Random(cell.size)
    count = MESSAGES[cell.size]
    pieces: list[str] = []
    for index in range(count):
        size, text = 0, []
        while size < cell.size // count - 60:
            text.append(rng.choice(_WORDS) if rng.random() < 0.95 else rng.choice(["\n", "x = y[0];", "café", "2041"]))
            size += len(text[-1]) + 1
        new = cell.fresh == "all" or (cell.fresh == "last" and index == count - 1)
        pieces.append(("@@NEW@@ " if new else "") + " ".join(text))
    roles = ["assistant" if index % 2 else "user" for index in range(count)]
    messages = [{"role": role, "content": text} for role, text in zip(roles, pieces, strict=True)]
    body: dict[str, object] = {"model": "gpt-4o", "max_tokens": cell.chunks or 256, "messages": messages}
    if cell.chunks:
        body |= {"stream": True, "seed": cell.every_ms, "stream_options": {"include_usage": True}}
    parts = orjson.dumps(body).split(b"@@NEW@@")
    return lambda number: (b"request %d" % number).join(parts)


class _Caller(asyncio.Protocol):
    def __init__(self, head: bytes, body: Callable[[int], bytes], result: Result, until: float) -> None:
        self._head, self._make, self._result, self._until = head, body, result, until
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._began = 0.0
        self._got_first = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def _ask(self) -> None:
        body = self._make(self._result.requests + id(self) % 997 * 1_000_003)
        self._began, self._got_first = time.perf_counter(), False
        self._transport.write(b"%sContent-Length: %d\r\n\r\n%s" % (self._head, len(body), body))

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        if not self._got_first:
            self._got_first = True
            self._result.latencies_ms.append((time.perf_counter() - self._began) * 1000)
        self._result.chunks += body.count(b"data: {")

    def on_message_complete(self) -> None:
        self._result.requests += 1
        self._result.errors += self._parser.get_status_code() != 200
        if time.perf_counter() < self._until:
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._result.errors += exc is not None
        if not self.done.done():
            self.done.set_result(None)


def run(cell: Cell, *, port: int, seconds: float, key: str, headers: Mapping[str, str] | None = None) -> Result:
    """Load a loopback port for so long; `headers` are sent besides."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    head += b"Authorization: Bearer %s\r\n" % key.encode()
    head += b"".join(f"{name}: {value}\r\n".encode() for name, value in (headers or {}).items())
    result = Result()

    async def load() -> None:
        make, until = body_maker(cell), time.perf_counter() + seconds
        loop = asyncio.get_running_loop()
        callers = [_Caller(head, make, result, until) for _ in range(cell.connections)]
        for caller in callers:
            await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", port)  # type: ignore[misc]
        began = time.perf_counter()
        await asyncio.wait([caller.done for caller in callers], timeout=seconds + 30)
        result.seconds = time.perf_counter() - began

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(load())
    return result
