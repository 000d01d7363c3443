"""Stand-ins that are real where it counts: a clock that is set by hand, an upstream on a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any


class FakeClock:
    """Unix time that moves only when told to."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Received:
    """A request as the upstream saw it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """What a script may do to the caller of the fake upstream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def closed_by_caller(self) -> None:
        """Wait until the caller hangs up."""
        while await self.reader.read(65536):
            pass

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        transport = self._writer.transport
        transport.abort()


Script = Callable[[Connection, Received], Awaitable[None]]


def plain(
    body: bytes | dict[str, Any], *, status: int = 200, headers: Iterable[tuple[str, str]] = (), chunked: bool = False
) -> Script:
    """Answer with one body."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = dict(headers)
    head.setdefault("Content-Type", "application/json")

    async def script(connection: Connection, received: Received) -> None:
        lines = [f"HTTP/1.1 {status} Whatever"]
        lines += [f"{name}: {value}" for name, value in head.items()]
        if status != 204:
            lines.append("Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(data)}")
        sent = "\r\n".join(lines).encode() + b"\r\n\r\n"
        if received.method != "HEAD" and status != 204:
            sent += b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data) if chunked else data
        await connection.send(sent)

    return script


def stream(
    *chunks: bytes,
    status: int = 200,
    content_type: str = "text/event-stream",
    then: Script | None = None,
    headers: Iterable[tuple[str, str]] = (),
    between: Callable[[int], Awaitable[None]] | None = None,
) -> Script:
    """Answer chunk by chunk. `between` runs before each chunk; `then` instead of the clean end."""

    async def script(connection: Connection, received: Received) -> None:
        lines = [f"HTTP/1.1 {status} OK", f"Content-Type: {content_type}", "Transfer-Encoding: chunked"]
        lines += [f"{name}: {value}" for name, value in headers]
        await connection.send("\r\n".join(lines).encode() + b"\r\n\r\n")
        for number, chunk in enumerate(chunks):
            if between is not None:
                await between(number)
            await connection.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if then is not None:
            await then(connection, received)
        else:
            await connection.send(b"0\r\n\r\n")

    return script


def raw(data: bytes, *, then: str = "close") -> Script:
    """Answer with these very bytes, then ``close``, ``reset`` or ``hang``."""

    async def script(connection: Connection, _: Received) -> None:
        if data:
            await connection.send(data)
        await end(then)(connection, _)

    return script


def end(how: str) -> Script:
    """Close, reset, or hang until the caller leaves."""

    async def script(connection: Connection, _: Received) -> None:
        if how == "close":
            connection.close()
        elif how == "reset":
            connection.reset()
        else:
            await connection.closed_by_caller()

    return script


def chat(content: str = "Hi", *, prompt_tokens: int = 9, completion_tokens: int = 3) -> dict[str, Any]:
    """A chat completion."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"},
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def chat_events(*contents: str, usage: dict[str, int] | None = None) -> list[bytes]:
    """The events of a streamed chat completion."""
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    events = [
        {**head, "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}]}
        for content in contents
    ]
    events.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if usage is not None:
        events.append({**head, "choices": [], "usage": usage})
    return [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events] + [b"data: [DONE]\n\n"]


@dataclass
class FakeUpstream:
    """An HTTP server that answers from a queue of scripts, and remembers what it was asked.

    With the queue empty it answers with `default`.
    """

    default: Script = field(default_factory=lambda: plain(chat()))
    requests: list[Received] = field(default_factory=list)
    served: int = 0
    host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        self._queue: list[Script] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def enqueue(self, *scripts: Script) -> None:
        self._queue.extend(scripts)

    async def start(self) -> None:
        """Listen; a second time on the same port."""
        self._server = await asyncio.start_server(self._serve, self.host, self.port, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while not writer.is_closing():
                received = await _read_request(reader, writer)
                if received is None:
                    break
                self.requests.append(received)
                script = self._queue.pop(0) if self._queue else self.default
                await script(Connection(reader, writer), received)
                self.served += 1
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    found = {name.lower(): value for name, value in headers}
    if found.get("expect") == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = b""
    if "content-length" in found:
        body = await reader.readexactly(int(found["content-length"]))
    elif found.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    return Received(method, target, headers, body)
