"""The section of config.yaml about listening: where, with how many processes, and how much is borne."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gateway.config.fields import Amount, Duration, Host, Network, Size, Workers, option


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)]
Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[Amount, Field(ge=1)]
Wait = Annotated[Duration, Field(ge=0.1)]


class TlsSection(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    cert: str = option(..., "Certificate chain, a PEM file.", example="/etc/tls/tls.crt")
    key: str = option(..., "Private key, a PEM file.", example="/etc/tls/tls.key")


class ServerSection(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    host: Host = option("0.0.0.0", "Address to listen on.", example="0.0.0.0")  # noqa: S104 - a sidecar serves its pod
    port: Port = option(8000, "Port to listen on.", example="8000")
    workers: Workers = option(1, "Processes; `auto` is one per core.", example="auto")
    max_body: Size = option(32 * 2**20, "Largest request body, after decompression.", example="32MiB")
    unmatched: Literal["pass", "refuse"] = option(
        "pass",
        "Paths no format knows: forwarded (and counted as a request), or refused with 404.",
        example="pass",
    )
    on_disconnect: Literal["cancel", "drain"] = option(
        "cancel",
        "When a caller leaves mid-answer: cut the upstream, or read it to its end for the true usage.",
        example="cancel",
    )
    on_exhausted: Literal["finish", "cut"] = option(
        "finish",
        "When a streamed answer outgrows its hold and a budget has nothing left: let it finish (the debt is recorded), "
        "or end it as at its token limit.",
        example="cut",
    )
    trusted_proxies: tuple[Network, ...] = option(
        (), "Networks whose X-Forwarded-For is believed in the access log.", example="[10.0.0.0/8]"
    )
    tls: TlsSection | None = option(None, "Serve HTTPS.", example="{cert: tls.crt, key: tls.key}")
    shutdown_timeout: Duration = option(30.0, "How long running requests may finish after SIGTERM.", example="30s")
    max_connections: Count = option(
        10_000, "Connections of callers, of all workers; one more is answered 503 and closed.", example="10k"
    )
    max_concurrent_requests: Count = option(
        5_000, "Requests answered at the same time, by all workers; one more is answered 503 at once.", example="5k"
    )
    header_timeout: Wait = option(15.0, "How long a caller may take to send a request's head.", example="15s")
    body_timeout: Wait = option(120.0, "How long a caller may take to send a request's body.", example="2m")
    keepalive_timeout: Wait = option(75.0, "How long a connection may idle between requests.", example="75s")
    log_level: LogLevel = option("INFO", "Least severity that is logged.", example="INFO")
    log_format: Literal["auto", "json", "console"] = option(
        "auto", "`auto` is `console` on a terminal and `json` elsewhere.", example="json"
    )
