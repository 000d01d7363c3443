"""One keep-alive connection: writes a request, hears its answer, knows when it may be used again."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Protocol, cast

from gateway.http.answer import Answer
from gateway.http.answer_parser import AnswerParser
from gateway.http.body_sender import WHOLE_BYTES, BodySender
from gateway.http.errors import AnswerCut, BadAnswer, HttpError, Phase, ResetBeforeAnswer, SendFailed, TimedOut
from gateway.http.request_head import Body

MAX_BUFFERED_BYTES = 256 * 1024
"""An answer's unread bytes above which the socket is not read any further."""

_TIMER_SLACK_S = 0.002  # uvloop rounds timers to milliseconds, so one may fire this much early


class Keeper(Protocol):
    """Who owns a connection between requests."""

    def take_back(self, connection: Connection) -> None:
        """The exchange is over and the connection may be used again."""
        ...

    def forget(self, connection: Connection) -> None:
        """The connection is gone."""
        ...


class Connection(asyncio.Protocol):
    """At most one exchange at a time: `begin`, await `head_arrived`, read the `Answer`.

    Timers: one handle, kept over exchanges. A change of state only moves `_due`; the handle looks at it when it
    fires and sleeps again, so an ordinary request starts and cancels no timer.
    """

    def __init__(self, *, peer: str, loop: asyncio.AbstractEventLoop) -> None:
        self.peer = peer
        self.closed = False
        self.reused = False
        self.idle_since = 0.0
        self._loop = loop
        self._keeper: Keeper | None = None
        self._transport = cast("asyncio.Transport", None)  # set by `connection_made`, before anything else
        self._parser = AnswerParser(peer)
        self._answer: Answer | None = None
        self._head = cast("asyncio.Future[None]", None)  # set by `begin`
        self._sender: BodySender | None = None
        self._reading_paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = inf
        self._phase: Phase = "header"
        self._due = inf
        self._total_due = inf
        self._header_timeout_s = inf
        self._idle_timeout_s = inf

    # The exchange.

    def begin(
        self,
        head: bytes,
        body: Body,
        *,
        is_head_request: bool,
        header_timeout_s: float | None,
        idle_timeout_s: float | None,
        total_due: float,
    ) -> Answer:
        """Send a request. The answer's status is there once `head_arrived` is done; `total_due` is loop time."""
        answer = self._answer = Answer(self, loop=self._loop)
        self._head = self._loop.create_future()
        self._header_timeout_s = inf if header_timeout_s is None else header_timeout_s
        self._idle_timeout_s = inf if idle_timeout_s is None else idle_timeout_s
        self._total_due = total_due
        self._parser.start(answer, is_head_request=is_head_request)
        if self.closed or self._transport.is_closing():
            self.fail(ResetBeforeAnswer(f"connection to {self.peer} ended before the request", silent=True))
        elif body is None or (isinstance(body, bytes) and len(body) <= WHOLE_BYTES):
            self._transport.write(head + body if body else head)
            self.send_finished()
        else:
            self._due = inf
            if total_due < self._timer_due:
                self._arm(total_due)
            self._sender = BodySender(self._transport, listener=self, loop=self._loop)
            self._sender.start(head, body)
        return answer

    @property
    def head_arrived(self) -> asyncio.Future[None]:
        """Done when the answer's head is there; raises what went wrong."""
        return self._head

    def abandon(self, answer: Answer) -> None:
        """The reader of `answer` wants no more of it: close, unless the exchange is over."""
        if self._answer is answer:
            self.fail(AnswerCut("the answer was closed before its end"))

    def resume(self) -> None:
        """The reader of the answer caught up: read on."""
        if self._reading_paused and not self.closed:
            self._reading_paused = False
            self._transport.resume_reading()
            if self._answer is not None:
                self._expect("idle", self._idle_timeout_s)

    def fail(self, error: HttpError) -> None:
        """End the exchange with `error` and close."""
        self._end_exchange(error)
        self._transport.abort()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def adopt(self, keeper: Keeper) -> None:
        """Belong to `keeper` from now on, who is told when the connection is free and when it is gone."""
        self._keeper = keeper

    # What the body's sender tells.

    def send_stalled(self) -> None:
        self._expect("send", self._idle_timeout_s)

    def send_waits_for_caller(self) -> None:
        if not self._parser.has_head:
            self._due = inf

    def send_finished(self) -> None:
        self._sender = None
        if self._answer is not None and not self._parser.has_head:
            self._expect("header", self._header_timeout_s)

    def fail_source(self, error: Exception) -> None:
        self._sender = None
        if not self._head.done():
            self._head.set_exception(error)
        self.fail(AnswerCut(f"the request's body failed half-way: {error!r}"))

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        answer, parser = self._answer, self._parser
        if answer is None:
            # Nobody asked: these bytes would become the head of the next request's answer.
            self.closed = True
            self._transport.abort()
            return
        try:
            parser.feed(data)
        except BadAnswer as error:
            self.fail(error)
            return
        if parser.done:
            self._finish(answer)
            return
        if not parser.has_head:
            return
        if not self._head.done():
            self._head.set_result(None)
            if self._sender is not None and answer.status >= 300:
                # The upstream made up its mind early. After a 2xx the rest is still sent: it may be reading on.
                self._sender.stop()
                self._sender = None
                parser.keeps_alive = False
        if answer.buffered_bytes > MAX_BUFFERED_BYTES:
            self._due = inf
            self._reading_paused = True
            self._transport.pause_reading()
            answer.mark_paused()
        else:
            self._expect("idle", self._idle_timeout_s)
        answer.wake()

    def eof_received(self) -> None:
        return None  # close: an upstream that has said all it will say takes no further request either

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._answer is not None and exc is not None and not self._parser.heard:
            left = _left_in_socket(self._transport)
            if left:
                self.data_received(left)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        answer = self._answer
        if answer is not None and self._parser.until_eof and exc is None:
            self._finish(answer)
        else:
            self._end_exchange(self._loss(exc))
        if self._keeper is not None:
            self._keeper.forget(self)
            self._keeper = None

    def pause_writing(self) -> None:
        if self._sender is not None:
            self._sender.pause()

    def resume_writing(self) -> None:
        if self._sender is not None:
            self._sender.resume()

    # Endings.

    def _finish(self, answer: Answer) -> None:
        self._answer = None
        self._due = inf
        if not self._head.done():
            self._head.set_result(None)
        answer.finish()
        if self.closed:
            self._stop_sender()
        elif (
            self._parser.keeps_alive
            and self._keeper is not None
            and self._sender is None
            and self._transport.get_write_buffer_size() == 0
            and not self._transport.is_closing()
        ):
            if self._reading_paused:
                self._reading_paused = False
                self._transport.resume_reading()
            self.reused = True
            self._keeper.take_back(self)
        else:
            self._stop_sender()
            self._transport.abort()

    def _end_exchange(self, error: HttpError) -> None:
        answer, self._answer = self._answer, None
        self._due = inf
        self._stop_sender()
        if answer is not None:
            if not self._head.done():
                self._head.set_exception(error)
            answer.fail(error)

    def _stop_sender(self) -> None:
        if self._sender is not None:
            self._sender.stop()
            self._sender = None

    def _loss(self, exc: Exception | None) -> HttpError:
        how = f"was lost ({exc})" if exc else "was closed by the peer"
        if self._parser.has_head:
            return AnswerCut(f"connection to {self.peer} {how} in the middle of the answer's body")
        silent = not self._parser.heard
        if self._sender is not None:
            return SendFailed(f"connection to {self.peer} {how} while the request was sent", silent=silent)
        return ResetBeforeAnswer(f"connection to {self.peer} {how} before the answer's head", silent=silent)

    # The timer.

    def _expect(self, phase: Phase, within_s: float) -> None:
        self._phase = phase
        self._due = due = self._loop.time() + within_s
        if due > self._total_due:
            due = self._total_due
        if due < self._timer_due:
            self._arm(due)

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_due = inf
        if self._answer is None:
            return
        now = self._loop.time() + _TIMER_SLACK_S
        if now >= self._total_due:
            self.fail(TimedOut(f"{self.peer} did not finish its answer within the total time", phase="total"))
        elif now >= self._due:
            self.fail(TimedOut(self._lateness(), phase=self._phase))
        elif min(self._due, self._total_due) < inf:
            self._arm(min(self._due, self._total_due))

    def _lateness(self) -> str:
        if self._phase == "send":
            return f"{self.peer} took no bytes of the request for {self._idle_timeout_s:g} s"
        if self._phase == "header":
            return f"{self.peer} did not begin its answer within {self._header_timeout_s:g} s"
        return f"{self.peer} sent nothing more of its answer for {self._idle_timeout_s:g} s"


def _left_in_socket(transport: asyncio.Transport) -> bytes:
    """What the peer said before it reset the connection.

    An upstream that refuses a large body often answers, and closes without reading the rest. asyncio meets the
    failed write first and would drop the answer that lies in the socket; uvloop reads it by itself.
    """
    shared = transport.get_extra_info("socket")
    if shared is None or transport.get_extra_info("ssl_object") is not None:
        return b""
    try:
        with shared.dup() as own:
            data: bytes = own.recv(MAX_BUFFERED_BYTES)
            return data
    except OSError:
        return b""
