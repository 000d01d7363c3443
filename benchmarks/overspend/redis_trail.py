"""A trail that Redis tells itself: MONITOR reports every command in the order the server ran it, those that scripts
call included."""

from __future__ import annotations

import codecs
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson

from benchmarks.overspend.fleet import accepts, free_port, redis_process
from benchmarks.overspend.trail import Admitted, Commit, Ended, Event, Moved, Place

_ARGUMENT = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_COUNTER, _HOLD = b"{tollgate}:c:", b"{tollgate}:h:"


class RedisTrail:
    """The trail of a Redis of its own. What scripts only read is left out of the file: it is most of it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.server = redis_process(folder, self.port)
        self._path = folder / "monitor.txt"
        self._children: list[subprocess.Popen[bytes]] = []

    async def start(self) -> None:
        """Start the server, and listen."""
        self.server.start()
        await accepts(self.port)
        self._listen()

    def _listen(self) -> None:
        monitor = subprocess.Popen(
            ["redis-cli", "-p", str(self.port), "monitor"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        with self._path.open("wb") as file:
            filtered = ["grep", "-a", "--line-buffered", "-Ev", '"(HMGET|EXPIRE|XADD|LPUSH|LTRIM|HGETALL|PING)"']
            grep = subprocess.Popen(filtered, stdin=monitor.stdout, stdout=file)
        assert monitor.stdout is not None
        monitor.stdout.close()
        self._children = [monitor, grep]

    async def stop(self) -> None:
        """End the server and whoever listens."""
        await self.server.kill()
        self._hang_up()

    def _hang_up(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()

    def events(self) -> Iterator[Event]:
        """Read the trail, oldest first."""
        taken: dict[Place, list[int]] = {}
        lines_of: dict[str, tuple[tuple[Place, int], ...]] = {}
        with self._path.open("rb") as file:
            for text in file:
                head, _, rest = text.partition(b'"')
                if b"lua]" not in head:
                    yield Commit()
                    continue
                found = [codecs.escape_decode(argument)[0] for argument in _ARGUMENT.findall(b'"' + rest)]
                command, key = found[0].upper(), found[1]
                if command == b"HINCRBY" and key.startswith(_COUNTER):
                    place = _place(key)
                    figures = taken.setdefault(place, [0, 0])
                    figures[0 if found[2] == b"u" else 1] += int(found[3])
                    yield Moved(place, *figures)
                elif command == b"HSET" and key.startswith(_HOLD):
                    admitted = _admitted(key, found[2:])
                    lines_of[admitted.hold_id] = admitted.lines
                    yield admitted
                elif command == b"DEL" and key.startswith(_HOLD):
                    hold_id = key.removeprefix(_HOLD).decode()
                    yield Ended(hold_id, lines_of.pop(hold_id))


def _admitted(key: bytes, pairs: list[bytes]) -> Admitted:
    fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
    lines = []
    for line in fields[b"lines"].split(b"\n"):
        counter, amount, _ = line.split(b"\t")
        lines.append((_place(counter), int(amount)))
    return Admitted(
        hold_id=key.removeprefix(_HOLD).decode(),
        owner=fields[b"owner"].decode(),
        held_at=float(fields[b"at"]),
        key_id=orjson.loads(fields[b"memo"])["key"],
        input_tokens=int(fields[b"input"]),
        output_tokens=int(fields[b"output"]),
        lines=tuple(lines),
    )


def _place(key: bytes) -> Place:
    series, _, slot = key.removeprefix(_COUNTER).decode().rpartition("@")
    return series, int(slot)
