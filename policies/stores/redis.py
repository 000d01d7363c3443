"""Budgets in Redis or Valkey, shared by many replicas: one script call per reserve and one per settle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from importlib.resources import files
from typing import Any

import orjson

from policies.ledger import MEASURED, LedgerEntry
from policies.model import AMOUNT_MOST, StoreLost
from policies.stores.base import Counter, Denied, Granted, HeldLine, Hold, Note, Order, Row, Settled, State
from policies.stores.ledger_rows import ledger_entry, ledger_row
from policies.stores.memory import matches
from policies.stores.redis_address import redis_address
from policies.stores.redis_wire import RedisWire, Script

OUTPUTS_KEPT = 500
OUTPUTS_KEPT_S = 30 * 86_400
BATCHES_KEPT_S = 86_400
OWNERS_KEPT_S = 86_400.0
PAGE = 500

_CLOCK_TOLERANCE_S = 0.05
"""Differences from the server's clock below this are the way there and back, not the clock."""


def _script(name: str) -> Script:
    folder = files("policies.stores")
    return Script(folder.joinpath("counters.lua").read_text() + folder.joinpath(f"{name}.lua").read_text())


RESERVE, SETTLE, CHARGE = _script("reserve"), _script("settle"), _script("charge")
WRITE_NOTE = _script("write_note")


class RedisStore:
    """A `BudgetStore` for many replicas. The keys' hash tag keeps them on one node of a cluster, so that a script
    reaches all of them; after a failover the new master is found by itself.

    What survives a crash of the server is a matter of its persistence (``appendonly yes``). With `server_time`,
    windows follow the server's clock, as seen at every `beat`. Keeps about `ledger_lines` ledger lines.
    """

    name = "redis"

    def __init__(
        self, url: str, *, server_time: bool = True, ledger_lines: int = 1_000_000, timeout_s: float = 2.0
    ) -> None:
        self._address = redis_address(url, timeout_s=timeout_s)
        self._wire = RedisWire(self._address.connect, name=self._address.name, timeout_s=timeout_s)
        self._server_time = server_time
        self._offset_s = 0.0
        self._ledger_lines = ledger_lines
        self._unwritten: list[LedgerEntry] = []
        self._writing: set[asyncio.Future[Any]] = set()
        tag = f"{{{self._address.prefix}}}:"
        self._counter_keys = f"{tag}c:"
        self._hold_keys = f"{tag}h:"
        self._output_keys = f"{tag}o:"
        self._batch_keys = f"{tag}b:"
        self._index, self._owners, self._ledger = f"{tag}holds", f"{tag}owners", f"{tag}ledger"
        self._notes, self._revision = f"{tag}notes", f"{tag}revision"

    def aligned(self, now: float) -> float:
        return now + self._offset_s

    def reserve(self, order: Order, *, now: float) -> Awaitable[Granted | Denied]:
        keys, counters = [self._hold_keys + order.id, self._index], self._counter_keys
        figures: list[Any] = []
        for counter, ceiling, base, per_output, most, stretch in order.asks:
            keys.append(f"{counters}{counter.series}@{counter.slot}")
            figures += (counter.slot, counter.since, counter.step, ceiling, base, per_output, most, int(stretch))
            figures.append(counter.expires_at)
        return self._wire.run(
            RESERVE,
            len(keys),
            *keys,
            order.id,
            order.owner,
            now,
            order.output,
            order.choices,
            order.input_tokens,
            AMOUNT_MOST,
            order.memo,
            *figures,
            read=lambda answer: _outcome(answer, len(order.asks)),
        )

    def settle(
        self,
        hold_id: str,
        used: Sequence[int] | None,
        *,
        read: Sequence[Counter],
        now: float,
        entry: LedgerEntry | None = None,
    ) -> Awaitable[Settled]:
        figures = used or ()
        keys = [self._hold_keys + hold_id, self._index, self._ledger, self._outputs_key(entry)]
        places: list[Any] = []
        for series, slot, since, step, _ in read:
            keys.append(f"{self._counter_keys}{series}@{slot}")
            places += (slot, since, step)
        return self._wire.run(
            SETTLE,
            len(keys),
            *keys,
            hold_id,
            now,
            len(figures),
            *figures,
            b"" if entry is None else _line(entry),
            _measured_output(entry),
            self._ledger_lines,
            OUTPUTS_KEPT,
            OUTPUTS_KEPT_S,
            *places,
            read=lambda answer: Settled(answer[0] == 1, _states(answer[1:])),
        )

    def charge(self, lines: Sequence[HeldLine], *, batch: str, now: float) -> Awaitable[None]:
        keys = [self._batch_keys + batch, *(f"{self._counter_keys}{line.series}@{line.slot}" for line in lines)]
        figures = [figure for line in lines for figure in (line.amount, line.expires_at)]
        return self._wire.run(CHARGE, len(keys), *keys, now, BATCHES_KEPT_S, *figures, read=lambda _: None)

    async def read(self, counters: Sequence[Counter], *, now: float) -> tuple[State, ...]:
        return (await self.settle("", None, read=counters, now=now)).states

    async def beat(self, owner: str, *, now: float) -> None:
        noted, clock = self._wire.call("HSET", self._owners, owner, now), self._wire.call("TIME")
        seconds, microseconds = (await asyncio.gather(noted, clock))[1]
        ahead_s = int(seconds) + int(microseconds) / 1e6 - now
        if self._server_time and abs(ahead_s) > _CLOCK_TOLERANCE_S:
            self._offset_s += ahead_s
        unwritten, self._unwritten = self._unwritten, []
        for entry in unwritten:
            self.record(entry)

    async def leave(self, owner: str) -> None:
        await self._wire.call("HDEL", self._owners, owner)

    async def owners(self) -> dict[str, float]:
        beats = _pairs(await self._wire.call("HGETALL", self._owners))
        return {owner.decode(): float(beat_at) for owner, beat_at in beats.items()}

    async def holds(self, *, hold_id: str | None = None) -> list[Hold]:
        ids = [hold_id.encode()] if hold_id is not None else await self._wire.call("ZRANGE", self._index, 0, -1)
        owners, *found = await asyncio.gather(
            self._wire.call("HGETALL", self._owners),
            *(self._wire.call("HGETALL", self._hold_keys + each.decode()) for each in ids),
        )
        beats = _pairs(owners)
        return [
            self._hold(each.decode(), _pairs(fields), beats) for each, fields in zip(ids, found, strict=True) if fields
        ]

    async def counters(self, *, series_prefix: str = "") -> list[Row]:
        names = await self._counter_names(series_prefix)
        rows = []
        for start in range(0, len(names), PAGE):
            some = names[start : start + PAGE]
            found = await asyncio.gather(*(self._wire.call("HMGET", name, "u", "h") for name in some))
            for name, (used, held) in zip(some, found, strict=True):
                series, slot = self._place(name)
                rows.append(Row(series, slot, int(used or 0), int(held or 0), 0.0))
        return await asyncio.to_thread(sorted, rows)

    async def reset(self, series_prefix: str) -> int:
        names = [
            name for name in await self._counter_names(series_prefix) if matches(self._place(name)[0], series_prefix)
        ]
        await asyncio.gather(*(self._wire.call("HDEL", name, "u") for name in names))
        return len(names)

    def record(self, entry: LedgerEntry) -> None:
        output = _measured_output(entry)
        line, key = _line(entry), self._outputs_key(entry)
        written = self._wire.call("XADD", self._ledger, "MAXLEN", "~", self._ledger_lines, "*", "line", line)
        self._writing.add(written)
        written.add_done_callback(lambda done: self._recorded(done, entry))
        if output != "":
            for command in (
                ("LPUSH", key, output),
                ("LTRIM", key, 0, OUTPUTS_KEPT - 1),
                ("EXPIRE", key, OUTPUTS_KEPT_S),
            ):
                # What was learned may be lost; the line is written again.
                self._wire.call(*command).add_done_callback(lambda done: done.exception())

    async def entries(
        self, *, since: float = 0.0, until: float | None = None, key_id: str | None = None, model: str | None = None
    ) -> AsyncIterator[LedgerEntry]:
        after = "-"
        while True:
            page = await self._wire.call("XRANGE", self._ledger, after, "+", "COUNT", PAGE)
            for _, fields in page:
                entry = ledger_entry(orjson.loads(fields[1]))
                if entry.at < since or (until is not None and entry.at >= until):
                    continue
                if (key_id is None or entry.key_id == key_id) and (model is None or entry.model == model):
                    yield entry
            if len(page) < PAGE:
                return
            after = f"({page[-1][0].decode()}"

    async def recent_outputs(self, key_id: str, model: str, *, limit: int) -> list[int]:
        found = await self._wire.call("LRANGE", f"{self._output_keys}{key_id}|{model}", 0, limit - 1)
        return [int(output) for output in found]

    async def latest(self, *, limit: int) -> list[LedgerEntry]:
        lines: list[bytes] = []  # newest first
        before = "+"
        while len(lines) < limit:
            page = await self._wire.call("XREVRANGE", self._ledger, before, "-", "COUNT", min(PAGE, limit - len(lines)))
            lines += [fields[1] for _, fields in page]
            if len(page) < PAGE:
                break
            before = f"({page[-1][0].decode()}"
        # Off the loop: ten thousand lines take longer to read than a request should wait.
        return await asyncio.to_thread(lambda: [ledger_entry(orjson.loads(line)) for line in reversed(lines)])

    async def notes(self, *, after: int = 0) -> list[Note]:
        if int(await self._wire.call("GET", self._revision) or 0) <= after:
            return []
        found = []
        for place, value in _pairs(await self._wire.call("HGETALL", self._notes)).items():
            kind, _, name = place.decode().partition("|")
            revision, _, body = value.partition(b" ")
            found.append(Note(kind, name, int(revision), body))
        return sorted((note for note in found if note.revision > after), key=lambda note: note.revision)

    async def write_note(self, kind: str, name: str, body: bytes, *, replacing: int) -> int | None:
        keys = (self._revision, self._notes)
        revision = await self._wire.run(
            WRITE_NOTE, len(keys), *keys, f"{kind}|{name}", body, replacing, read=lambda answer: int(answer)
        )
        return revision or None

    async def prune(self, *, now: float, ledger_before: float | None) -> None:
        """Counters expire by themselves."""
        beats = _pairs(await self._wire.call("HGETALL", self._owners))
        gone = [owner for owner, beat_at in beats.items() if float(beat_at) < now - OWNERS_KEPT_S]
        if gone:
            await self._wire.call("HDEL", self._owners, *gone)
        while ledger_before is not None:
            page = await self._wire.call("XRANGE", self._ledger, "-", "+", "COUNT", PAGE)
            old = [line_id for line_id, fields in page if orjson.loads(fields[1])[0] < ledger_before]
            if old:
                await self._wire.call("XDEL", self._ledger, *old)
            if len(old) < PAGE:
                return

    async def ping(self) -> None:
        await self._wire.call("PING")

    async def close(self) -> None:
        unwritten, self._unwritten = self._unwritten, []
        for entry in unwritten:
            self.record(entry)
        await self._wire.close()
        if self._unwritten:
            raise StoreLost(f"{len(self._unwritten)} ledger lines could not be written to '{self._address.name}'.")

    def _recorded(self, done: asyncio.Future[Any], entry: LedgerEntry) -> None:
        self._writing.discard(done)
        if done.exception() is not None:
            self._unwritten.append(entry)

    def _outputs_key(self, entry: LedgerEntry | None) -> str:
        return self._output_keys + ("" if entry is None else f"{entry.key_id}|{entry.model}")

    def _hold(self, hold_id: str, fields: dict[bytes, bytes], beats: dict[bytes, bytes]) -> Hold:
        lines = []
        for line in fields[b"lines"].decode().split("\n") if fields[b"lines"] else ():
            key, amount, expires_at = line.split("\t")
            lines.append(HeldLine(*self._place(key.encode()), int(amount), float(expires_at)))
        owner = fields[b"owner"]
        return Hold(
            hold_id,
            owner.decode(),
            float(fields[b"at"]),
            int(fields[b"input"]),
            int(fields[b"output"]),
            int(fields[b"choices"]),
            fields[b"memo"],
            tuple(lines),
            float(beats.get(owner, b"0")),
        )

    async def _counter_names(self, series_prefix: str) -> list[bytes]:
        cursor, found = b"0", set()
        pattern = "".join(f"\\{sign}" if sign in "*?[]^-\\" else sign for sign in self._counter_keys + series_prefix)
        while True:
            cursor, page = await self._wire.call("SCAN", cursor, "MATCH", pattern + "*", "COUNT", PAGE)
            found.update(page)
            if cursor == b"0":
                return sorted(found)

    def _place(self, key: bytes) -> tuple[str, int]:
        series, _, slot = key.decode()[len(self._counter_keys) :].rpartition("@")
        return series, int(slot)


def _outcome(answer: list[int], count: int) -> Granted | Denied:
    if answer[0]:
        states = _states(answer[3 + count :])
        return Granted(tuple(answer[3 : 3 + count]), answer[1], answer[2], states)
    first = 2 + answer[1]
    slots: dict[int, list[tuple[int, int]]] = {}
    rest = answer[first + 2 * count :]
    for place, start, amount in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        slots.setdefault(place, []).append((start, amount))
    refusing = tuple(answer[2:first])
    states = _states(answer[first : first + 2 * count])
    return Denied(refusing, states, {place: tuple(found) for place, found in slots.items()})


def _states(figures: list[int]) -> tuple[State, ...]:
    return tuple([State(used, held) for used, held in zip(figures[::2], figures[1::2], strict=True)])


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _line(entry: LedgerEntry) -> bytes:
    *row, more = ledger_row(entry)
    return orjson.dumps([*row, more.decode()])


def _measured_output(entry: LedgerEntry | None) -> int | str:
    if entry is None or not entry.output_tokens or entry.source not in MEASURED:
        return ""
    return min(entry.output_per_answer, AMOUNT_MOST)
