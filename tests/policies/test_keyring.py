"""Keys of the store: never with a credential, never over somebody else's change, never over the configuration's."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from policies.keyring import KeptKey, Keyring, KeyringError, kept_keys, merged
from policies.model import Key
from policies.policy import Policy, digest
from policies.stores import open_store
from policies.stores.base import BudgetStore
from tests.policies.conftest import NOON

ALICE = Key("alice", digest("sk-alice"))


async def test_a_kept_key_admits_its_credential(store: BudgetStore) -> None:
    ring = Keyring(store, [ALICE])
    made, credential = await ring.create("carol", tags={"team": "ads"}, expires=NOON + 60, now=NOON)
    policy = Policy(keys=merged([ALICE], (await ring.list()).values()))
    assert policy.key(credential, now=NOON) == made.key == Key("carol", digest(credential), {"team": "ads"}, NOON + 60)
    assert kept_keys(await store.notes()) == {"carol": made}


async def test_only_digests_are_kept(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'keys.db'}")
    ring = Keyring(store, [])
    _, first = await ring.create("carol", tags={}, expires=None, now=NOON)
    _, second = await ring.rotate("carol", now=NOON)
    await store.close()
    written = b"".join(await asyncio.to_thread(lambda: [path.read_bytes() for path in tmp_path.iterdir()]))
    assert digest(second).encode() in written
    assert first.encode() not in written
    assert second.encode() not in written


async def test_changes_are_kept_and_nothing_else_is_lost(store: BudgetStore) -> None:
    ring = Keyring(store, [])
    made, _ = await ring.create("carol", tags={"team": "ads"}, expires=None, now=NOON)
    await ring.disable("carol", disabled=True, now=NOON + 1)
    await ring.expire("carol", at=NOON + 100, now=NOON + 2)
    await ring.retag("carol", {"team": "search"}, now=NOON + 3)
    kept = await ring.find("carol")
    assert kept.key == replace(made.key, disabled=True, expires=NOON + 100, tags={"team": "search"})
    assert (kept.created_at, kept.changed_at) == (NOON, NOON + 3)


async def test_one_of_two_administrators_wins(store: BudgetStore) -> None:
    rings = [Keyring(store, []) for _ in range(5)]
    outcomes = await asyncio.gather(
        *(ring.create("carol", tags={}, expires=None, now=NOON) for ring in rings), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, KeyringError)]
    assert len(refused) == 4
    assert {error.reason for error in refused} <= {"taken", "changed"}


@pytest.mark.parametrize("change", ["rotate", "find"])
async def test_the_configurations_keys_are_not_changed(store: BudgetStore, change: str) -> None:
    ring = Keyring(store, [ALICE])
    with pytest.raises(KeyringError, match="configuration") as refused:
        await (ring.rotate("alice", now=NOON) if change == "rotate" else ring.find("alice"))
    assert refused.value.reason == "configured"


def kept(key: Key, *, created_at: float = NOON) -> KeptKey:
    return KeptKey(key, created_at, created_at, 1)


def test_the_configuration_wins_over_kept_keys() -> None:
    same_id, same_digest = Key("alice", digest("sk-other")), Key("other", ALICE.digest)
    assert merged([ALICE], [kept(same_id), kept(same_digest)]) == (ALICE,)


def test_the_older_of_two_kept_keys_with_one_digest_is_used() -> None:
    old, new = Key("old", digest("sk-x")), Key("new", digest("sk-x"))
    assert merged([], [kept(new, created_at=NOON + 1), kept(old)]) == (old,)
