"""Where budgets are kept: memory, one SQLite file, or Redis, behind one protocol."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from policies.stores.base import BudgetStore
from policies.stores.memory import MemoryStore
from policies.stores.sqlite import SqliteStore


def open_store(url: str, *, server_time: bool = True, ledger_lines: int = 1_000_000) -> BudgetStore:
    """Return the store of a URL: ``memory:``, ``sqlite:///relative.db``, ``sqlite:////absolute.db``,
    ``redis://``, ``rediss://`` (TLS), ``unix://``, ``redis+sentinel://host,host/service``, or ``valkey://``.

    Nothing is opened or connected yet; `BudgetStore.ping` proves that it can be. Open it in the process that uses
    it, after forking. `server_time` lets Redis's clock, which replicas share, decide where windows begin;
    `ledger_lines` caps the ledger where the store keeps it in memory. Raises ValueError for a URL it cannot read.
    """
    scheme, separator, rest = url.partition(":")
    match scheme:
        case "memory" if separator:
            return MemoryStore(ledger_lines=min(ledger_lines, 100_000))
        case "sqlite" if rest.startswith("///") and len(rest) > len("///"):
            return SqliteStore(Path(unquote(urlsplit(url).path[1:])))
        case _ if rest.startswith("//"):
            # Late: the client takes a tenth of a second to import, and most gateways have no use for it.
            from policies.stores.redis import RedisStore
            from policies.stores.redis_address import SCHEMES

            if scheme in SCHEMES:
                return RedisStore(url, server_time=server_time, ledger_lines=ledger_lines)
    raise ValueError(
        f"store.url '{url}' is not one this gateway reads: use memory:, sqlite:///tollgate.db, redis://host:6379/0, "
        "rediss://... or redis+sentinel://host:26379/service"
    )


__all__ = ["BudgetStore", "open_store"]
