"""Following what operators change at run time: keys kept in the store, and what is to be forgotten of bills."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import orjson
import structlog

from policies.keyring import KeptKey, kept_keys, merged

if TYPE_CHECKING:
    from gateway.runtime import RuntimeHolder
    from policies.stores.base import BudgetStore, Note

_log = structlog.get_logger("operator")

_FORGET = "forget"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What bills taught until `at` about an upstream, a model, both, or ("" twice) everything, is not to be used."""

    upstream: str
    model: str
    at: float

    def covers(self, *, upstream: str, model: str, at: float) -> bool:
        """Whether a bill of that moment is among it."""
        return at <= self.at and self.upstream in ("", upstream) and self.model in ("", model)


class OperatorNotes:
    """Reads the store's notes when there are new ones, and swaps the runtime for one that heeds them.

    Workers look several times a second, so that a change reaches all of them within one; no request waits for it.
    """

    def __init__(self, holder: RuntimeHolder) -> None:
        self._holder = holder
        self._revision = 0
        self._kept: dict[str, KeptKey] = {}
        self.forgotten: list[Forgotten] = []

    async def look(self) -> None:
        """Heed what is new. Raises `StoreLost`."""
        runtime = self._holder.current
        notes = await runtime.engine.store.notes(after=self._revision)
        if not notes and runtime.keys_known:
            return
        self._revision = max((note.revision for note in notes), default=self._revision)
        for note in notes:
            if note.kind == _FORGET:
                self._forget(note)
        changed = kept_keys(notes)
        if changed or not self._holder.current.keys_known:
            self._kept = {**self._kept, **changed}
            self._swap()
            if changed:
                _log.info("keys_changed", count=len(changed), known=len(self._holder.current.policy.keys))

    def _swap(self) -> None:
        runtime = self._holder.current
        configured = runtime.settings.policy
        policy = replace(configured, keys=merged(configured.keys, self._kept.values()))
        self._holder.current = replace(
            runtime, policy=policy, engine=runtime.engine.with_policy(policy), kept=self._kept, keys_known=True
        )

    def _forget(self, note: Note) -> None:
        forgotten = Forgotten(**orjson.loads(note.body))
        self.forgotten = [
            each for each in self.forgotten if (each.upstream, each.model) != (forgotten.upstream, forgotten.model)
        ] + [forgotten]
        learner = self._holder.current.counting.learner
        learner.reset(upstream=forgotten.upstream or None, model=forgotten.model or None)


def forgotten_in(notes: Iterable[Note]) -> list[Forgotten]:
    """What notes say is not to be used of bills."""
    return [Forgotten(**orjson.loads(note.body)) for note in notes if note.kind == _FORGET]


async def forget(store: BudgetStore, *, upstream: str, model: str, now: float) -> None:
    """Have every worker forget what bills taught until now, and not relearn it from the ledger."""
    name = f"{upstream}|{model}"
    body = orjson.dumps({"upstream": upstream, "model": model, "at": now})
    written = None
    while written is None:  # somebody else asks for the same at the same moment
        known = [note.revision for note in await store.notes() if (note.kind, note.name) == (_FORGET, name)]
        written = await store.write_note(_FORGET, name, body, replacing=max(known, default=0))
