"""What somebody who wrote a value that cannot be read most likely meant, to be offered as a remedy."""

from __future__ import annotations

import difflib
import ipaddress
import re
import zoneinfo
from collections.abc import Callable
from typing import Any

from gateway.config.names import is_name
from gateway.config.quantities import parse_amount, parse_duration, parse_fraction, parse_size

_UNITS = (
    (r"(?:milliseconds?|msecs?|millis)", "ms"),
    (r"(?:seconds?|secs?)", "s"),
    (r"(?:minutes?|mins?)", "m"),
    (r"(?:hours?|hrs?)", "h"),
    (r"days?", "d"),
    (r"weeks?", "w"),
)
_HOST = re.compile(r"[A-Za-z0-9.-]+(?::\d+)?(?:/\S*)?")
_NEARBY = re.compile(r"localhost|127\.|10\.|192\.168\.|\[?::1|[^.]*:\d+")


def amount(written: str) -> str | None:
    """``100,000`` and ``100 000`` as ``100000``, ``100ktokens`` as ``100k``."""
    return _if_read(parse_amount, re.sub(r"[,\s']|tokens?$|requests?$", "", written.lower()))


def duration(written: str) -> str | None:
    """``10 minutes`` as ``10m``; a number alone is taken for seconds."""
    text = written.lower()
    for words, unit in _UNITS:
        text = re.sub(rf"\s*\b{words}|(?<=\d)\s*{words}\b", unit, text)
    if text.replace("_", "").isdecimal():
        text += "s"
    return _if_read(parse_duration, text)


def size(written: str) -> str | None:
    """``32M`` as ``32MiB``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKmMgG])(?:i|b?ytes|[iI]?[oO])?", written)
    return _if_read(parse_size, f"{found[1]}{found[2].upper()}iB") if found else None


def fraction(written: str) -> str | None:
    """``80`` as ``80%``."""
    return _if_read(parse_fraction, written.strip("% ") + "%")


def upstream_url(written: str) -> str | None:
    """``api.openai.com`` with its scheme, ``echo`` with its colon."""
    if written in ("echo", "echo:/", "echo://"):
        return "echo:"
    if re.match(r"https?://", written):
        cut = re.split(r"[?#]", written)[0]
        return cut if cut != written and not re.search(r"\s", cut) else None
    bare = re.sub(r"^[a-z]*:?/+", "", written)
    if _HOST.fullmatch(bare) and ("." in bare or ":" in bare or bare == "localhost"):
        return ("http://" if _NEARBY.match(bare) else "https://") + bare
    return None


def store_url(written: str) -> str | None:
    """A bare path, or one with a slash too few, as SQLite's; a bare kind as that store on this machine."""
    if written in ("redis", "valkey", "redis:", "valkey:"):
        return f"{written.rstrip(':')}://localhost:6379/0"
    if written in ("memory", "memory://"):
        return "memory:"
    found = re.fullmatch(r"(?:sqlite:/{0,2})?([^:\s]+\.(?:db|sqlite3?))", written)
    return f"sqlite:///{found[1]}" if found else None


def time_zone(written: str) -> str | None:
    """The zone of the nearest name, whatever its case."""
    zones = {zone.lower(): zone for zone in zoneinfo.available_timezones()}
    near = difflib.get_close_matches(written.lower().replace(" ", "_"), zones, n=1, cutoff=0.88)
    return zones[near[0]] if near else None


def name(written: str) -> str | None:
    """Spaces and other signs as dashes."""
    text = re.sub(r"[^A-Za-z0-9._@+-]+", "-", written).strip("-._@+")
    return text if is_name(text) else None


def network(written: str) -> str | None:
    """``10.0.0.1/8`` as the network it lies in."""
    try:
        return str(ipaddress.ip_network(written, strict=False))
    except ValueError:
        return None


def host(written: str) -> str | None:
    """A listening address without what belongs to a URL."""
    text = re.sub(r"^[a-z]+://|/.*$", "", written).strip("[] ")
    return text if re.fullmatch(r"[A-Za-z0-9.-]+", text) else None


def _if_read(parse: Callable[[Any], object], text: str) -> str | None:
    try:
        parse(text)
    except ValueError:
        return None
    return text
