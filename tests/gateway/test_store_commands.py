"""Commands on the budget store: keys that running gateways heed, reports of what was used."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from policies.ledger import LedgerEntry
from policies.policy import digest
from policies.stores import open_store
from tests.gateway.test_cli import Run, run

__all__ = ["run"]

AT = 1_790_000_000.0


def record(path: Path, *lines: LedgerEntry) -> None:
    async def write() -> None:
        store = open_store(f"sqlite:///{path}")
        for line in lines:
            store.record(line)
        await store.close()

    asyncio.run(write())


def line(key_id: str, model: str, tokens: int, *, at: float = AT, **more: Any) -> LedgerEntry:
    return LedgerEntry("q", at, key_id, model, "up", "ok", input_tokens=tokens, source="reported", **more)


def listed(run: Run) -> dict[str, Any]:
    rows = run("keys", "list", "--json").json()
    assert isinstance(rows, list)
    return {row["id"]: row for row in rows}


def test_a_key_is_made_in_the_store_and_shown_once(run: Run) -> None:
    made = run("keys", "create", "carol", "--tag", "team=ads", "--tag", "env=try", "--expires", "2100-01-01")
    credential = made.out.strip()
    assert (made.code, credential[:3]) == (0, "sk-")
    row = listed(run)["carol"]
    assert (row["source"], row["tags"], row["digest"]) == ("store", {"team": "ads", "env": "try"}, digest(credential))
    assert row["expires"] == "2100-01-01T00:00:00Z"
    assert listed(run)["alice"]["source"] == "config"
    assert "carol" in run("status").out


def test_a_key_of_the_store_is_changed(run: Run) -> None:
    first = run("keys", "create", "carol", "--json").json()
    second = run("keys", "rotate", "carol", "--json").json()
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert listed(run)["carol"]["digest"] == digest(second["key"]) != digest(first["key"])
    assert run("keys", "disable", "carol").out == "carol: disabled\n"
    assert listed(run)["carol"]["disabled"] is True
    assert run("keys", "enable", "carol").out == "carol: active\n"
    assert run("keys", "expire", "carol", "--at", "2100-01-01").out == "carol: active, expires 2100-01-01T00:00:00Z\n"
    assert run("keys", "expire", "carol").out.startswith("carol: expired")
    assert run("keys", "expire", "carol", "--never", "--json").json()["expires"] is None  # type: ignore[index]


def test_a_change_is_audited_on_standard_error_without_the_credential(run: Run) -> None:
    made = run("keys", "create", "carol")
    assert "key_created" in made.err
    assert made.out.strip() not in made.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("create", "alice"), "already"),
        (("create", "no spaces"), "not a name"),
        (("create", "carol", "--tag", "team"), "no tag"),
        (("create", "carol", "--expires", "someday"), "no moment"),
        (("rotate", "alice"), "configuration"),
        (("disable", "nobody"), "no key 'nobody'"),
        (("expire", "nobody", "--at", "1h", "--never"), "exclude"),
    ],
)
def test_a_wrong_change_is_refused_in_words(run: Run, arguments: tuple[str, ...], says: str) -> None:
    refused = run("keys", *arguments)
    assert (refused.code, says in refused.err, refused.out) == (1, True, "")


def test_keys_in_memory_are_the_gateways_own(run: Run) -> None:
    refused = run("keys", "create", "carol", "--store", "memory:")
    assert (refused.code, "/admin/keys" in refused.err) == (3, True)
    assert run("keys", "list", "--store", "memory:").code == 0


def test_usage_sums_the_ledger(run: Run, tmp_path: Path) -> None:
    record(
        tmp_path / "budgets.db",
        line("alice", "gpt-4o", 10, tags={"team": "search"}),
        line("alice", "qwen3", 5, at=AT + 86_400, tags={"team": "search"}),
        line("bob", "gpt-4o", 1),
    )
    found = run("usage", "--since", "2026-01-01", "--json").json()
    assert isinstance(found, dict)
    assert [(row["key"], row["requests"], row["tokens"]) for row in found["data"]] == [("alice", 2, 15), ("bob", 1, 1)]
    assert found["total"]["tokens"] == 16
    found = run("usage", "--since", "2026-01-01", "--by", "day,model", "--key", "alice", "--json").json()
    assert isinstance(found, dict)
    assert {(row["day"], row["model"], row["tokens"]) for row in found["data"]} == {
        ("2026-09-21", "gpt-4o", 10),
        ("2026-09-22", "qwen3", 5),
    }
    table = run("usage", "--since", "2026-01-01", "--by", "team").out
    assert "search" in table
    assert "total" in table
    assert "no request" in run("usage", "--since", "2100-01-01").out


def test_a_wrong_report_is_refused_in_words(run: Run) -> None:
    assert (run("usage", "--since", "someday").code, run("usage", "--by", ",").code) == (1, 1)
    assert run("usage", "--store", "memory:").code == 3
