"""The gateway's Prometheus metrics: names, labels and how one request moves them.

Labels never hold what a caller may invent without end: a model counts under its catalog family, and in
`gateway.genai_metrics` under its own name while there are not too many.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.genai_metrics import GenAiMetrics

if TYPE_CHECKING:
    from gateway.exchange import Exchange

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_COUNTING_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5)
_DRIFT_TOKENS = (-1000, -100, -20, -5, -1, 0, 1, 5, 20, 100, 1000)


class Metrics:
    """One worker's metrics. `registry` is private to the application, so that several may live in one process.

    `most_models` and `most_keys` bound how many names labels hold.
    """

    def __init__(self, *, most_models: int = 100, most_keys: int = 0) -> None:
        registry = self.registry = CollectorRegistry()
        self._genai = GenAiMetrics(registry, most_models=most_models, most_keys=most_keys)
        self._requests = Counter(
            "tollgate_requests",
            "Requests answered.",
            ("format", "upstream", "status", "outcome"),
            registry=registry,
        )
        self._seconds = Histogram(
            "tollgate_request_seconds", "Time from a request's head to the end of its answer.", ("format",),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._first_byte = Histogram(
            "tollgate_first_byte_seconds", "Time from a request's head to the answer's first byte.", ("format",),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._counting = Histogram(
            "tollgate_counting_seconds", "Time to count one prompt.", buckets=_COUNTING_SECONDS, registry=registry
        )
        self._tokens = Counter(
            "tollgate_tokens",
            "Tokens charged, by kind (input, output, cached, reasoning) and by where the figure is from.",
            ("kind", "source", "upstream", "family"),
            registry=registry,
        )
        self._drift = Histogram(
            "tollgate_count_drift_tokens", "Reported minus counted input tokens.", ("upstream", "family"),
            buckets=_DRIFT_TOKENS, registry=registry,
        )  # fmt: skip
        self._refusals = Counter("tollgate_refusals", "Requests that a budget refused.", ("budget",), registry=registry)
        self._shadow_refusals = Counter(
            "tollgate_shadow_refusals", "Admitted requests that a budget in shadow mode would have refused.",
            ("budget",), registry=registry,
        )  # fmt: skip
        self._degraded = Counter(
            "tollgate_degraded_decisions", "Decisions made without the store.", ("mode",), registry=registry
        )
        self.config_reloads = Counter(
            "tollgate_config_reloads", "Configurations put in force by a worker while it runs.", registry=registry
        )
        self.config_failures = Counter(
            "tollgate_config_reload_failures",
            "Configurations that a worker read while it runs, and that cannot be used.",
            registry=registry,
        )
        self.budget_notices = Counter(
            "tollgate_budget_notices", "Thresholds passed and budgets exhausted, once a window.", ("kind", "budget"),
            registry=registry,
        )  # fmt: skip
        self.webhook_deliveries = Counter(
            "tollgate_webhook_deliveries", "Notices for the webhook: delivered, failed for good, or dropped.",
            ("result",), registry=registry,
        )  # fmt: skip
        self.store_up = Gauge(
            "tollgate_store_up", "1 while the budget store answers, as the latest scraped worker found it, else 0.",
            registry=registry, multiprocess_mode="mostrecent",
        )  # fmt: skip
        self.store_up.set(1)
        self.active = Gauge(
            "tollgate_active_requests", "Requests being answered.", registry=registry, multiprocess_mode="livesum"
        )

    def observe(self, exchange: Exchange, *, family: str, duration_s: float) -> None:
        """Count one finished request."""
        name = exchange.format.name if exchange.format is not None else "none"
        self._requests.labels(name, exchange.upstream, str(exchange.status), exchange.outcome).inc()
        self._seconds.labels(name).observe(duration_s)
        if exchange.relayed_bytes:
            self._first_byte.labels(name).observe(exchange.first_byte_s)
        if exchange.counting_s:
            self._counting.observe(exchange.counting_s)
        if exchange.refusing:
            self._refusals.labels(exchange.refusing).inc()
        for budget in exchange.would_refuse:
            self._shadow_refusals.labels(budget).inc()
        if exchange.degraded:
            self._degraded.labels(exchange.degraded.partition(":")[0]).inc()
        self._genai.observe(exchange, duration_s=duration_s)
        usage = exchange.usage
        if usage is None:
            return
        self._tokens.labels("input", usage.source, exchange.upstream, family).inc(usage.input_tokens)
        self._tokens.labels("output", usage.source, exchange.upstream, family).inc(usage.output_tokens)
        if usage.cached_tokens:
            self._tokens.labels("cached", usage.source, exchange.upstream, family).inc(usage.cached_tokens)
        if usage.reasoning_tokens:
            self._tokens.labels("reasoning", usage.source, exchange.upstream, family).inc(usage.reasoning_tokens)
        if exchange.drift is not None:
            self._drift.labels(exchange.upstream, family).observe(exchange.drift)

    def render(self) -> bytes:
        """The exposition text; of all workers when they share ``PROMETHEUS_MULTIPROC_DIR``."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return generate_latest(shared)
