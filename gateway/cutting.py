"""Ending a streamed answer that outgrows its hold when its budgets have nothing left (``on_exhausted: cut``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.usage import Usage

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.formats.base import UsageReader
    from gateway.formats.early_end import EarlyEnd
    from gateway.runtime import Runtime
    from policies.model import Reservation

LEAST_STEP, STEP_SHARE = 256, 0.25
"""More output is held in steps of this many tokens, or this share of what is held already."""


class Cutter:
    """Lets an answer pass, whole events at a time, as long as its output fits what is held for it.

    What has been relayed is bounded by its bytes (no tokenizer makes more tokens than bytes), and counted only when
    that bound passes the hold: rarely at first, at each event near the edge. Then more is held, in steps; when nothing
    is left the answer ends, before the event that would not fit.
    """

    def __init__(
        self, runtime: Runtime, exchange: Exchange, reservation: Reservation, *, reader: UsageReader, end: EarlyEnd
    ) -> None:
        self._runtime = runtime
        self._exchange = exchange
        self._reservation = reservation
        self._reader = reader
        self._end = end
        self._allowed = reservation.held_output
        self._bound = 0
        self._pieces = 0
        self.extensions: list[Reservation] = []
        """What was held beyond the reservation; to be released once that is settled."""
        self.relayed_tokens: int | None = None
        """Output tokens that reached the caller, known once the answer has been cut."""

    @property
    def cut(self) -> bool:
        """Whether the answer has been ended here."""
        return self.relayed_tokens is not None

    async def take(self, chunk: bytes) -> bytes:
        """Take the next bytes of the answer and return what to relay; its end, if it is cut."""
        relayed = []
        for event in self._end.split(chunk):
            before = self._pieces
            passed = self._reader.feed(event.raw)
            if not await self._fits() and not self._is_over():
                relayed.append(await self._closing(self._reader.output_since(0)[:before]))
                break
            self._end.follow(event)
            relayed.append(passed)
        return b"".join(relayed)

    def finish(self) -> bytes:
        """The answer ended by itself: return what is left of it."""
        rest = [self._reader.feed(event.raw) for event in self._end.finish()]
        return b"".join((*rest, self._reader.finish()))

    async def _fits(self) -> bool:
        new = self._reader.output_since(self._pieces)
        self._pieces += len(new)
        self._bound += sum(len(text) if text.isascii() else len(text.encode("utf-8", "replace")) for text in new)
        while self._bound > self._allowed:
            self._bound = await self._count(self._reader.output_text)
            if self._bound <= self._allowed:
                break
            wanted = max(LEAST_STEP, round(self._allowed * STEP_SHARE), self._bound - self._allowed)
            runtime = self._runtime
            more = await runtime.engine.extend(self._reservation, wanted, now=runtime.clock())
            if more is None:
                return False
            self.extensions.append(more)
            self._allowed += more.held_output
            if not more.held_output:
                return False
        return True

    def _is_over(self) -> bool:
        """Whether the upstream has said all and billed it: then nothing is gained by keeping its last event back."""
        return self._reader.complete and self._reader.usage is not None

    async def _closing(self, relayed: list[str]) -> bytes:
        self.relayed_tokens = await self._count("".join(relayed))
        reported, count = self._reader.usage, self._exchange.count
        read = reported.input_tokens if reported is not None else 0
        read = read or (count.input_tokens if count is not None else 0)
        return self._end.closing(Usage(read, self.relayed_tokens, source="counted"))

    async def _count(self, text: str) -> int:
        (tokens,) = await self._runtime.counting.count_texts(self._exchange.model, [text])
        return tokens
