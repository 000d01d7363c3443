"""Carrying out what is asked of the SQLite file: at once where it is asked for, or on a thread."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from policies.model import StoreLost
from policies.stores.sqlite_checkpoints import Checkpoints
from policies.stores.sqlite_file import SqliteFile
from policies.stores.sqlite_operations import Operation, answer_all

BATCH_MOST = 512
"""Operations in one transaction: more would keep other processes waiting for the file."""

CROWD = 3
"""Operations in one turn of the event loop from which on the next turn's are waited for, to share a transaction."""

HERE_MOST = 32
"""Operations carried out on the event loop's own thread at once: together they take a millisecond or less."""

OPEN_S = 0.050
"""How long a transaction stays open for the next requests, while no other process wants the file."""

SHARED_S = 5.0
"""How long after a sign of another process each turn of the event loop ends its transaction."""

T = TypeVar("T")


class SqliteWriter:
    """Writes the file, for one event loop.

    A brief operation is carried out where it is asked for, if it can be at once: handing it to a thread and back takes
    many times as long. Everything else, and whatever meets another process's lock, is written by a thread of its own,
    all that is waiting in one transaction. The event loop never waits, for a lock or for the disk (`Checkpoints`).

    A process that meets no other on the file keeps a transaction, and with it the file's lock, for `OPEN_S`: what it
    answers meanwhile is kept beside the file (`Promises`). Any other process asks for its turn, and from then on each
    turn of the event loop is committed before it is answered. One that is frozen (SIGSTOP) in between keeps the others
    from the file until it goes on or dies.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        self.path = path
        self.checkpoints = Checkpoints(path, in_pause=self._pause_writing)
        self._busy_timeout_s = busy_timeout_s
        self._waiting: list[Operation] = []
        self._in_turn = self._crowded = False
        self._met = 0
        self._handed = self._taken = self._done = 0
        self._writing = threading.Lock()
        self._queue: queue.SimpleQueue[list[Operation] | None] = queue.SimpleQueue()
        self._file: SqliteFile | None = None
        self._shared_until = 0.0
        self._ending: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._lost: StoreLost | None = None

    @property
    def has_begun(self) -> bool:
        """Whether the file has been opened, or is about to be."""
        return self._thread is not None

    def take(self, run: Callable[[SqliteFile], None]) -> None:
        """Have something written that nobody waits for, however often it takes; `close` waits for it."""
        if self._closed:
            raise StoreLost(f"The budget store '{self.path}' is closed.")
        self._carry_out_soon(Operation(run, None, brief=True))

    def submit(self, run: Callable[[SqliteFile], T], *, brief: bool = False) -> asyncio.Future[T]:
        """Have an operation carried out; its result, or what it failed of, is the future's."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_exception(StoreLost(f"The budget store '{self.path}' is closed."))
            return future
        self._carry_out_soon(Operation(run, future, brief))
        return future

    async def close(self) -> None:
        """Write what is waiting and let go of the file. Raises `StoreLost` where it could not be written."""
        if self._closed:
            return
        self._hand_over()
        self._closed = True
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            await asyncio.to_thread(self.checkpoints.close)
            if self._lost is not None:
                raise self._lost

    def _carry_out_soon(self, operation: Operation) -> None:
        alone = self._is_alone()
        waits_for_others = self._in_turn or self._crowded or operation.future is None
        at_once = not (self._waiting if alone else waits_for_others)
        if at_once and self._carried_out_here((operation,), keep_open=alone):
            if alone:
                return
        else:
            self._waiting.append(operation)
        self._count()

    def _is_alone(self) -> bool:
        file = self._file
        if file is None:
            return False
        if file.others:
            file.others = False
            self._shared_until = asyncio.get_running_loop().time() + SHARED_S
        return not self._shared_until or self._has_been_quiet()

    def _has_been_quiet(self) -> bool:
        if asyncio.get_running_loop().time() < self._shared_until:
            return False
        self._shared_until = 0.0
        return True

    def _count(self) -> None:
        self._met += 1
        if not self._in_turn:
            # What else this turn of the event loop asks for goes into one transaction.
            self._in_turn = True
            asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._in_turn = False
        self._crowded, self._met = self._met >= CROWD, 0
        if self._waiting and self._carried_out_here(self._waiting, keep_open=self._is_alone()):
            self._waiting = []
        self._hand_over()

    def _carried_out_here(self, operations: Sequence[Operation], *, keep_open: bool) -> bool:
        """Carry out operations on the event loop's own thread, if nothing is in the way of doing so at once."""
        file = self._file
        if file is None or self._handed != self._done or len(operations) > HERE_MOST:
            return False
        for operation in operations:
            if not operation.brief:
                return False
        if not self._writing.acquire(blocking=False):
            return False
        rows = 0
        try:
            file.begin(wait=False)
            results = [operation.run(file) for operation in operations]
            if not (keep_open and file.keep()):
                rows = file.commit()
            elif self._ending is None:
                self._ending = asyncio.get_running_loop().call_later(OPEN_S, self._end_transaction)
        except BaseException as error:  # another process's lock, or worse: the thread knows what to do about each
            with contextlib.suppress(sqlite3.Error):
                file.roll_back()
            if not isinstance(error, Exception):
                raise
            return False
        finally:
            self._writing.release()
        if rows:
            self.checkpoints.wrote(rows)
        for operation, result in zip(operations, results, strict=True):
            future = operation.future
            if future is not None and not future.done():
                future.set_result(result)
        return True

    def _end_transaction(self) -> None:
        self._ending = None
        file = self._file
        if file is None or not file.in_transaction or not self._writing.acquire(blocking=False):
            return  # the thread has ended it, or is about to
        try:
            rows = file.commit()
        except Exception:  # whatever it was: the lock must not be kept for it
            with contextlib.suppress(sqlite3.Error):
                file.roll_back()
            # What was kept is done by who begins next: the thread, which knows what to do if that fails too.
            self._waiting.append(Operation(lambda file: file.ping(), None))
            self._hand_over()
            return
        finally:
            self._writing.release()
        self.checkpoints.wrote(rows)

    def _hand_over(self) -> None:
        if self._waiting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tollgate-budgets", daemon=True)
                self._thread.start()
            self._handed += 1
            self._queue.put(self._waiting)
            self._waiting = []

    def failed(self, error: Exception) -> StoreLost:
        """Return what callers are told of an error."""
        if isinstance(error, StoreLost):
            return error
        return StoreLost(f"The budget store '{self.path}' failed: {error}. Check the file, its disk and its lock.")

    def _work(self) -> None:
        """The thread: run batch after batch until the last one."""
        unwritten: list[Operation] = []
        last = False
        while not last:
            batch, last = self._next_batch()
            operations = unwritten + batch
            unwritten = []
            with self._writing:
                carried_out = [
                    self._carry_out(operations[start : start + BATCH_MOST])
                    for start in range(0, len(operations), BATCH_MOST)
                ]
            for answers in carried_out:
                unwritten += [each for each, answer in answers if each.future is None and isinstance(answer, StoreLost)]
            if not unwritten:
                # Before anybody is answered: who asks again at once is to find the way free.
                self._done = self._taken
            for answers in carried_out:
                answer_all(answers)
        with self._writing:
            file, self._file = self._file, None
            if file is not None:
                try:
                    if file.in_transaction:
                        file.commit()
                except Exception as error:
                    self._lost = self.failed(error)
                file.close()

    def _carry_out(self, operations: Sequence[Operation]) -> list[tuple[Operation, Any]]:
        """Run operations in one transaction; return each with its result, or with what it failed of.

        The file is opened when it is needed, and again after it failed.
        """
        try:
            if self._file is None:
                self._file = SqliteFile(self.path, busy_timeout_s=self._busy_timeout_s)
            file = self._file
            file.begin(wait=True)
            results = [operation.run(file) for operation in operations]
            rows = file.commit()
        except (sqlite3.Error, OSError, StoreLost) as error:
            self._drop_file()
            self._lost = self.failed(error)
            return [(operation, self._lost) for operation in operations]
        except Exception as error:  # what one operation cannot stomach must not cost the others their answer
            self._drop_file()
            if len(operations) == 1:
                return [(operations[0], error)]
            return [again for operation in operations for again in self._carry_out([operation])]
        self._lost = None
        self.checkpoints.wrote(rows)
        return list(zip(operations, results, strict=True))

    def _pause_writing(self, move: Callable[[], bool]) -> None:
        with self._writing:
            file = self._file
            if file is None:
                return
            try:
                if file.in_transaction:
                    file.commit()
                file.begin(wait=True)
                all_moved = move()
                file.commit()
                if all_moved:
                    file.begin(wait=True)
                    file.write_nothing_new()
                    file.commit()
            except Exception:
                file.roll_back()
                raise

    def _drop_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            # The connection is given up in any case, and closing it undoes the transaction.
            with contextlib.suppress(sqlite3.Error):
                file.roll_back()
            file.close()

    def _next_batch(self) -> tuple[list[Operation], bool]:
        batch = self._queue.get()
        if batch is None:
            return [], True
        self._taken += 1
        while len(batch) < BATCH_MOST:
            try:
                more = self._queue.get_nowait()
            except queue.Empty:
                break
            if more is None:
                return batch, True
            batch += more
            self._taken += 1
        return batch, False
