"""One answer of an upstream, read as it arrives."""

from __future__ import annotations

import asyncio
from typing import Protocol

from gateway.http.errors import AnswerCut, AnswerTooLarge, HttpError


class _Source(Protocol):
    def resume(self) -> None: ...

    def abandon(self, answer: Answer) -> None: ...


class Answer:
    """Status, headers and body of one answer; made by `HttpClient.request`.

    `headers` are as they came: order, case and duplicates kept. Chunked framing is taken off the body and
    nothing else: it is never decompressed. `trailers` are filled once the body ended. Read it to the end or
    `close` it, else its connection stays taken until a timeout.
    """

    __slots__ = (
        "_chunks",
        "_complete",
        "_error",
        "_loop",
        "_paused",
        "_source",
        "_waiter",
        "buffered_bytes",
        "headers",
        "http_version",
        "reason",
        "status",
        "trailers",
    )

    def __init__(self, source: _Source, *, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.trailers: list[tuple[bytes, bytes]] = []
        self.http_version = "1.1"
        self.buffered_bytes = 0
        self._source = source
        self._loop = loop
        self._chunks: list[bytes] = []
        self._complete = False
        self._paused = False
        self._error: HttpError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """The body bytes that have arrived, waiting for some; ``b""`` at the end.

        Bytes that came before a failure are given first. Raises `AnswerCut`, `BadAnswer` or `TimedOut`.
        Cancelling a read loses nothing: the next one goes on.
        """
        while not self._chunks:
            if self._complete:
                return b""
            if self._error is not None:
                raise self._error
            if self._waiter is not None:
                raise RuntimeError("answer is already being read by another task")
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._take()

    async def read_all(self, limit_bytes: int) -> bytes:
        """The rest of the body. Raises `AnswerTooLarge` (and closes) above `limit_bytes`, else as `read`."""
        pieces: list[bytes] = []
        size = 0
        while chunk := await self.read():
            size += len(chunk)
            if size > limit_bytes:
                self.close()
                raise AnswerTooLarge(f"answer body is larger than {limit_bytes} bytes")
            pieces.append(chunk)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def complete_body(self) -> bytes | None:
        """The whole unread body when it is here already, else None. Looking does not consume it."""
        if not self._complete:
            return None
        if len(self._chunks) > 1:
            self._chunks[:] = (b"".join(self._chunks),)
        return self._chunks[0] if self._chunks else b""

    @property
    def at_eof(self) -> bool:
        """Whether the body came to its proper end and was read wholly."""
        return self._complete and not self._chunks

    def close(self) -> None:
        """Abandon the answer: its connection is closed unless the body already ended. Safe to call twice."""
        self._chunks.clear()
        if not self._complete:
            self._source.abandon(self)
            if self._error is None:
                self.fail(AnswerCut("the answer was closed before its end"))

    def feed(self, chunk: bytes) -> None:
        """Add body bytes (the connection's side)."""
        self._chunks.append(chunk)
        self.buffered_bytes += len(chunk)

    def mark_paused(self) -> None:
        """Note that the source stopped reading and wants `resume` once the buffer is taken (the connection's side)."""
        self._paused = True

    def wake(self) -> None:
        """Let a waiting `read` look again (the connection's side)."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def finish(self) -> None:
        """The body came to its proper end (the connection's side)."""
        self._complete = True
        self._paused = False
        self.wake()

    def fail(self, error: HttpError) -> None:
        """No more bytes will come (the connection's side)."""
        self._error = error
        self._paused = False
        self.wake()

    def _take(self) -> bytes:
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.buffered_bytes = 0
        if self._paused:
            self._paused = False
            self._source.resume()
        return data
