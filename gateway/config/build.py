"""A validated file as the gateway's settings: names resolved, sections turned into frozen objects."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import cast
from zoneinfo import ZoneInfo

from gateway.config.schema import UNITS, BudgetSection, ConfigFile, KeySection, LimitSection, UpstreamSection
from gateway.settings import (
    AdminSettings,
    MetricsSettings,
    ModelOverride,
    ServerSettings,
    Settings,
    StoreSettings,
    TlsSettings,
    TokenizerSettings,
    UpstreamSettings,
    WebhookSettings,
)
from policies.model import Budget, Key, Limit, Match, OutputHold, Weights
from policies.policy import Policy

_SECONDS_PER_DAY = 86_400


def build_settings(config: ConfigFile, *, source: Path, version: str = "") -> Settings:
    """Build the settings of a checked file."""
    return Settings(
        policy=Policy(
            keys=tuple(_key(key, config.time_zone) for key in config.keys),
            budgets=tuple(_budget(budget) for budget in config.budgets),
            time_zone=config.time_zone,
            output_hold=cast(OutputHold, config.output_hold),
            output_hold_floor=config.output_hold_floor,
            clamp_most=config.clamp_most,
            on_exhausted=config.server.on_exhausted,
        ),
        server=_server(config),
        store=StoreSettings(
            url=config.store.url,
            on_error=config.store.on_error,
            replicas=config.store.replicas or 1,
            hold_timeout_s=config.store.hold_timeout,
            retention_days=config.store.retention / _SECONDS_PER_DAY,
        ),
        tokenizers=TokenizerSettings(
            dir=Path(config.tokenizers.dir),
            preload=config.tokenizers.preload,
            unknown_model=config.tokenizers.unknown_model,
            models=MappingProxyType(
                {
                    name: ModelOverride(
                        like=model.like,
                        encoding=model.encoding,
                        layout=model.layout,
                        max_output_tokens=model.max_output_tokens,
                    )
                    for name, model in config.tokenizers.models.items()
                }
            ),
        ),
        upstreams=tuple(_upstream(upstream) for upstream in config.upstreams),
        metrics=MetricsSettings(most_models=config.metrics.most_models, most_keys=config.metrics.most_keys),
        webhook=WebhookSettings(url=config.webhook.url, secret=config.webhook.secret) if config.webhook else None,
        admin=AdminSettings(digest=config.admin.digest),
        source=source,
        version=version,
    )


def _server(config: ConfigFile) -> ServerSettings:
    server = config.server
    return ServerSettings(
        host=server.host,
        port=server.port,
        workers=server.workers,
        max_body_bytes=server.max_body,
        unmatched=server.unmatched,
        on_disconnect=server.on_disconnect,
        trusted_proxies=server.trusted_proxies,
        tls=TlsSettings(cert=Path(server.tls.cert), key=Path(server.tls.key)) if server.tls else None,
        shutdown_timeout_s=server.shutdown_timeout,
        max_connections=server.max_connections,
        max_concurrent_requests=server.max_concurrent_requests,
        header_timeout_s=server.header_timeout,
        body_timeout_s=server.body_timeout,
        keepalive_timeout_s=server.keepalive_timeout,
        log_level=server.log_level,
        log_format=server.log_format,
    )


def _upstream(upstream: UpstreamSection) -> UpstreamSettings:
    return UpstreamSettings(
        name=upstream.name,
        url=upstream.url.rstrip("/"),
        api_key=upstream.api_key,
        models=upstream.models,
        formats=upstream.formats,
        prefix=upstream.prefix.rstrip("/"),
        deployments=MappingProxyType(upstream.deployments),
        platform=upstream.platform,
        connect_timeout_s=upstream.connect_timeout,
        timeout_s=upstream.timeout,
        idle_timeout_s=upstream.idle_timeout,
        headers=MappingProxyType(upstream.headers),
        overheads=MappingProxyType(upstream.overheads),
    )


def _key(key: KeySection, time_zone: str) -> Key:
    return Key(
        id=key.id,
        digest=key.digest,
        tags=MappingProxyType(key.tags),
        expires=_unix_time(key.expires, time_zone) if key.expires else None,
        disabled=key.disabled,
        upstream_key=key.upstream_key,
    )


def _unix_time(moment: datetime, time_zone: str) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(time_zone))).timestamp()


def _budget(budget: BudgetSection) -> Budget:
    return Budget(
        name=budget.name,
        limits=tuple(_limit(limit) for limit in budget.limits),
        match=Match(
            key=budget.match.key,
            model=budget.match.model,
            upstream=budget.match.upstream,
            tags=MappingProxyType(dict(budget.match.tags)),
        ),
        each=budget.each,
        mode=budget.mode,
        max_input_tokens=budget.max_input_tokens,
        max_output_tokens=budget.max_output_tokens,
        output_hold=cast("OutputHold | None", budget.output_hold),
        on_exhausted=budget.on_exhausted,
        allow_models=budget.models.allow,
        deny_models=budget.models.deny,
        warn_at=tuple(sorted(set(budget.warn_at))),
        weights=Weights(
            input=budget.weights.input,
            output=budget.weights.output,
            cached=budget.weights.cached,
            reasoning=budget.weights.reasoning,
            models=tuple(budget.weights.models.items()),
        ),
    )


def _limit(limit: LimitSection) -> Limit:
    unit, amount = next((unit, amount) for unit in UNITS if (amount := getattr(limit, unit)) is not None)
    return Limit(unit=unit, amount=amount, per=limit.per or "total", sliding=limit.sliding)
