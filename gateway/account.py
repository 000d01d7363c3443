"""What one forwarded request is charged in the end: reported, counted from what was relayed, or held."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from policies.usage import Usage

if TYPE_CHECKING:
    from gateway.counting import Counting
    from gateway.exchange import Exchange
    from gateway.formats.base import UsageReader
    from gateway.settlements import Settlements
    from policies.model import BudgetStatus, Reservation

Progress = Literal["unsent", "sent", "declined", "answering"]


class Account:
    """Follows one hold from its reservation to its end.

    `progress` is how far the upstream got: ``declined`` means it never took the request (no connection, no answer,
    a redirect or an error status), and then nothing is charged.
    """

    __slots__ = ("_counting", "_exchange", "_reservation", "_settlements", "progress", "reader")

    def __init__(
        self, exchange: Exchange, reservation: Reservation | None, *, settlements: Settlements, counting: Counting
    ) -> None:
        self._exchange = exchange
        self._reservation = reservation
        self._settlements = settlements
        self._counting = counting
        self.progress: Progress = "unsent"
        self.reader: UsageReader | None = None

    def answered(self, status: int, reader: UsageReader | None) -> UsageReader | None:
        """The head of an answer has arrived; gives back the reader if the answer is one that costs."""
        if not 200 <= status < 300:
            self.progress = "declined"
            return None
        self.progress = "answering"
        self.reader = reader
        return reader

    async def close(self) -> tuple[BudgetStatus, ...]:
        """Settle or release, exactly once and whatever happens to the caller; the budgets as they then stand."""
        statuses = await self._settlements.finish(self._close())
        if statuses:
            self._exchange.statuses = statuses
        return self._exchange.statuses

    async def _close(self) -> tuple[BudgetStatus, ...]:
        reservation, self._reservation = self._reservation, None
        if self.progress in ("unsent", "declined"):
            return await self._settlements.release(reservation) if reservation is not None else ()
        usage = self._exchange.usage = await self.used()
        return await self._settlements.settle(reservation, usage) if reservation is not None else ()

    async def used(self) -> Usage:
        """What the request used, as well as it is known now."""
        exchange, reader = self._exchange, self.reader
        counted_input = exchange.count.input_tokens if exchange.count is not None else 0
        if reader is None:
            # Sent, and the caller left before any answer: the upstream is reading the prompt.
            return Usage(counted_input, 0, source="counted")
        reported = reader.usage
        if reported is not None and reader.complete:
            return reported
        text = reader.output_text
        counted_output = (await self._counting.count_texts(exchange.model, [text]))[0] if text else 0
        if reported is not None:
            return replace(
                reported,
                input_tokens=reported.input_tokens or counted_input,
                output_tokens=max(reported.output_tokens, counted_output),
                source="counted",
            )
        if text or reader.complete or exchange.count is None or not exchange.relayed_bytes:
            return Usage(counted_input, counted_output, source="counted")
        # Bytes that are no answer of this API: nothing has more tokens than bytes, and the hold bounds the rest.
        return Usage(counted_input, min(exchange.held_output, exchange.relayed_bytes), source="held")
