"""One connection to Redis that many requests share: commands go out together, answers come back in order."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, RedisError, ResponseError

from policies.model import StoreLost

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0

T = TypeVar("T")

_ELSEWHERE = ("MOVED ", "READONLY ", "CLUSTERDOWN ", "MASTERDOWN ", "LOADING ", "TRYAGAIN ", "UNBLOCKED ")
"""How answers begin that say this server is not, or not now, the one to talk to."""


class Script:
    """A Lua script and the name Redis gives it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


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


class RedisWire:
    """Keeps one connection, made by `connect`, and makes it again with growing pauses when it is lost.

    Commands take effect in the order they are called. While there is no connection they fail at once with
    `StoreLost`; one that was under way fails too, and may or may not have taken effect. No answer for `timeout_s`
    counts as lost.
    """

    def __init__(self, connect: Callable[[], Awaitable[AbstractConnection]], *, name: str, timeout_s: float) -> None:
        self.name = name
        self._connect = connect
        self._timeout_s = timeout_s
        self._unsent: list[_Command] = []
        self._unanswered: deque[_Command] = deque()
        self._answers = 0
        self._wake = asyncio.Event()
        self._stalled = asyncio.Event()
        self._watch: asyncio.TimerHandle | None = None
        self._lost: str = ""
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
        if waiting and not self._lost:
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
        self._wake.set()
        if self._task is None:
            self._task = loop.create_task(self._keep_connected())
        if self._watch is None:
            self._watch = loop.call_later(self._timeout_s, self._check, self._answers)
        return future

    async def _keep_connected(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    connection = await self._connect()
            except Exception as error:  # whatever it is, the task must live: every request waits for it
                self._lose(str(error) or "no answer in time")
                await asyncio.sleep(pause * (0.5 + random.random()))  # noqa: S311 - spreads replicas, hides nothing
                pause = min(2 * pause, LONGEST_PAUSE_S)
                continue
            pause = FIRST_PAUSE_S
            self._lost = ""
            self._stalled.clear()
            reason = "it was closed"
            try:
                reason = await self._converse(connection)
            finally:
                self._lose(reason)
                with contextlib.suppress(RedisError, OSError):
                    await connection.disconnect(nowait=True)

    async def _converse(self, connection: AbstractConnection) -> str:
        """Send and read until that fails, and return why."""
        tasks = [
            asyncio.ensure_future(work) for work in (self._write(connection), self._read(connection), self._stall())
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        reasons = [result for task, result in zip(tasks, results, strict=True) if task in done]
        return str(reasons[0]) or "the connection ended"

    async def _write(self, connection: AbstractConnection) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            commands, self._unsent = self._unsent, []
            packed: list[bytes] = []
            for command in commands:
                script = command.script
                head = ("EVALSHA", script.sha) if script is not None else ()
                packed += connection.pack_command(*head, *command.args)
                self._unanswered.append(command)
            if packed:
                await connection.send_packed_command(packed, check_health=False)

    async def _read(self, connection: AbstractConnection) -> None:
        unanswered = self._unanswered
        while True:
            try:
                answer = await connection.read_response()
            except ResponseError as error:
                self._take_error(unanswered.popleft(), error)
                continue
            self._answers += 1
            command = unanswered.popleft()
            if not command.future.done():
                try:
                    command.future.set_result(answer if command.read is None else command.read(answer))
                except (ValueError, TypeError, IndexError) as error:
                    command.future.set_exception(self._error(f"it answered what no script of ours does ({error})"))

    async def _stall(self) -> None:
        await self._stalled.wait()
        raise TimeoutError(f"no answer for {self._timeout_s:g} s")

    def _take_error(self, command: _Command, error: ResponseError) -> None:
        self._answers += 1
        if isinstance(error, NoScriptError) and command.script is not None:
            # The server has forgotten the script (it was restarted or replaced): send it whole, which teaches it.
            again = _Command(command.future, None, ("EVAL", command.script.text, *command.args), command.read)
            self._unsent.append(again)
            self._wake.set()
            return
        if not command.future.done():
            command.future.set_exception(self._error(str(error)))
        if str(error).startswith(_ELSEWHERE) or type(error).__name__ in ("MovedError", "ReadOnlyError"):
            raise error

    def _check(self, answers_before: int) -> None:
        self._watch = None
        if not self._unanswered and not self._unsent:
            return
        if self._answers == answers_before:
            self._stalled.set()
        else:
            loop = asyncio.get_running_loop()
            self._watch = loop.call_later(self._timeout_s, self._check, self._answers)

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
