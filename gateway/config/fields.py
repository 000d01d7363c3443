"""The kinds of value that config.yaml knows, as pydantic types with messages for people."""

from __future__ import annotations

import ipaddress
import re
import zoneinfo
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from gateway.config import intended
from gateway.config.names import NAME_PATTERN, is_name
from gateway.config.quantities import parse_amount, parse_duration, parse_fraction, parse_size
from gateway.http.origin import Origin


def mistake(what: str, remedy: str) -> PydanticCustomError:
    """Name a mistake inside a validator; braces in the texts are kept as they are."""
    return PydanticCustomError("mistake", "{what}; {remedy}", {"what": what, "remedy": remedy})


def option(default: Any, description: str, *, example: str, factory: Callable[[], Any] | None = None) -> Any:
    """Declare a field: its default (``...``: required), one sentence, and an example as it is written in YAML."""
    if factory is not None:
        return Field(default_factory=factory, description=description, examples=[example])
    return Field(default, description=description, examples=[example])


def _meant(intended: Callable[[str], str | None], value: Any, remedy: str) -> str:
    """The remedy, with what was likely meant before it."""
    guess = intended(str(value)) if isinstance(value, (str, int, float)) else None
    return f"did you mean `{guess}`?" if guess else remedy


def _reading(
    parse: Callable[[Any], Any], kind: str, remedy: str, intended: Callable[[str], str | None]
) -> BeforeValidator:
    def read(value: Any) -> Any:
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            try:
                return parse(value)
            except ValueError as error:
                raise mistake(str(error), _meant(intended, value, remedy)) from None
        raise mistake(f"is not {kind}", remedy)

    return BeforeValidator(read)


def _schema(kind: str, pattern: str | None = None, **more: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": kind, **({"pattern": pattern} if pattern else {}), **more})


_TEXT_OR_NUMBER: Any = ["string", "number"]

Amount = Annotated[
    int,
    _reading(parse_amount, "an amount", "write a whole number such as `100000`, `100k` or `2.5M`", intended.amount),
    Field(ge=0),
    WithJsonSchema({"type": _TEXT_OR_NUMBER, "pattern": r"^\d[\d_]*(\.\d+)?\s*[kKmMbBtT]?$", "minimum": 0}),
]
Duration = Annotated[
    float,
    _reading(parse_duration, "a duration", "write `30s`, `15m`, `2h` or `7d`", intended.duration),
    _schema("string", r"^\s*(\d[\d_]*(\.\d+)?\s*(ms|s|m|h|d|w)\s*)+$"),
]
Size = Annotated[
    int,
    _reading(parse_size, "a size", "write `512KiB`, `32MiB` or `1GiB`", intended.size),
    _schema("string", r"^\d[\d_]*(\.\d+)?\s*[kKmMgG]?i?[bB]$"),
]
Fraction = Annotated[
    float,
    _reading(parse_fraction, "a percentage", "write `80%` or `0.8`", intended.fraction),
    WithJsonSchema({"type": _TEXT_OR_NUMBER, "pattern": r"^\d[\d_]*(\.\d+)?\s*%$"}),
]


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Pattern = Annotated[str, Field(min_length=1)]
Patterns = Annotated[
    tuple[Pattern, ...],
    BeforeValidator(_one_or_many),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "string", "minLength": 1}}]}
    ),
]
"""Glob patterns (``gpt-4*``): one, or a list of which any may match."""

_DIGEST = re.compile(r"sha256:[0-9a-fA-F]{64}")
DIGEST_REMEDY = 'run `tollgate keys digest`, give it the key, and write `digest: "sha256:..."`'


def _digest(value: Any) -> Any:
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return value.lower()
    what = "is not `sha256:` and 64 hexadecimal digits"
    if isinstance(value, str) and re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise mistake(what, "write `sha256:` before it")
    if isinstance(value, str) and _DIGEST.fullmatch(value.lower()):
        raise mistake(what, "write `sha256:` in small letters")
    raise mistake(what, DIGEST_REMEDY)


Digest = Annotated[str, BeforeValidator(_digest), _schema("string", "^sha256:[0-9a-fA-F]{64}$")]


def _name(value: Any) -> Any:
    if isinstance(value, str) and is_name(value):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        raise mistake("is a number, not text", "put it in quotes")
    remedy = "write up to 128 letters, digits and `. _ - + @`, beginning with a letter or digit"
    raise mistake("is not a name", _meant(intended.name, value, remedy))


Name = Annotated[str, BeforeValidator(_name), _schema("string", f"^{NAME_PATTERN}$")]


def _zone(value: Any) -> Any:
    try:
        zoneinfo.ZoneInfo(value)
    except (ValueError, TypeError, OSError, zoneinfo.ZoneInfoNotFoundError):
        remedy = "write an IANA name such as `UTC` or `Europe/Berlin`"
        raise mistake("is not a time zone", _meant(intended.time_zone, value, remedy)) from None
    return value


TimeZone = Annotated[str, BeforeValidator(_zone), _schema("string")]


def _moment(value: Any) -> Any:
    try:
        return datetime.fromisoformat(value)
    except (ValueError, TypeError):
        raise mistake("is not a date", "write `2027-12-31` or `2027-12-31T18:00:00+01:00`") from None


Moment = Annotated[datetime, BeforeValidator(_moment), _schema("string")]
"""A date or a time; without an offset it is meant in the policy's time zone."""


def _network(value: Any) -> Any:
    try:
        return str(ipaddress.ip_network(value))
    except (ValueError, TypeError):
        remedy = "write a CIDR block such as `10.0.0.0/8`"
        raise mistake("is not a network", _meant(intended.network, value, remedy)) from None


Network = Annotated[str, BeforeValidator(_network), _schema("string")]


def _workers(value: Any) -> Any:
    if value == "auto":
        return 0
    if isinstance(value, (int, str)) and not isinstance(value, bool) and str(value).isdigit() and int(value) >= 1:
        return int(value)
    raise mistake("is not a number of processes", "write `1`, a larger number, or `auto` for one per core")


def _host(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._:%-]+", value):
        return value
    if not isinstance(value, str) or not value:
        return value  # that it is no text, or empty, is said of every field alike
    raise mistake("is not an address", _meant(intended.host, value, "write `0.0.0.0`, `127.0.0.1` or `::`"))


Host = Annotated[str, BeforeValidator(_host), _schema("string", "^[A-Za-z0-9._:%-]+$")]

Workers = Annotated[
    int, BeforeValidator(_workers), WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]})
]

OUTPUT_HOLDS = ("learned", "model_max", "clamp", "refuse")


def _output_hold(value: Any) -> Any:
    if value in OUTPUT_HOLDS:
        return value
    try:
        return parse_amount(value)
    except ValueError:
        remedy = "write `learned`, `model_max`, `clamp`, `refuse` or a number of tokens such as `4k`"
        raise mistake("is no way to hold an answer", remedy) from None


OutputHoldRule = Annotated[
    int | str,
    BeforeValidator(_output_hold),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(OUTPUT_HOLDS)},
                {"type": _TEXT_OR_NUMBER, "pattern": r"^\d[\d_]*(\.\d+)?\s*[kKmMbBtT]?$"},
            ]
        }
    ),
]

_STORE = re.compile(
    r"memory:|sqlite:///.+|unix://.+|(redis|rediss|valkey|valkeys|redis\+sentinel|rediss\+sentinel)://.+"
)


def _store_url(value: Any) -> Any:
    if isinstance(value, str) and _STORE.fullmatch(value):
        return value
    remedy = "write `sqlite:///tollgate.db`, `redis://host:6379/0`, `rediss://...` or `memory:`"
    raise mistake("is not a store", _meant(intended.store_url, value, remedy))


StoreUrl = Annotated[str, BeforeValidator(_store_url), _schema("string")]


def _upstream_url(value: Any) -> Any:
    if isinstance(value, str) and (value == "echo:" or re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", value)):
        try:
            return value if value == "echo:" else _reachable(value)
        except ValueError as error:
            why = str(error).rpartition("': ")[2]
            raise mistake(f"is not an upstream ({why})", "write `https://host` or `https://host:8443`") from None
    remedy = "write `https://host` (and a path if the API has one), or `echo:`"
    raise mistake("is not an upstream", _meant(intended.upstream_url, value, remedy))


def _reachable(url: str) -> str:
    Origin.from_url(url)
    return url


UpstreamUrl = Annotated[str, BeforeValidator(_upstream_url), _schema("string", r"^(echo:|https?://.+)$")]


def _secret(value: Any) -> Any:
    if isinstance(value, str) and value.strip() and value.isprintable():
        return value.strip()
    if value in ("", None):
        raise mistake("is empty", "write `${NAME}` and export the key as NAME, or remove the line")
    raise mistake("is not a key", "write `${NAME}` and export the key as NAME")


Secret = Annotated[str, BeforeValidator(_secret), _schema("string")]
