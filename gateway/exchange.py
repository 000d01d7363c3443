"""What is known so far about one request: filled in on the way, read by the log line, the metrics and the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aiohttp import web

Outcome = Literal[
    "ok", "refused", "rejected", "declined", "upstream_error", "client_left", "cut", "exhausted", "failed"
]  # fmt: skip
"""``rejected`` is the caller's mistake, ``declined`` an upstream's 3xx, 4xx or 5xx, ``upstream_error`` no answer
at all, ``cut`` an answer that broke off, ``exhausted`` one ended here because its budget had nothing left,
``failed`` a fault of ours."""

if TYPE_CHECKING:
    from gateway.formats.base import Call, RequestFormat
    from policies.model import BudgetStatus, Key
    from policies.usage import Usage
    from tokenizers_offline.prompt import TokenCount


@dataclass(slots=True)
class Exchange:
    """One request and its answer. `at` is Unix time; every ``*_s`` is a `time.perf_counter` reading or a duration.

    `plain_count` is the count before anything learned from bills, `count` the one that holds and answers use.
    """

    id: str
    at: float
    started_s: float
    method: str = ""
    path: str = ""
    client: str = ""
    """The address the request came from, as far as proxies are trusted."""
    format: RequestFormat | None = None
    key: Key | None = None
    model: str = ""
    upstream: str = ""
    stream: bool = False
    choices: int = 1
    output_cap: int | None = None
    count: TokenCount | None = None
    plain_count: TokenCount | None = None
    held_input: int = 0
    held_output: int = 0
    usage: Usage | None = None
    statuses: tuple[BudgetStatus, ...] = ()
    degraded: str = ""
    """How the decision was made while the store was lost: the mode, a colon, the store's error."""
    warnings: tuple[str, ...] = ()
    hides_usage: bool = False
    may_cut: bool = False
    """Whether the answer may end before its upstream's does."""
    status: int = 0
    outcome: Outcome = "ok"
    error: str = ""
    refusing: str = ""
    would_refuse: tuple[str, ...] = ()
    """Budgets in ``shadow`` mode that would have refused it."""
    refused_for: str = ""
    refused_limit: str = ""
    counting_s: float = 0.0
    reserving_s: float = 0.0
    first_byte_s: float = 0.0
    relayed_bytes: int = 0

    def take(self, call: Call) -> None:
        """Note what the caller asks."""
        self.model = call.model
        self.stream = call.stream
        self.hides_usage = not call.wants_usage
        self.choices = call.choices
        self.output_cap = call.output_cap

    @property
    def drift(self) -> int | None:
        """Reported less counted input tokens; None where nothing was reported or counted."""
        if self.usage is None or self.usage.source != "reported" or self.count is None:
            return None
        return self.usage.input_tokens - self.count.input_tokens


EXCHANGE = web.RequestKey("exchange", Exchange)
"""Where the middleware leaves a request's exchange."""
