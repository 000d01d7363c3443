"""Keys made while the gateway runs: kept in the budget store, beside those of the configuration.

The configuration wins: a kept key whose id or digest stands there too is not used.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from policies.model import Key
from policies.policy import digest
from policies.stores.base import BudgetStore, Note

NOTE_KIND = "key"

_CREDENTIAL_BYTES = 32


@dataclass(frozen=True, slots=True)
class KeptKey:
    """A key of the store. `created_at` and `changed_at` are Unix times; `revision` is that of its note (0: not yet
    written)."""

    key: Key
    created_at: float
    changed_at: float
    revision: int = 0


class KeyringError(Exception):
    """A change that cannot be made. `reason`: ``taken``, ``unknown``, ``configured`` (the configuration's own keys
    are changed there), ``changed`` (somebody else was faster)."""

    def __init__(self, reason: Literal["taken", "unknown", "configured", "changed"], message: str) -> None:
        super().__init__(message)
        self.reason = reason


def make_credential() -> str:
    """Make a new credential. It is to be shown once and kept nowhere."""
    return f"sk-{secrets.token_urlsafe(_CREDENTIAL_BYTES)}"


def kept_keys(notes: Iterable[Note]) -> dict[str, KeptKey]:
    """Read notes as keys, by id. Notes of other kinds are passed over."""
    return {note.name: _read(note) for note in notes if note.kind == NOTE_KIND}


def merged(configured: Sequence[Key], kept: Iterable[KeptKey]) -> tuple[Key, ...]:
    """Return the configuration's keys and those kept ones that do not clash with them, or with each other."""
    ids = {key.id for key in configured}
    digests = {key.digest for key in configured}
    found = list(configured)
    for each in sorted(kept, key=lambda each: each.created_at):
        if each.key.id not in ids and each.key.digest not in digests:
            ids.add(each.key.id)
            digests.add(each.key.digest)
            found.append(each.key)
    return tuple(found)


class Keyring:
    """Changes keys in a store. Every change is checked against what the store holds at that moment, so that two
    administrators cannot undo each other unseen. Methods raise `KeyringError` and `StoreLost`."""

    def __init__(self, store: BudgetStore, configured: Sequence[Key]) -> None:
        self._store = store
        self._configured = {key.id for key in configured}

    async def list(self) -> dict[str, KeptKey]:
        """Return the kept keys by id."""
        return kept_keys(await self._store.notes())

    async def find(self, key_id: str) -> KeptKey:
        """Return a kept key."""
        if key_id in self._configured:
            raise KeyringError(
                "configured",
                f"The key '{key_id}' stands in the configuration, which is read-only here: change it there.",
            )
        found = (await self.list()).get(key_id)
        if found is None:
            raise KeyringError("unknown", f"There is no key '{key_id}'; list the keys to see them.")
        return found

    async def create(
        self, key_id: str, *, tags: Mapping[str, str], expires: float | None, now: float
    ) -> tuple[KeptKey, str]:
        """Make a key, and return it with its credential, which is kept nowhere."""
        if key_id in self._configured or key_id in await self.list():
            raise KeyringError("taken", f"There is a key '{key_id}' already: choose another id, or rotate that one.")
        credential = make_credential()
        made = KeptKey(Key(key_id, digest(credential), dict(tags), expires), created_at=now, changed_at=now)
        return await self._write(made), credential

    async def rotate(self, key_id: str, *, now: float) -> tuple[KeptKey, str]:
        """Give a key a new credential, which is returned with it; the old one is refused from now on."""
        known = await self.find(key_id)
        credential = make_credential()
        key = replace(known.key, digest=digest(credential))
        return await self._write(replace(known, key=key, changed_at=now)), credential

    async def disable(self, key_id: str, *, disabled: bool, now: float) -> KeptKey:
        """Refuse a key from now on, or admit it again."""
        known = await self.find(key_id)
        return await self._write(replace(known, key=replace(known.key, disabled=disabled), changed_at=now))

    async def expire(self, key_id: str, *, at: float | None, now: float) -> KeptKey:
        """Say when a key is refused by itself (None: never)."""
        known = await self.find(key_id)
        return await self._write(replace(known, key=replace(known.key, expires=at), changed_at=now))

    async def retag(self, key_id: str, tags: Mapping[str, str], *, now: float) -> KeptKey:
        """Replace a key's tags. What was used under the old ones stays where it was counted."""
        known = await self.find(key_id)
        return await self._write(replace(known, key=replace(known.key, tags=dict(tags)), changed_at=now))

    async def _write(self, kept: KeptKey) -> KeptKey:
        key = kept.key
        body: dict[str, Any] = {
            "digest": key.digest,
            "tags": dict(key.tags),
            "expires": key.expires,
            "disabled": key.disabled,
            "created_at": kept.created_at,
            "changed_at": kept.changed_at,
        }
        revision = await self._store.write_note(NOTE_KIND, key.id, orjson.dumps(body), replacing=kept.revision)
        if revision is None:
            raise KeyringError(
                "changed", f"The key '{key.id}' was changed by somebody else just now: look, and try again."
            )
        return replace(kept, revision=revision)


def _read(note: Note) -> KeptKey:
    body = orjson.loads(note.body)
    key = Key(
        id=note.name,
        digest=body["digest"],
        tags=body["tags"],
        expires=body["expires"],
        disabled=body["disabled"],
    )
    return KeptKey(key, body["created_at"], body["changed_at"], note.revision)
