"""Ledger lines as rows of a table, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from policies.ledger import LedgerEntry

COLUMNS = (
    "at, request_id, key_id, model, upstream, outcome, source, input_tokens, output_tokens, cached_tokens, "
    "reasoning_tokens, counted_tokens, accuracy, choices, more"
)
"""What is asked for by name; the rest of a line is JSON in `more`."""

LedgerRow = tuple[Any, ...]

_INTEGER_MOST = 2**63 - 1


def ledger_row(entry: LedgerEntry) -> LedgerRow:
    """Return a line as a row of `COLUMNS`."""
    more: dict[str, Any] = {
        "tags": dict(entry.tags),
        "held": [entry.held_input, entry.held_output],
        "output_cap": entry.output_cap,
        "stream": entry.stream,
        "endpoint": entry.endpoint,
        "refused_by": entry.refused_by,
        "seconds": [entry.latency_s, entry.first_byte_s],
        "features": entry.features,
        "plain": entry.plain_tokens,
    }
    if entry.would_refuse:
        more["would_refuse"] = entry.would_refuse
    if entry.refused_input:
        more["refused_input"] = entry.refused_input
    if entry.refused_for:
        more["refused_for"] = [entry.refused_for, entry.refused_limit]
    return (
        entry.at,
        entry.request_id,
        entry.key_id,
        entry.model,
        entry.upstream,
        entry.outcome,
        entry.source,
        min(entry.input_tokens, _INTEGER_MOST),
        min(entry.output_tokens, _INTEGER_MOST),
        min(entry.cached_tokens, _INTEGER_MOST),
        min(entry.reasoning_tokens, _INTEGER_MOST),
        min(entry.counted_tokens, _INTEGER_MOST),
        entry.accuracy,
        min(entry.choices, _INTEGER_MOST),
        orjson.dumps(more),
    )


def ledger_entry(row: Sequence[Any]) -> LedgerEntry:
    """Return the line of a row that begins with `COLUMNS`."""
    more = orjson.loads(row[14])
    refused_for, refused_limit = more.get("refused_for", ("", ""))
    return LedgerEntry(
        at=row[0],
        request_id=row[1],
        key_id=row[2],
        model=row[3],
        upstream=row[4],
        outcome=row[5],
        source=row[6],
        input_tokens=row[7],
        output_tokens=row[8],
        cached_tokens=row[9],
        reasoning_tokens=row[10],
        counted_tokens=row[11],
        accuracy=row[12],
        choices=row[13],
        tags=more["tags"],
        held_input=more["held"][0],
        held_output=more["held"][1],
        output_cap=more["output_cap"],
        stream=more["stream"],
        endpoint=more["endpoint"],
        refused_by=more["refused_by"],
        latency_s=more["seconds"][0],
        first_byte_s=more["seconds"][1],
        features=tuple(more["features"]),
        plain_tokens=more.get("plain", 0),  # lines of earlier versions have none
        would_refuse=tuple(more.get("would_refuse", ())),
        refused_input=more.get("refused_input", 0),
        refused_for=refused_for,
        refused_limit=refused_limit,
    )
