"""The gateway's Prometheus metrics: names, labels and how one request moves them.

Labels never hold what a caller may invent without end: a model counts under its catalog family, and in
`gateway.genai_metrics` under its own name while there are not too many.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.genai_metrics import GenAiMetrics
from gateway.tallies import CounterTally, HistogramTally, Tallies

if TYPE_CHECKING:
    from gateway.exchange import Exchange

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter, that nobody asks for

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_COUNTING_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5)
_DRIFT_TOKENS = (-1000, -100, -20, -5, -1, 0, 1, 5, 20, 100, 1000)


_Charged = tuple[CounterTally, CounterTally, HistogramTally, CounterTally, CounterTally]
"""Input and output tokens, drift, and what was miscounted by more and by less."""


class Metrics:
    """One worker's metrics. `registry` is private to the application, so that several may live in one process.

    `most_models` and `most_keys` bound how many names labels hold.
    """

    def __init__(self, *, most_models: int = 100, most_keys: int = 0) -> None:
        registry = self.registry = CollectorRegistry()
        self.tallies = Tallies()
        self._genai = GenAiMetrics(registry, self.tallies, most_models=most_models, most_keys=most_keys)
        self._found: dict[tuple[str, str, int, str], CounterTally] = {}
        self._times: dict[str, tuple[HistogramTally, HistogramTally]] = {}
        self._charged: dict[tuple[str, str, str], _Charged] = {}
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
        counting = Histogram(
            "tollgate_counting_seconds", "Time to count one prompt.", buckets=_COUNTING_SECONDS, registry=registry
        )
        self._counted = self.tallies.histogram(counting)
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
        # A histogram of signed values has no sum in Prometheus's text: sums must never fall.
        self._miscounted = Counter(
            "tollgate_miscounted_tokens",
            "Input tokens by which providers reported more, or less, than was counted.",
            ("direction", "upstream", "family"),
            registry=registry,
        )
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
        self.config_usable = Gauge(
            "tollgate_config_last_reload_successful",
            "1 while every worker can use the configuration file as it stands, else 0.",
            registry=registry, multiprocess_mode="livemin",
        )  # fmt: skip
        self._config_loaded = Gauge(
            "tollgate_config_last_reload_success_timestamp_seconds",
            "When the configuration was last read and could be used, by the worker that did so longest ago.",
            registry=registry, multiprocess_mode="livemin",
        )  # fmt: skip
        self._config_hash = Gauge(
            "tollgate_config_hash",
            "The version of the configuration in force (see /health) as a number, worker by worker.",
            registry=registry, multiprocess_mode="liveall",
        )  # fmt: skip
        self.budget_notices = Counter(
            "tollgate_budget_notices", "Thresholds passed and budgets exhausted, once a window.", ("kind", "budget"),
            registry=registry,
        )  # fmt: skip
        self.webhook_deliveries = Counter(
            "tollgate_webhook_deliveries", "Notices for the webhook: delivered, failed for good, or dropped.",
            ("result",), registry=registry,
        )  # fmt: skip
        self.open_connections = Gauge(
            "tollgate_open_connections", "Callers' connections.", registry=registry, multiprocess_mode="livesum"
        )
        self.connections_ended = Counter(
            "tollgate_connections_ended",
            "Connections ended by a limit: refused (no room), header_timeout, body_timeout, idle_timeout.",
            ("reason",),
            registry=registry,
        )
        self.overloads = Counter(
            "tollgate_overloads", "Requests refused because too many were being answered.", registry=registry
        )
        self.store_up = Gauge(
            "tollgate_store_up", "1 while the budget store answers, as the latest scraped worker found it, else 0.",
            registry=registry, multiprocess_mode="mostrecent",
        )  # fmt: skip
        self.store_up.set(1)
        self.active = Gauge(
            "tollgate_active_requests", "Requests being answered.", registry=registry, multiprocess_mode="livesum"
        )

    def tell_config(self, version: str, *, at: float) -> None:
        """Say that the configuration of this version was read at that time, and is in force."""
        self.config_usable.set(1)
        self._config_loaded.set(at)
        self._config_hash.set(int(version, 16) if version else 0)

    def observe(self, exchange: Exchange, *, family: str, duration_s: float) -> None:
        """Count one finished request."""
        name = exchange.format.name if exchange.format is not None else "none"
        # Looking a series up by its labels costs more than counting: the usual ones are looked up once.
        answered = (name, exchange.upstream, exchange.status, exchange.outcome)
        requests = self._found.get(answered)
        if requests is None:
            requests = self._found[answered] = self.tallies.counter(
                self._requests.labels(name, exchange.upstream, str(exchange.status), exchange.outcome)
            )
        requests.inc()
        times = self._times.get(name)
        if times is None:
            times = self._times[name] = (
                self.tallies.histogram(self._seconds.labels(name)),
                self.tallies.histogram(self._first_byte.labels(name)),
            )
        times[0].observe(duration_s)
        if exchange.relayed_bytes:
            times[1].observe(exchange.first_byte_s)
        if exchange.counting_s:
            self._counted.observe(exchange.counting_s)
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
        charged = (usage.source, exchange.upstream, family)
        series = self._charged.get(charged)
        if series is None:
            series = self._charged[charged] = (
                self.tallies.counter(self._tokens.labels("input", *charged)),
                self.tallies.counter(self._tokens.labels("output", *charged)),
                self.tallies.histogram(self._drift.labels(exchange.upstream, family)),
                self.tallies.counter(self._miscounted.labels("more", exchange.upstream, family)),
                self.tallies.counter(self._miscounted.labels("less", exchange.upstream, family)),
            )
        series[0].inc(usage.input_tokens)
        series[1].inc(usage.output_tokens)
        if usage.cached_tokens:
            self._tokens.labels("cached", *charged).inc(usage.cached_tokens)
        if usage.reasoning_tokens:
            self._tokens.labels("reasoning", *charged).inc(usage.reasoning_tokens)
        if exchange.drift is not None:
            series[2].observe(exchange.drift)
            series[3].inc(max(0, exchange.drift))
            series[4].inc(max(0, -exchange.drift))

    def render(self) -> bytes:
        """The exposition text; of all workers when they share ``PROMETHEUS_MULTIPROC_DIR``."""
        self.tallies.tell()
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return generate_latest(shared)
