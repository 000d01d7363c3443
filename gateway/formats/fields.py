"""Strict reading of request bodies: typed access that names the wrong field, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import orjson

from gateway.errors import BadRequest

MAX_DEPTH = 200
"""Nesting past this is refused: no API documents deeper bodies, and orjson writes at most 254 levels."""

_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


def name_type(value: object) -> str:
    """The JSON word for a value's type, with its article."""
    return _NAMES.get(type(value), type(value).__name__)


def read_object(body: bytes) -> dict[str, Any]:
    """Parse a body that must be one JSON object. Raises `BadRequest` saying what is wrong and where.

    Lone surrogates in string escapes are accepted, as the APIs themselves accept them: the tokenizers
    replace them and `write_object` writes them back as they came.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        value = _read_surrogates(body) if "surrogate in string" in str(error) else _refuse(body, error)
    if type(value) is not dict:
        raise BadRequest(f"The request body must be a JSON object, not {name_type(value)}.", code="invalid_json")
    if _may_be_deep(body):
        _refuse_deep(value)
    return value


def write_object(value: Mapping[str, Any]) -> bytes:
    """The JSON bytes of a body read by `read_object`."""
    try:
        return orjson.dumps(value)
    except TypeError:  # a lone surrogate: orjson writes valid UTF-8 only
        return json.dumps(value, separators=(",", ":")).encode()


def _may_be_deep(body: bytes) -> bool:
    """Whether there are more opening brackets than levels allowed. Searching for the few there are is a hundred times
    as fast as counting, which looks at every byte."""
    found = 0
    for bracket in (b"{", b"["):
        at = body.find(bracket)
        while at >= 0:
            found += 1
            if found > MAX_DEPTH:
                return True
            at = body.find(bracket, at + 1)
    return False


def _refuse(body: bytes, error: orjson.JSONDecodeError) -> NoReturn:
    if not body.strip():
        raise BadRequest("The request body is empty; send a JSON object.", code="invalid_json") from None
    message = str(error)
    if message.startswith("depth limit"):
        raise BadRequest(f"The request body is nested deeper than {MAX_DEPTH} levels.", code="invalid_json") from None
    try:
        body.decode()
    except UnicodeDecodeError as wrong:
        raise BadRequest(
            f"The request body is not valid UTF-8 (byte {wrong.start}); send JSON encoded as UTF-8.",
            code="invalid_json",
        ) from None
    raise BadRequest(f"The request body is not valid JSON: {message}.", code="invalid_json") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _read_surrogates(body: bytes) -> Any:
    try:
        return json.loads(body.decode(), parse_constant=_refuse_constant)
    except RecursionError:
        raise BadRequest(f"The request body is nested deeper than {MAX_DEPTH} levels.", code="invalid_json") from None
    except ValueError as error:
        raise BadRequest(f"The request body is not valid JSON: {error}.", code="invalid_json") from None


def _refuse_deep(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    raise BadRequest(f"The request body is nested deeper than {MAX_DEPTH} levels.", code="invalid_json")


class Fields:
    """A JSON object and the path that led to it. JSON null counts as absent everywhere.

    Every reader raises `BadRequest` with `param` set to the field's full path (``messages[2].content``).
    """

    __slots__ = ("_index", "_key", "_parent", "raw")

    def __init__(
        self, raw: Mapping[str, Any], *, parent: Fields | None = None, key: str = "", index: int | None = None
    ) -> None:
        self.raw = raw
        self._parent = parent
        self._key = key
        self._index = index

    @property
    def path(self) -> str:
        """Where this object stands in the body; "" for the body itself."""
        key = self._key if self._index is None else f"{self._key}[{self._index}]"
        return self._parent.path_of(key) if self._parent is not None else key

    def path_of(self, name: str) -> str:
        """The full path of one of this object's fields."""
        path = self.path
        return f"{path}.{name}" if path and name else path or name

    def wrong(self, name: str, message: str, *, code: str | None = None) -> BadRequest:
        """An error about one field; `message` follows the field's name."""
        path = self.path_of(name)
        return BadRequest(f"'{path}' {message}", param=path, code=code)

    def wrong_type(self, name: str, expected: str) -> BadRequest:
        """An error about one field's type."""
        return self.wrong(name, f"must be {expected}, not {name_type(self.raw.get(name))}.", code="invalid_type")

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.raw.get(name) is not None

    def required_text(self, name: str) -> str:
        """A string that must be there (it may be empty)."""
        value = self.raw.get(name)
        if type(value) is str:
            return value
        if value is None:
            raise self.wrong(name, "is missing.", code="missing_required_parameter")
        raise self.wrong_type(name, "a string")

    def text(self, name: str, *, default: str = "") -> str:
        """A string, or `default` when absent."""
        value = self.raw.get(name)
        if type(value) is str:
            return value
        if value is None:
            return default
        raise self.wrong_type(name, "a string")

    def optional_text(self, name: str) -> str | None:
        """A string, or None when absent."""
        return self.text(name) if self.raw.get(name) is not None else None

    def integer(self, name: str, *, minimum: int | None = None) -> int | None:
        """A whole number, or None when absent; 3.0 reads as 3, true does not read as 1."""
        value = self.raw.get(name)
        if value is None:
            return None
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int:
            raise self.wrong_type(name, "an integer")
        if minimum is not None and value < minimum:
            raise self.wrong(name, f"must be at least {minimum}, not {value}.", code="invalid_value")
        return value

    def boolean(self, name: str, *, default: bool = False) -> bool:
        """True or false, or `default` when absent."""
        value = self.raw.get(name)
        if type(value) is bool:
            return value
        if value is None:
            return default
        raise self.wrong_type(name, "a boolean")

    def array(self, name: str) -> list[Any] | None:
        """An array of anything, or None when absent."""
        value = self.raw.get(name)
        if value is None or type(value) is list:
            return value
        raise self.wrong_type(name, "an array")

    def mapping(self, name: str) -> dict[str, Any] | None:
        """An object kept as it came (a JSON schema, arguments), or None when absent."""
        value = self.raw.get(name)
        if value is None or type(value) is dict:
            return value
        raise self.wrong_type(name, "an object")

    def child(self, name: str) -> Fields | None:
        """An object to read further, or None when absent."""
        value = self.mapping(name)
        return Fields(value, parent=self, key=name) if value is not None else None

    def required_child(self, name: str) -> Fields:
        """An object that must be there."""
        found = self.child(name)
        if found is None:
            raise self.wrong(name, "is missing.", code="missing_required_parameter")
        return found

    def children(self, name: str) -> Iterator[Fields]:
        """The objects of an array; none when absent. Raises on an element that is not an object."""
        for index, value in enumerate(self.array(name) or ()):
            if type(value) is not dict:
                path = f"{self.path_of(name)}[{index}]"
                raise BadRequest(
                    f"'{path}' must be an object, not {name_type(value)}.", param=path, code="invalid_type"
                )
            yield Fields(value, parent=self, key=name, index=index)
