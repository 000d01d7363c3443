"""The settings of one running gateway: typed, frozen, made once from config.yaml by `gateway.config`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from policies.policy import Policy

Unmatched = Literal["pass", "refuse"]


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Certificate and key files (PEM) for serving HTTPS."""

    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the gateway listens. `workers` 0 means one per core ("auto" in YAML); `trusted_proxies` are CIDR blocks;
    `max_connections` and `max_concurrent_requests` are of all workers together."""

    host: str = "0.0.0.0"  # noqa: S104 - a sidecar serves its pod
    port: int = 8000
    workers: int = 1
    max_body_bytes: int = 32 * 1024 * 1024
    unmatched: Unmatched = "pass"
    on_disconnect: Literal["cancel", "drain"] = "cancel"
    trusted_proxies: tuple[str, ...] = ()
    tls: TlsSettings | None = None
    shutdown_timeout_s: float = 30.0
    max_connections: int = 10_000
    max_concurrent_requests: int = 5_000
    header_timeout_s: float = 15.0
    body_timeout_s: float = 120.0
    keepalive_timeout_s: float = 75.0
    log_level: str = "INFO"
    log_format: Literal["json", "console", "auto"] = "auto"

    @property
    def processes(self) -> int:
        """How many workers there are."""
        return self.workers or os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where budgets are kept: ``memory:``, ``sqlite:///path``, ``redis://...``. `replicas` divides limits
    when `on_error` is ``divide``."""

    url: str = field(default="sqlite:///tollgate.db", repr=False)  # it may hold a password
    on_error: Literal["refuse", "allow", "divide"] = "refuse"
    replicas: int = 1
    hold_timeout_s: float = 600.0
    retention_days: float = 30.0


@dataclass(frozen=True, slots=True)
class ModelOverride:
    """A model name of the operator's own: an encoding and layout, or another name to count it as (`like`)."""

    like: str | None = None
    encoding: str | None = None
    layout: str | None = None
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class TokenizerSettings:
    """Where tokenizers are stored and what an unknown model gets (``refuse``: 404; ``estimate``: labelled bound)."""

    dir: Path = Path("models")
    preload: tuple[str, ...] = ()
    unknown_model: Literal["refuse", "estimate"] = "refuse"
    models: Mapping[str, ModelOverride] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """One place requests are forwarded to.

    `url` is the base that the caller's path is appended to, or ``echo:``. `models` are glob patterns, first match
    over all upstreams wins; `formats` empty means every format. `prefix` is a path prefix that selects this upstream
    and is cut before forwarding. `deployments` maps a deployment name (Azure) to the model it serves.
    `platform` names who serves the model where that changes the count; "" is derived from the URL's host.
    `overheads` are hidden host prompts in tokens by model pattern.
    """

    name: str
    url: str
    api_key: str | None = field(default=None, repr=False)
    models: tuple[str, ...] = ("*",)
    formats: tuple[str, ...] = ()
    prefix: str = ""
    deployments: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""
    connect_timeout_s: float = 10.0
    timeout_s: float = 600.0
    idle_timeout_s: float = 300.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    overheads: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """Who may use /admin and /dashboard: the digest of the admin key. None closes both."""

    digest: str | None = None


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """How many models and keys metrics tell apart; with 0 keys no metric names one."""

    most_models: int = 100
    most_keys: int = 0


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Where notices are posted, and what they are signed with."""

    url: str = field(repr=False)
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything config.yaml says, after environment and command line. `version` is how the sha256 of the file it was
    read from begins."""

    policy: Policy
    server: ServerSettings = ServerSettings()
    store: StoreSettings = StoreSettings()
    tokenizers: TokenizerSettings = TokenizerSettings()
    upstreams: tuple[UpstreamSettings, ...] = ()
    metrics: MetricsSettings = MetricsSettings()
    webhook: WebhookSettings | None = None
    admin: AdminSettings = AdminSettings()
    source: Path | None = None
    version: str = ""
