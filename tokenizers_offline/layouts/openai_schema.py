"""JSON schemas as OpenAI shows them to its models: TypeScript types in a namespace of functions.

OpenAI documents none of this. The shape is the one that models recite when asked for their tools; every detail
below was checked against recorded calls and the `usage` that OpenAI reported for them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from tokenizers_offline.prompt import ToolSpec

MAX_DEPTH = 40
"""Schemas nested deeper (or by a `$ref` to themselves) are cut with ``any``."""
MAX_TYPES = 10_000
"""Types written for one prompt; `$ref`s to each other can multiply, so that depth alone bounds nothing."""
_MAX_REFERENCES = 8
_MAX_KEY_BYTES = 65_536

HEADER = "# Tools\n\n## functions\n\n"

_PRIMITIVES = {"integer": "number", "number": "number", "string": "string", "boolean": "boolean", "null": "null"}
_LIMITS = ("format", "minimum", "maximum")
"""Keywords shown in a comment behind the type, in this order."""
# Keywords whose effect is in the type itself, or that leave no trace.
_SILENT = frozenset(
    {"$defs", "$id", "$ref", "$schema", "additionalProperties", "anyOf", "const", "default", "definitions"}
    | {"description", "enum", "items", "nullable", "oneOf", "properties", "required", "strict", "title", "type"}
)


@dataclass(frozen=True, slots=True)
class Namespace:
    """The functions as text. `unsure` names the schema keywords whose rendering was never observed."""

    text: str
    unsure: tuple[str, ...]


def render_namespace(tools: Iterable[ToolSpec], *, whole_limits: bool = False) -> Namespace:
    """All functions as one TypeScript namespace, without the header that stands before it.

    `whole_limits` is how GPT-5 shows bounds: as they came and behind the comma, where earlier models show floats
    on a line of their own.
    """
    unsure: dict[str, None] = {}
    budget = _Budget(MAX_TYPES)
    functions = [_render_function(tool, unsure, budget, whole_limits=whole_limits) for tool in tools]
    return Namespace("namespace functions {\n\n" + "".join(functions) + "} // namespace functions", tuple(unsure))


def render_tools(tools: Sequence[ToolSpec], *, whole_limits: bool = False) -> Namespace:
    """`render_namespace`, remembered: an agent sends the same tools with every request."""
    try:
        key = orjson.dumps([(tool.name, tool.description, tool.parameters) for tool in tools])
    except TypeError:  # a lone surrogate, or nested beyond what orjson writes
        return render_namespace(tools, whole_limits=whole_limits)
    return (
        _render_remembered(key, whole_limits)
        if len(key) <= _MAX_KEY_BYTES
        else render_namespace(tools, whole_limits=whole_limits)
    )


@lru_cache(maxsize=256)
def _render_remembered(key: bytes, whole_limits: bool) -> Namespace:
    tools = [ToolSpec(name, description, parameters) for name, description, parameters in orjson.loads(key)]
    return render_namespace(tools, whole_limits=whole_limits)


def _render_function(tool: ToolSpec, unsure: dict[str, None], budget: _Budget, *, whole_limits: bool) -> str:
    schema = tool.parameters or {}
    opening = f"{_comment(tool.description)}type {tool.name}"
    if not _mapping(schema.get("properties")):
        return f"{opening} = () => any;\n\n"
    shape = _Writer(schema, unsure, budget, whole_limits=whole_limits).render_object(schema)
    return f"{opening} = (_: {_leading(schema)}{shape.text}) => any;\n\n"


def _comment(text: object) -> str:
    """Each line of a description after ``// ``, stripped; blank lines vanish."""
    if not isinstance(text, str):
        return ""
    return "".join(f"// {line.strip()}\n" for line in text.splitlines() if line.strip())


def write_json(value: object) -> str:
    """Compact JSON with the characters as they are."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)


@dataclass(frozen=True, slots=True)
class _Type:
    """A type's text, and whether a comment stands in it (which spreads it over lines of its own)."""

    text: str
    commented: bool = False


@dataclass(slots=True)
class _Budget:
    """How many more types may be written."""

    left: int


class _Writer:
    """Writes the types of one schema; `$ref`s are looked up in it and written in place."""

    def __init__(
        self, root: Mapping[str, Any], unsure: dict[str, None], budget: _Budget, *, whole_limits: bool
    ) -> None:
        self._root = root
        self._unsure = unsure
        self._whole_limits = whole_limits
        self._budget = budget

    def render_object(self, schema: Mapping[str, Any], *, depth: int = 0) -> _Type:
        """``{``, a line for each property, ``}``. A last property without any comment stays on the closing line."""
        required = schema.get("required")
        names = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
        members = list(_mapping(schema.get("properties")).items())
        commented = False
        lines = ["{\n"]
        for index, (key, given) in enumerate(members):
            member = self._resolve(given)
            lead = _leading(member)
            kind = self._render_type(member, depth=depth + 1, nested=False)
            trailing = [f"default: {write_json(member['default'])}"] if "default" in member else []
            if self._whole_limits and not kind.commented:
                trailing += [f"{keyword}: {write_json(member[keyword])}" for keyword in _LIMITS if keyword in member]
            default = f", // {', '.join(trailing)}\n" if trailing else ""
            plain = not lead and not default and not kind.commented
            commented = commented or not plain
            end = " " if plain and index == len(members) - 1 else ",\n"
            gap = "" if kind.text.startswith("\n") else " "
            lines.append(f"{lead}{key}{'' if key in names else '?'}:{gap}{kind.text}{default or end}")
        return _Type("".join([*lines, "}"]), commented)

    def _render_type(self, schema: Mapping[str, Any], *, depth: int, nested: bool = True) -> _Type:
        self._budget.left -= 1
        if depth > MAX_DEPTH or self._budget.left < 0:
            self._unsure["$ref"] = None
            return _Type("any")
        self._unsure.update(dict.fromkeys(keyword for keyword in schema if keyword not in _SILENT | set(_LIMITS)))
        choices = schema.get("enum")
        if isinstance(choices, list):
            return _Type(" | ".join(map(write_json, choices)))
        if "const" in schema:
            return _Type(write_json(schema["const"]))
        union = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(union, list) and union:
            return self._render_union([self._resolve(member) for member in union], depth=depth)
        kind = schema.get("type")
        if isinstance(kind, list):  # each alternative keeps the whole schema, description included
            return self._render_union([{**schema, "type": one} for one in kind], depth=depth)
        if kind == "array":
            return self._render_array(self._resolve(schema.get("items")), depth=depth)
        if kind == "object" and _mapping(schema.get("properties")):
            return self.render_object(schema, depth=depth)
        if kind == "object":
            if isinstance(schema.get("additionalProperties"), Mapping):
                self._unsure["additionalProperties"] = None
            return _Type("object")
        text = _PRIMITIVES.get(kind, "any") if isinstance(kind, str) else "any"
        if self._whole_limits and not nested:
            return _Type(text)
        limits = [f"{keyword}: {_write_limit(schema[keyword])}" for keyword in _LIMITS if keyword in schema]
        return _Type(f"{text} // {', '.join(limits)}\n", commented=True) if limits else _Type(text)

    def _render_union(self, members: list[Mapping[str, Any]], *, depth: int) -> _Type:
        kinds = [self._render_type(member, depth=depth + 1) for member in members]
        leads = [_leading(member) for member in members]
        if not any(kind.commented for kind in kinds) and not any(leads):
            return _Type(" | ".join(kind.text for kind in kinds))
        rows = [f"{lead} | {kind.text.rstrip()}\n" for lead, kind in zip(leads, kinds, strict=True)]
        return _Type("\n" + "".join(rows), commented=True)

    def _render_array(self, items: Mapping[str, Any], *, depth: int) -> _Type:
        kind = self._render_type(items, depth=depth + 1)
        lead = _leading(items)
        if lead or kind.commented:
            return _Type(f"Array<\n{lead}{kind.text.strip()}\n>", commented=True)
        return _Type(f"{kind.text}[]")

    def _resolve(self, schema: object) -> Mapping[str, Any]:
        """The schema with what its `$ref` points at; keywords beside the `$ref` win."""
        found = _mapping(schema)
        for _ in range(_MAX_REFERENCES):
            reference = found.get("$ref")
            if not isinstance(reference, str):
                break
            target: Any = self._root
            for step in reference.removeprefix("#").strip("/").split("/"):
                target = target.get(step) if isinstance(target, Mapping) else None
            found = {**_mapping(target), **{name: value for name, value in found.items() if name != "$ref"}}
        return found


def _leading(schema: Mapping[str, Any]) -> str:
    return _comment(schema.get("title")) + _comment(schema.get("description"))


def _write_limit(value: object) -> str:
    """Bounds are floats to whatever prints them."""
    return write_json(float(value) if type(value) is int and abs(value) < 2**53 else value)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
