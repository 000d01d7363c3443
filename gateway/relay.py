"""Carrying an answer back to the caller: bytes untouched and unbuffered, while the usage reader listens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gateway.errors import UpstreamError
from gateway.watchdog import ClientLeft

if TYPE_CHECKING:
    from gateway.cutting import Cutter
    from gateway.decoding import Decoder
    from gateway.exchange import Exchange
    from gateway.formats.base import UsageReader
    from gateway.forwarded_headers import Headers
    from gateway.incoming import Incoming
    from gateway.upstream import UpstreamAnswer
    from gateway.watchdog import Watch

SMALL_BODY_BYTES = 64 * 1024
"""An answer known to be no longer than this is written in one piece, head and body: nobody waits for its parts."""


class Relay:
    """One answer on its way from upstream to caller.

    `idle_s` bounds how long the caller may take for a piece. With `drain` an answer is read to its end although
    its caller left. A `cutter` may end a streamed answer before its upstream does.
    """

    __slots__ = ("_answer", "_cutter", "_decoder", "_drain", "_exchange", "_idle_s", "_reader", "_watch")

    def __init__(
        self,
        answer: UpstreamAnswer,
        *,
        reader: UsageReader | None,
        decoder: Decoder | None,
        exchange: Exchange,
        watch: Watch,
        idle_s: float,
        drain: bool,
        cutter: Cutter | None = None,
    ) -> None:
        self._answer = answer
        self._reader = reader
        self._decoder = decoder
        self._exchange = exchange
        self._watch = watch
        self._idle_s = idle_s
        self._drain = drain
        self._cutter = cutter

    async def read_whole(self) -> bytes:
        """The whole of a small body as it will be relayed. Raises `UpstreamError` when it breaks off."""
        pieces = []
        while True:
            chunk = await self._answer.read()
            if not chunk:
                break
            self._note(chunk)
            pieces.append(self._listen(chunk))
        pieces.append(self._end())
        return b"".join(pieces)

    async def stream(self, request: Incoming, headers: Headers) -> None:
        """Relay chunk by chunk; the answer's end is left unwritten, so that the caller sees it after settling.

        When the upstream breaks off, the caller's connection is broken off too: never a clean end.
        """
        try:
            caller_left = not await self._begin(request, headers)
            while True:
                chunk = await self._answer.read()
                if not chunk:
                    break
                self._note(chunk)
                relayed = self._listen(chunk) if self._cutter is None else await self._cutter.take(chunk)
                if relayed and not caller_left:
                    caller_left = not await self._write(request, relayed)
                if self._cutter is not None and self._cutter.cut:
                    if self._exchange.outcome == "ok":
                        self._exchange.outcome = "exhausted"
                    return
            rest = self._end() if self._cutter is None else self._cutter.finish()
            if rest and not caller_left:
                await self._write(request, rest)
        except UpstreamError as error:
            self._exchange.outcome = "cut"
            self._exchange.error = error.message
            request.break_off()

    async def _begin(self, request: Incoming, headers: Headers) -> bool:
        """Whether the caller is still there."""
        try:
            await request.begin(self._answer.status, self._answer.reason, headers)
        except ConnectionError:
            self._caller_left()
            return False
        return True

    async def _write(self, request: Incoming, chunk: bytes) -> bool:
        """Whether the caller is still there."""
        self._watch.expect_client(self._idle_s)
        try:
            await request.write(chunk)
        except ConnectionError:
            self._caller_left()
            return False
        self._watch.client_took_it()
        return True

    def _caller_left(self) -> None:
        self._exchange.outcome = "client_left"
        if not self._drain:
            raise ClientLeft from None

    def _note(self, chunk: bytes) -> None:
        exchange = self._exchange
        if not exchange.relayed_bytes:
            exchange.first_byte_s = time.perf_counter() - exchange.started_s
        exchange.relayed_bytes += len(chunk)

    def _listen(self, chunk: bytes) -> bytes:
        if self._reader is None:
            return chunk
        if self._decoder is not None:
            for piece in self._decoder.feed(chunk):
                self._reader.feed(piece)
            return chunk
        return self._reader.feed(chunk)

    def _end(self) -> bytes:
        if self._reader is None:
            return b""
        rest = self._reader.finish()
        return b"" if self._decoder is not None else rest
