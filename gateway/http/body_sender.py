"""A request body that does not fit into one write: slices or chunks, as fast as the peer takes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

from gateway.http.errors import SendFailed

WHOLE_BYTES = 64 * 1024
"""Bodies up to this size go out with the head in one write."""

_SLICE_BYTES = 128 * 1024


class Listener(Protocol):
    """Who is told how the sending goes."""

    def send_stalled(self) -> None:
        """The peer has stopped taking bytes."""
        ...

    def send_waits_for_caller(self) -> None:
        """The next bytes are the caller's to give."""
        ...

    def send_finished(self) -> None:
        """All is handed to the transport."""
        ...

    def fail_source(self, error: Exception) -> None:
        """The caller's iterator raised."""
        ...


class BodySender:
    """Sends one head and body with back-pressure: `start`, then `pause` / `resume` from the transport, or `stop`."""

    def __init__(
        self, transport: asyncio.WriteTransport, *, listener: Listener, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._transport = transport
        self._listener = listener
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        self._paused = False
        self._stopped = False
        self._resumed: asyncio.Future[None] | None = None

    def start(self, head: bytes, body: bytes | AsyncIterator[bytes]) -> None:
        """Write what the transport takes at once, the rest in a task; calls `send_finished` in the end."""
        if not isinstance(body, bytes):
            self._transport.write(head)
            self._task = self._loop.create_task(self._send_chunks(body))
            return
        self._transport.write(head + body[:WHOLE_BYTES])
        at = self._write_slices(memoryview(body), WHOLE_BYTES)
        if at < len(body):
            self._task = self._loop.create_task(self._send_rest(memoryview(body), at))
        else:
            self._listener.send_finished()

    def pause(self) -> None:
        self._paused = True
        self._listener.send_stalled()

    def resume(self) -> None:
        self._paused = False
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)

    def stop(self) -> None:
        """Send no more. Nothing is called afterwards."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()

    def _write_slices(self, view: memoryview, at: int) -> int:
        while at < len(view) and not self._paused and not self._transport.is_closing():
            self._transport.write(view[at : at + _SLICE_BYTES])
            at += _SLICE_BYTES
        return at

    async def _send_rest(self, view: memoryview, at: int) -> None:
        while at < len(view):
            await self._drained()
            if self._transport.is_closing():
                return  # the connection tells the rest itself
            at = self._write_slices(view, at)
        self._listener.send_finished()

    async def _send_chunks(self, body: AsyncIterator[bytes]) -> None:
        try:
            self._listener.send_waits_for_caller()
            async for piece in body:
                if self._transport.is_closing():
                    return
                if piece:  # an empty chunk would end the body
                    self._transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
                    await self._drained()
                self._listener.send_waits_for_caller()
        except asyncio.CancelledError:
            if not self._stopped:
                self._listener.fail_source(SendFailed("the source of the request's body was cancelled", silent=False))
            raise
        except Exception as error:
            self._listener.fail_source(error)
            return
        finally:
            # A generator left half-way would be closed by the garbage collector, some time.
            if isinstance(body, AsyncGenerator):
                await body.aclose()
        self._transport.write(b"0\r\n\r\n")
        self._listener.send_finished()

    async def _drained(self) -> None:
        while self._paused:
            self._resumed = self._loop.create_future()
            await self._resumed
