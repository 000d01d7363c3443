"""One caller's connection on the lane: reads plain requests, writes their answers, leaves all else to aiohttp."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from aiohttp.tcp_helpers import tcp_keepalive
from yarl import URL

from gateway.forwarded_headers import find
from gateway.incoming import too_large, too_late
from gateway.lane.request_head import MAX_HEAD_BYTES, RequestHead, read_head
from gateway.reply import encode_reply, encode_reply_head, has_body
from gateway.watchdog import ClientLeft

if TYPE_CHECKING:
    from gateway.connections import Phase
    from gateway.forwarded_headers import Headers
    from gateway.lane.server import LaneServer

MAX_AHEAD_BYTES = 64 * 1024
"""Bytes of further requests that are taken in while one is answered; then the socket is not read any further."""

MOST_TO_TAKE_S = 300.0
"""How long a caller may leave answers untaken before it is given up."""

_HEAD_END = b"\r\n\r\n"
_NO_QUERY: Mapping[str, str] = {}


class Connection(asyncio.Protocol):
    """Answers one request after the other, until one comes that is not for the lane: `other` then has them all.

    `heads` is how many requests have begun here.
    """

    def __init__(self, server: LaneServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._transport = cast("asyncio.Transport", None)  # set by `connection_made`, before anything else
        self._peer = ""
        self._unread = b""
        self._request: LaneRequest | None = None
        self._task: asyncio.Task[None] | None = None
        self._discards = 0
        self._read_paused = self._write_paused = False
        self._drained: asyncio.Future[None] | None = None
        self._ending = False
        self.lost = False
        self.heads = 0
        self.other: asyncio.Protocol | None = None

    # What the server asks.

    @property
    def transport(self) -> asyncio.Transport | None:
        """None once the caller is gone."""
        return None if self.lost else self._transport

    @property
    def task(self) -> asyncio.Task[None] | None:
        """Who answers the present request; None between requests."""
        return self._task

    @property
    def phase(self) -> Phase:
        """What is waited for: a head, the rest of a body (of an answered request too), or an answer."""
        if self._discards or (self._request is not None and self._request.missing):
            return "body"
        return "head" if self._task is None else "answer"

    def end_body(self) -> None:
        """The rest of the body will not be waited for."""
        if self._request is not None:
            self._request.keeps_alive = False
            self._request.fail(too_late())
        else:
            self.close()

    def end(self) -> None:
        """Take no further request: close now, or with the answer that is under way."""
        self._ending = True
        if self._task is None:
            self.close()

    def close(self) -> None:
        """Close once what has been written is sent."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if isinstance(peer, tuple) else ""
        self._server.connections.add(self)
        tcp_keepalive(self._transport)  # a caller whose machine is gone would hold its connection for ever

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.data_received(data)
            return
        if self._discards:
            taken = min(len(data), self._discards)
            self._discards -= taken
            data = data[taken:]
            if not self._discards and self._ending:
                self.close()
                return
            if not data:
                return
        request = self._request
        if request is not None and request.missing:
            data = request.take(data)
            if not data:
                return
        if self._task is not None:
            self._unread += data
            if len(self._unread) > MAX_AHEAD_BYTES and not self._read_paused:
                self._read_paused = True
                self._transport.pause_reading()
            return
        self._begin(self._unread + data if self._unread else data)

    def eof_received(self) -> bool | None:
        # Else close: who says no more takes no answer either, as with aiohttp's server.
        return self.other.eof_received() if self.other is not None else None

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.connection_lost(exc)
            return
        self.lost = True
        self._server.connections.discard(self)
        if self._request is not None:
            self._request.fail(ClientLeft("The caller left while sending its request."))
        self.resume_writing()

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.pause_writing()
            return
        self._write_paused = True

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.resume_writing()
            return
        self._write_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # Requests.

    def _begin(self, data: bytes) -> None:
        """Take the next request from its first byte on; `data` is all that has come of it."""
        end = data.find(_HEAD_END)
        if end < 0:
            if len(data) > MAX_HEAD_BYTES:
                self._hand_over(data)
                return
            self._unread = data
            return
        at = end + len(_HEAD_END)
        head = read_head(data[:at]) if at <= MAX_HEAD_BYTES else None
        if head is None or not self._server.takes(head.path):
            self._hand_over(data)
            return
        whole = at + head.length
        self._unread = data[whole:]
        self.heads += 1
        request = self._request = LaneRequest(self, head, data[at:whole], peer=self._peer)
        self._task = self._loop.create_task(self._answer(request))

    def _hand_over(self, data: bytes) -> None:
        """Let aiohttp's server have the connection, with what has been read of its next request."""
        self._server.connections.discard(self)
        self.other = self._server.make_other()
        self.other.connection_made(self._transport)
        self.other.data_received(data)

    async def _answer(self, request: LaneRequest) -> None:
        try:
            reply = await self._server.answer(request)
            if reply is None:
                request.finish()
            elif request.begun:
                self.abort()  # half an answer is out: what went wrong can only be shown by breaking it off
            elif not self.lost:
                if self._ending:
                    request.keeps_alive = False
                self._transport.write(encode_reply(reply, keeps_alive=request.keeps_alive, now=self._server.now))
            if self._write_paused and not self.lost:
                # Who takes no answers gets no more of them: they would pile up here.
                async with asyncio.timeout(MOST_TO_TAKE_S):
                    await self.room()
        except (ConnectionError, TimeoutError):
            self.abort()
        except BaseException:
            self.abort()
            raise
        finally:
            self._task = self._request = None
        self._discards = request.missing
        if not request.keeps_alive or self._ending:
            self._ending = True
            if not self._discards:
                self.close()
            elif self._transport.can_write_eof() and not self.lost:
                # Not closed yet: that would reset what still sends, and the answer might go unread.
                self._transport.write_eof()
        elif self._unread:
            unread, self._unread = self._unread, b""
            self._begin(unread)
            if self._read_paused and len(self._unread) <= MAX_AHEAD_BYTES:
                self._read_paused = False
                self._transport.resume_reading()

    async def room(self) -> None:
        """Wait until the caller has taken what was written. Raises `ConnectionResetError`."""
        while self._write_paused and not self.lost:
            self._drained = self._loop.create_future()
            await self._drained
        if self.lost or self._transport.is_closing():
            raise ConnectionResetError("the caller is gone")

    def write(self, data: bytes) -> None:
        """Hand bytes to the socket."""
        self._transport.write(data)


class LaneRequest:
    """A request read on the lane, as `gateway.incoming.Incoming` describes it."""

    __slots__ = (
        "_arrived",
        "_chunked",
        "_connection",
        "_pieces",
        "_query",
        "begun",
        "has_body",
        "headers",
        "keeps_alive",
        "length",
        "method",
        "missing",
        "path",
        "peer",
        "raw_headers",
        "raw_target",
        "started_s",
    )

    def __init__(self, connection: Connection, head: RequestHead, body: bytes, *, peer: str) -> None:
        self.started_s = time.perf_counter()
        self.method = "POST"
        self.path = head.path
        self.raw_target = head.path + head.query
        self.headers: Mapping[str, str] = head.headers
        self.raw_headers = head.raw_headers
        self.length = head.length
        self.has_body = head.length > 0
        self.keeps_alive = head.keeps_alive
        self.peer = peer
        self.missing = head.length - len(body)
        self.begun = False
        self._query = head.query
        self._pieces = [body]
        self._connection = connection
        self._arrived: asyncio.Future[None] | None = None
        self._chunked = False

    @property
    def query(self) -> Mapping[str, str]:
        return URL(self._query, encoded=True).query if self._query else _NO_QUERY

    @property
    def transport(self) -> asyncio.Transport | None:
        return self._connection.transport

    def take(self, data: bytes) -> bytes:
        """Take what belongs to the body; give back what comes after it."""
        rest = b""
        if len(data) > self.missing:
            data, rest = data[: self.missing], data[self.missing :]
        self.missing -= len(data)
        if self.length >= 0:
            self._pieces.append(data)
        if not self.missing and self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)
        return rest

    def fail(self, error: Exception) -> None:
        """No more of the body will come."""
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_exception(error)

    async def read_body(self, *, max_body_bytes: int) -> bytes:
        if self.length > max_body_bytes:
            self._pieces.clear()
            self.length = -1  # what still comes is not kept
            raise too_large(max_body_bytes)
        if self.missing:
            if self._connection.lost:
                raise ClientLeft("The caller left while sending its request.")
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        pieces = self._pieces
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def begin(self, status: int, reason: bytes, headers: Headers) -> None:
        if self._connection.lost:
            raise ConnectionResetError("the caller is gone")
        self._chunked = has_body(status) and find(headers, b"content-length") is None
        framing = b"Transfer-Encoding: chunked\r\n" if self._chunked else b""
        if not self.keeps_alive:
            framing += b"Connection: close\r\n"
        self._connection.write(encode_reply_head(status, reason, headers, framing=framing))
        self.begun = True

    async def write(self, chunk: bytes) -> None:
        self._connection.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk)
        await self._connection.room()

    def finish(self) -> None:
        """End a streamed answer."""
        if self._chunked and not self._connection.lost:
            self._connection.write(b"0\r\n\r\n")

    def break_off(self) -> None:
        # Unfinished chunks, or a length not reached, tell; what was written still arrives.
        self._chunked = self.keeps_alive = False
        self._connection.close()
