"""Metrics under the names of OpenTelemetry's semantic conventions for generative AI, as Prometheus writes them.

Token usage is the client's side (what upstreams charged), durations are the server's (what callers waited). Buckets
are the conventions' own. A model or key counts under its name until so many are known as the configuration allows;
further ones count as `OTHER`, so that no caller can make series without end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram

from gateway.tallies import HistogramTally, Tallies

if TYPE_CHECKING:
    from gateway.exchange import Exchange

OTHER = "other"

_Series = tuple[HistogramTally, HistogramTally, HistogramTally, HistogramTally]

_TOKENS = tuple(4**power for power in range(14))
_SECONDS = tuple(0.01 * 2**power for power in range(14))
_OUTPUT_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_FIRST_TOKEN_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_LABELS = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "upstream")

_PROVIDERS = (
    ("openai", "openai"),
    ("anthropic", "anthropic"),
    ("gemini", "gcp.gemini"),
    ("bedrock", "aws.bedrock"),
    ("cohere", "cohere"),
    ("ollama", "ollama"),
)
"""The conventions' name of who speaks an API, by how our formats' names begin."""


class Known:
    """The first so many names; every later one is `OTHER`."""

    __slots__ = ("_most", "_names")

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: set[str] = set()

    def label(self, name: str) -> str:
        """What a name counts under."""
        if name in self._names:
            return name
        if len(self._names) >= self._most:
            return OTHER
        self._names.add(name)
        return name


class GenAiMetrics:
    """How answered LLM requests move the conventions' metrics. With `most_keys` 0 no metric names a key."""

    def __init__(self, registry: CollectorRegistry, tallies: Tallies, *, most_models: int, most_keys: int) -> None:
        self._tallies = tallies
        self._models = Known(most_models)
        self._keys = Known(most_keys) if most_keys else None
        self._found: dict[tuple[str, str, str, str], _Series] = {}
        self._usage = Histogram(
            "gen_ai_client_token_usage", "Input and output tokens of a request, as charged.",
            (*_LABELS, "gen_ai_token_type"), buckets=_TOKENS, registry=registry,
        )  # fmt: skip
        self._duration = Histogram(
            "gen_ai_server_request_duration_seconds", "Time from a request's head to the end of its answer.",
            (*_LABELS, "error_type"), buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._first_token = Histogram(
            "gen_ai_server_time_to_first_token_seconds", "Time from a request's head to the first byte of its answer.",
            _LABELS, buckets=_FIRST_TOKEN_SECONDS, registry=registry,
        )  # fmt: skip
        self._output_token = Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Time for each further token of a streamed answer, after its first byte.",
            _LABELS, buckets=_OUTPUT_TOKEN_SECONDS, registry=registry,
        )  # fmt: skip
        self._key_tokens = Counter(
            "tollgate_key_tokens", "Tokens charged by key; only with `metrics.most_keys` in the configuration.",
            ("key_id", "kind"), registry=registry,
        )  # fmt: skip

    def observe(self, exchange: Exchange, *, duration_s: float) -> None:
        """Count a request that an API's format has read and an upstream was chosen for."""
        fmt, usage = exchange.format, exchange.usage
        if usage is not None and self._keys is not None and exchange.key is not None:
            key_id = self._keys.label(exchange.key.id)
            self._key_tokens.labels(key_id, "input").inc(usage.input_tokens)
            self._key_tokens.labels(key_id, "output").inc(usage.output_tokens)
        if fmt is None or not exchange.upstream or not exchange.model:
            return
        labels = (_operation(fmt.name, exchange.path), provider(fmt.name))
        failed = exchange.outcome != "ok"
        if usage is None:
            if failed:  # else a provider's own count, which no model answers
                # A name that no upstream has answered for takes no place among the known ones.
                at = (*labels, OTHER, exchange.upstream, _error_type(exchange))
                self._duration.labels(*at).observe(duration_s)
            return
        known = (*labels, self._models.label(exchange.model), exchange.upstream)
        duration, first_token, input_tokens, output_tokens = self._series(known)
        if failed:
            self._duration.labels(*known, _error_type(exchange)).observe(duration_s)
        else:
            duration.observe(duration_s)
        input_tokens.observe(usage.input_tokens)
        output_tokens.observe(usage.output_tokens)
        if exchange.relayed_bytes:
            first_token.observe(exchange.first_byte_s)
            if exchange.stream and not failed and usage.output_tokens > 1:
                further_s = duration_s - exchange.first_byte_s
                self._output_token.labels(*known).observe(further_s / (usage.output_tokens - 1))

    def _series(self, labels: tuple[str, str, str, str]) -> _Series:
        """Duration without an error, first token, input and output of one set of labels, looked up once."""
        found = self._found.get(labels)
        if found is None:
            tally = self._tallies.histogram
            found = self._found[labels] = (
                tally(self._duration.labels(*labels, "")),
                tally(self._first_token.labels(*labels)),
                tally(self._usage.labels(*labels, "input")),
                tally(self._usage.labels(*labels, "output")),
            )
        return found


def provider(format_name: str) -> str:
    """The conventions' name of the provider whose API a format is."""
    return next((name for start, name in _PROVIDERS if format_name.startswith(start)), format_name)


def _error_type(exchange: Exchange) -> str:
    """A word of ours: an error's code, or the outcome where what went wrong is told in a sentence."""
    word = exchange.error or ""
    return word if word.isidentifier() else exchange.outcome


def _operation(format_name: str, path: str) -> str:
    if "embed" in path.lower():
        return "embeddings"
    if format_name == "gemini":
        return "generate_content"
    return "text_completion" if format_name == "openai_completions" else "chat"
