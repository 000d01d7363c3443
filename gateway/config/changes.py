"""What differs between two configurations, in the words of config.yaml; secrets are never shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from gateway.settings import Settings
from policies.model import Budget, Key, Limit

_LIVE_SERVER_FIELDS = ("unmatched", "on_disconnect", "trusted_proxies")
_SECRET = {"api_key", "upstream_key", "digest", "headers", "webhook"}
_NOT_THE_FILES = {"source", "version", "_by_digest"}
_WRITTEN_AS = {
    "max_body_bytes": "max_body",
    "shutdown_timeout_s": "shutdown_timeout",
    "header_timeout_s": "header_timeout",
    "body_timeout_s": "body_timeout",
    "keepalive_timeout_s": "keepalive_timeout",
    "hold_timeout_s": "hold_timeout",
    "retention_days": "retention",
    "connect_timeout_s": "connect_timeout",
    "idle_timeout_s": "idle_timeout",
    "timeout_s": "timeout",
    "allow_models": "models.allow",
    "deny_models": "models.deny",
}
_SHOWN_AT_MOST = 60


@dataclass(frozen=True, slots=True)
class Changes:
    """`applied` are in force; `needs_restart` were read, and wait for the next start."""

    applied: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()


def applicable(running: Settings, read: Settings) -> Settings:
    """Return what of a newly read configuration can be in force without a restart."""
    live = {name: getattr(read.server, name) for name in _LIVE_SERVER_FIELDS}
    return replace(
        read,
        server=replace(running.server, **live),
        store=running.store,
        tokenizers=running.tokenizers,
        metrics=running.metrics,
    )


def changes_between(running: Settings, read: Settings) -> Changes:
    """Name everything that another configuration changes."""
    in_force = applicable(running, read)
    return Changes(tuple(_differences("", running, in_force)), tuple(_differences("", in_force, read)))


def _differences(route: str, old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    if is_dataclass(old) and type(old) is type(new):
        for field in fields(old):
            if field.name not in _NOT_THE_FILES:
                yield from _field(route, field.name, getattr(old, field.name), getattr(new, field.name))
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        yield from _named(route, dict(old), dict(new))
    elif _has_names(old) and _has_names(new):
        before, after = {_name(each): each for each in old}, {_name(each): each for each in new}
        yield from _named(route, before, after)
        kept = [name for name in before if name in after]
        if kept != [name for name in after if name in before]:
            yield f"{route}: in another order"
    else:
        yield f"{route}: {_shown(old)} -> {_shown(new)}"


def _field(route: str, name: str, old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    if name == "policy":  # its parts stand at the top of the file
        yield from _differences(route, old, new)
        return
    at = f"{route}.{_WRITTEN_AS.get(name, name)}".removeprefix(".")
    if name in _SECRET or (name == "url" and "@" in f"{old}{new}"):
        yield f"{at}: changed"
    else:
        yield from _differences(at, old, new)


def _named(route: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in old:
        if name not in new:
            yield f"{route}.{name}: removed"
    for name, value in new.items():
        at = f"{route}.{name}"
        if name not in old:
            yield f"{at}: added"
        elif isinstance(value, Limit):
            if value != old[name]:
                yield f"{at}: {old[name].amount:,} -> {value.amount:,}"
        else:
            yield from _differences(at, old[name], value)


def _has_names(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(each, Limit | Key | Budget) or _is_named(each) for each in value)


def _is_named(value: Any) -> bool:
    return is_dataclass(value) and hasattr(value, "name")


def _name(value: Any) -> str:
    if isinstance(value, Limit):
        sliding = " (sliding)" if value.sliding else ""
        return value.unit if value.unit == "concurrent" else f"{value.unit} per {value.per}{sliding}"
    return str(value.id if isinstance(value, Key) else value.name)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        text = f"[{', '.join(str(each) for each in value)}]"
    elif isinstance(value, bool):
        text = "true" if value else "false"
    else:
        text = f"{value:,}" if isinstance(value, int) else "none" if value is None or value == "" else str(value)
    return text if len(text) <= _SHOWN_AT_MOST else text[: _SHOWN_AT_MOST - 3] + "..."
