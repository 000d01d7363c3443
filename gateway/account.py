"""What one forwarded request is charged in the end: reported, counted from what was relayed, or held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gateway.recording import ledger_entry
from policies.usage import Usage

if TYPE_CHECKING:
    from gateway.cutting import Cutter
    from gateway.exchange import Exchange
    from gateway.formats.base import UsageReader
    from gateway.runtime import Runtime
    from policies.model import Reservation

Progress = Literal["unsent", "sent", "declined", "answering"]


MOST_COUNTED_CHARACTERS = 4 * 1024 * 1024
"""An unreported output longer than any model's is charged by its length, within the hold: counting a few packed
kilobytes that stand for sixty megabytes would keep everybody else's prompts waiting for minutes."""


class Account:
    """Follows one hold from its reservation to its end.

    `progress` is how far the upstream got: ``declined`` means it never took the request (no connection, no answer,
    a redirect or an error status), and then nothing is charged.
    """

    __slots__ = ("_exchange", "_reservation", "_runtime", "cutter", "progress", "reader")

    def __init__(self, runtime: Runtime, exchange: Exchange, reservation: Reservation) -> None:
        self._runtime = runtime
        self._exchange = exchange
        self._reservation = reservation
        self.progress: Progress = "unsent"
        self.reader: UsageReader | None = None
        self.cutter: Cutter | None = None

    def answered(self, status: int, reader: UsageReader | None) -> UsageReader | None:
        """The head of an answer has arrived; gives back the reader if the answer is one that costs."""
        if not 200 <= status < 300:
            self.progress = "declined"
            return None
        self.progress = "answering"
        self.reader = reader
        return reader

    async def close(self) -> None:
        """Settle or release, whatever happens to the caller; the exchange then knows the usage and the budgets.

        The engine sees an end through even if nobody waits for it; counting an unreported output first needs a task
        of its own for that.
        """
        if self.cutter is not None:
            await self._runtime.unfinished.finish(self._close_with(self.cutter))
            return
        if self.progress in ("unsent", "declined"):
            await self._end(None)
            return
        usage = self._known_usage()
        if usage is not None:
            await self._end(usage)
        else:
            await self._runtime.unfinished.finish(self._count_and_end())

    async def _close_with(self, cutter: Cutter) -> None:
        """Settle first, then give back what was held beyond: in between too much is held, never too little."""
        usage = self._known_usage()
        if usage is not None:
            await self._end(usage)
        else:
            await self._count_and_end()
        for extension in cutter.extensions:
            await self._runtime.engine.release(extension, now=self._runtime.clock())

    async def _end(self, usage: Usage | None) -> None:
        exchange, engine = self._exchange, self._runtime.engine
        exchange.usage = usage
        now = self._runtime.clock()
        entry = ledger_entry(exchange)
        if usage is None:
            statuses = await engine.release(self._reservation, now=now, entry=entry)
        else:
            statuses = await engine.settle(self._reservation, usage, now=now, entry=entry)
        exchange.statuses = statuses or exchange.statuses

    @property
    def _counted_input(self) -> int:
        count = self._exchange.count
        return count.input_tokens if count is not None else 0

    def _known_usage(self) -> Usage | None:
        """What was used, if nothing has to be counted to know it."""
        reader = self.reader
        if reader is None:
            # Sent, and the caller left before any answer: the upstream is reading the prompt. Or nothing to read.
            return Usage(self._counted_input, 0, source="counted")
        reported = reader.usage
        if reported is not None and reader.complete:
            return reported
        text = reader.output_text
        if len(text) > MOST_COUNTED_CHARACTERS:
            return Usage(self._counted_input, min(self._exchange.held_output, len(text)), source="held")
        if text:
            return None
        if reported is not None:
            return reported._replace(input_tokens=reported.input_tokens or self._counted_input, source="counted")
        exchange = self._exchange
        if reader.complete or exchange.count is None or not exchange.relayed_bytes:
            return Usage(self._counted_input, 0, source="counted")
        # Bytes that are no answer of this API: nothing has more tokens than bytes, and the hold bounds the rest.
        return Usage(self._counted_input, min(exchange.held_output, exchange.relayed_bytes), source="held")

    async def _count_and_end(self) -> None:
        assert self.reader is not None
        reported = self.reader.usage
        if self.cutter is not None and self.cutter.relayed_tokens is not None:
            output = self.cutter.relayed_tokens
        else:
            (output,) = await self._runtime.counting.count_texts(self._exchange.model, [self.reader.output_text])
        if reported is None:
            await self._end(Usage(self._counted_input, output, source="counted"))
            return
        await self._end(
            reported._replace(
                input_tokens=reported.input_tokens or self._counted_input,
                output_tokens=max(reported.output_tokens, output),
                source="counted",
            )
        )
