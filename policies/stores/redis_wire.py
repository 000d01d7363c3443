"""One connection to Redis that many requests share: commands go out together, answers come back in order."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from hiredis import Reader, ReplyError, pack_command

from policies.model import StoreLost

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0

T = TypeVar("T")

_ELSEWHERE = ("MOVED ", "READONLY ", "CLUSTERDOWN ", "MASTERDOWN ", "LOADING ", "TRYAGAIN ")
"""How answers begin that say this server is not, or not now, the one to talk to."""


class Script:
    """A Lua script and the name Redis gives it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisWire:
    """Keeps one connection, which `connect` opens for a protocol, and opens it again with growing pauses when it is
    lost.

    Commands take effect in the order they are called. While there is no connection they fail at once with
    `StoreLost`; one that was under way fails too, and may or may not have taken effect. No answer for `timeout_s`
    counts as lost.
    """

    def __init__(
        self, connect: Callable[[asyncio.Protocol], Awaitable[asyncio.StreamWriter]], *, name: str, timeout_s: float
    ) -> None:
        self.name = name
        self._connect = connect
        self._timeout_s = timeout_s
        self._unsent: list[_Command] = []
        self._unanswered: deque[_Command] = deque()
        self._answered = 0
        self._writer: asyncio.StreamWriter | None = None
        self._ended: asyncio.Future[str] | None = None
        self._flushes = False
        self._watch: asyncio.TimerHandle | None = None
        self._lost = ""
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def call(self, *args: Any) -> asyncio.Future[Any]:
        """Send a command; the future brings its answer, or `StoreLost`."""
        return self._send(None, args, None)

    def run(self, script: Script, *args: Any, read: Callable[[Any], T]) -> asyncio.Future[T]:
        """Run a script (number of keys, keys, arguments); the future brings what `read` makes of its answer."""
        return self._send(script, args, read)

    async def close(self) -> None:
        """Wait for the answers to what was sent, as long as there is a connection, and end it."""
        waiting = [command.future for command in (*self._unanswered, *self._unsent)]
        if waiting:
            await asyncio.wait(waiting, timeout=self._timeout_s)
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._lose("it was closed")

    def _send(
        self, script: Script | None, args: tuple[Any, ...], read: Callable[[Any], Any] | None
    ) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._lost or self._closed:
            future.set_exception(self._error(self._lost or "it was closed"))
            return future
        self._unsent.append(_Command(future, script, args, read))
        if self._task is None:
            self._task = loop.create_task(self._keep_connected())
        elif not self._flushes:
            # Everything that this turn of the event loop asks for goes out in one piece.
            self._flushes = True
            loop.call_soon(self._flush)
        if self._watch is None:
            self._watch = loop.call_later(self._timeout_s, self._check, self._answered)
        return future

    async def _keep_connected(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    writer = await self._connect(_Answers(self))
            except Exception as error:  # whatever it is, this task must live: every request waits for it
                self._lose(str(error) or "no answer in time")
                await asyncio.sleep(pause * (0.5 + random.random()))  # noqa: S311 - spreads replicas, hides nothing
                pause = min(2 * pause, LONGEST_PAUSE_S)
                continue
            pause = FIRST_PAUSE_S
            self._lost = ""
            self._writer = writer
            self._ended = asyncio.get_running_loop().create_future()
            reason = "it was closed"
            self._flush()
            try:
                reason = await self._ended
            finally:
                self._writer = None
                self._lose(reason)
                writer.transport.abort()

    def _flush(self) -> None:
        self._flushes = False
        writer = self._writer
        if writer is None or not self._unsent:
            return
        commands, self._unsent = self._unsent, []
        self._unanswered.extend(commands)
        writer.transport.write(b"".join([command.packed() for command in commands]))

    def _take(self, answer: Any) -> None:
        """The next answer has come."""
        self._answered += 1
        command = self._unanswered.popleft()
        if isinstance(answer, ReplyError):
            self._take_error(command, str(answer))
        elif not command.future.done():
            try:
                command.future.set_result(answer if command.read is None else command.read(answer))
            except (ValueError, TypeError, IndexError) as error:
                command.future.set_exception(self._error(f"it answered what no script of ours does ({error})"))

    def _take_error(self, command: _Command, error: str) -> None:
        if error.startswith("NOSCRIPT ") and command.script is not None:
            # The server has forgotten the script (it was restarted or replaced): send it whole, which teaches it.
            args = ("EVAL", command.script.text, *command.args)
            self._unsent.append(_Command(command.future, None, args, command.read))
            self._flush()
            return
        if not command.future.done():
            command.future.set_exception(self._error(error))
        if error.startswith(_ELSEWHERE):
            self._end(error)

    def _end(self, reason: str) -> None:
        """This connection is of no more use."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(reason)

    def _check(self, answered_before: int) -> None:
        self._watch = None
        if not self._unanswered and not self._unsent:
            return
        if self._answered == answered_before:
            self._end(f"no answer for {self._timeout_s:g} s")
        self._watch = asyncio.get_running_loop().call_later(self._timeout_s, self._check, self._answered)

    def _lose(self, reason: str) -> None:
        self._lost = reason
        lost = [*self._unanswered, *self._unsent]
        self._unanswered.clear()
        self._unsent.clear()
        for command in lost:
            if not command.future.done():
                command.future.set_exception(self._error(reason))
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _error(self, reason: str) -> StoreLost:
        return StoreLost(f"The budget store '{self.name}' cannot be used: {reason}. It is tried again by itself.")


class _Command:
    __slots__ = ("args", "future", "read", "script")

    def __init__(
        self,
        future: asyncio.Future[Any],
        script: Script | None,
        args: tuple[Any, ...],
        read: Callable[[Any], Any] | None,
    ) -> None:
        self.future = future
        self.script = script
        self.args = args
        self.read = read

    def packed(self) -> bytes:
        script = self.script
        packed: bytes = pack_command(self.args if script is None else ("EVALSHA", script.sha, *self.args))
        return packed


class _Answers(asyncio.Protocol):
    """Takes answers apart as they come in."""

    def __init__(self, wire: RedisWire) -> None:
        self._wire = wire
        self._reader = Reader()

    def data_received(self, data: bytes) -> None:
        reader, wire = self._reader, self._wire
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not False:
                wire._take(answer)
        except Exception as error:  # bytes that are no answers, or more of them than questions
            wire._end(f"it does not speak as Redis does ({error})")

    def connection_lost(self, exc: Exception | None) -> None:
        self._wire._end(str(exc) if exc is not None else "the connection ended")
