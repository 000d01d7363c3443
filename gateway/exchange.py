"""What is known so far about one request: filled in on the way, read by the log line, the metrics and the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from gateway.formats.base import RequestFormat
    from policies.model import BudgetStatus
    from policies.usage import Usage
    from tokenizers_offline.prompt import TokenCount


@dataclass(slots=True)
class Exchange:
    """One request and its answer. `at` is Unix time; every ``*_s`` is a `time.perf_counter` reading or a duration.

    `outcome` is one word: ``ok``, ``refused``, ``rejected`` (the caller's mistake), ``upstream_error``,
    ``client_left``, ``cut`` (the upstream stopped in mid-answer), ``failed`` (ours).
    """

    id: str
    at: float
    started_s: float
    method: str = ""
    path: str = ""
    format: RequestFormat | None = None
    key_id: str = ""
    model: str = ""
    upstream: str = ""
    stream: bool = False
    count: TokenCount | None = None
    held_input: int = 0
    held_output: int = 0
    usage: Usage | None = None
    statuses: tuple[BudgetStatus, ...] = ()
    degraded: str = ""
    status: int = 0
    outcome: str = "ok"
    error: str = ""
    refusing: str = ""
    counting_s: float = 0.0
    reserving_s: float = 0.0
    first_byte_s: float = 0.0
    relayed_bytes: int = 0


EXCHANGE = web.RequestKey("exchange", Exchange)
"""Where the middleware leaves a request's exchange."""
