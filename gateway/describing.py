"""Keys, holds and usage as the admin API and the command line show them. Digests are cut short; credentials are not
known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.refusals import write_time
from policies.keyring import KeptKey
from policies.ledger import UsageRow
from policies.model import Key
from policies.operating import OpenHold

DIGEST_SHOWN = len("sha256:") + 8
"""So much of a digest tells keys apart and helps nobody to find a weak credential."""


def describe_key(key: Key, *, kept: KeptKey | None, now: float) -> dict[str, Any]:
    """A key; `kept` is what the store says of it, None for one of the configuration."""
    return {
        "id": key.id,
        "source": "config" if kept is None else "store",
        "status": key_status(key, now=now),
        "tags": dict(key.tags),
        "expires": write_time(key.expires),
        "digest": key.digest[:DIGEST_SHOWN] + "...",
        "created_at": write_time(kept.created_at) if kept is not None else None,
        "changed_at": write_time(kept.changed_at) if kept is not None else None,
    }


def key_status(key: Key, *, now: float) -> str:
    """``disabled``, ``expired`` or ``active``."""
    if key.disabled:
        return "disabled"
    return "expired" if key.expires is not None and now >= key.expires else "active"


def audited_key(key: Key) -> dict[str, Any]:
    """What the audit log says of a key."""
    return {"tags": dict(key.tags), "expires": write_time(key.expires), "disabled": key.disabled}


def describe_hold(hold: OpenHold) -> dict[str, Any]:
    """An open hold; its charges by counter."""
    reservation = hold.reservation
    subject = reservation.subject
    return {
        "id": reservation.id,
        "key_id": subject.key_id,
        "model": subject.model,
        "upstream": subject.upstream,
        "input_tokens": reservation.held_input,
        "output_tokens": reservation.held_output,
        "age_s": round(hold.age_s, 3),
        "held_at": write_time(reservation.held_at),
        "owner": hold.owner,
        "owner_seen_s": round(hold.owner_seen_s, 3) if hold.owner_seen_s is not None else None,
        "charges": [{"counter": charge.counter, "amount": charge.amount} for charge in reservation.charges],
    }


def describe_usage(rows: Sequence[UsageRow], *, by: Sequence[str]) -> list[dict[str, Any]]:
    """Usage by what it was grouped by."""
    return [
        {
            **dict(zip(by, row.group, strict=True)),
            "requests": row.requests,
            "refused": row.refused,
            "would_refuse": row.would_refuse,
            "abandoned": row.abandoned,
            "input_tokens": row.input_tokens,
            "output_tokens": row.output_tokens,
            "cached_tokens": row.cached_tokens,
            "reasoning_tokens": row.reasoning_tokens,
            "tokens": row.tokens,
        }
        for row in rows
    ]


def total_usage(rows: Sequence[UsageRow]) -> UsageRow:
    """The sum of all rows."""
    sums = [sum(figures) for figures in zip(*(row[1:] for row in map(_figures, rows)), strict=True)] or [0] * 8
    return UsageRow((), *sums)


def _figures(row: UsageRow) -> tuple[Any, ...]:
    return (
        row.group,
        row.requests,
        row.refused,
        row.abandoned,
        row.input_tokens,
        row.output_tokens,
        row.cached_tokens,
        row.reasoning_tokens,
        row.would_refuse,
    )
