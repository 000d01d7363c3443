"""JSON schemas as OpenAI shows them to its models: TypeScript types in a namespace of functions.

OpenAI documents none of this. The shape is the one that models recite when asked for their tools; every detail
below was checked against recorded calls and the `usage` that OpenAI reported for them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers_offline.prompt import ToolSpec

MAX_DEPTH = 40
"""Schemas nested deeper (or by a `$ref` to themselves) are cut with ``any``."""

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
    functions = [_render_function(tool, unsure, whole_limits=whole_limits) for tool in tools]
    return Namespace("namespace functions {\n\n" + "".join(functions) + "} // namespace functions", tuple(unsure))


def _render_function(tool: ToolSpec, unsure: dict[str, None], *, whole_limits: bool) -> str:
    schema = tool.parameters or {}
    opening = f"{_comment(tool.description)}type {tool.name}"
    if not _mapping(schema.get("properties")):
        return f"{opening} = () => any;\n\n"
    shape = _Writer(schema, unsure, whole_limits=whole_limits).render_object(schema)
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


class _Writer:
    """Writes the types of one schema; `$ref`s are looked up in it and written in place."""

    def __init__(self, root: Mapping[str, Any], unsure: dict[str, None], *, whole_limits: bool) -> None:
        self._root = root
        self._unsure = unsure
        self._whole_limits = whole_limits

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
        if depth > MAX_DEPTH:
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
        if not isinstance(schema, Mapping):
            return {}
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        target: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            target = target.get(step) if isinstance(target, Mapping) else None
        if not isinstance(target, Mapping):
            return {}
        return {**target, **{name: value for name, value in schema.items() if name != "$ref"}}


def _leading(schema: Mapping[str, Any]) -> str:
    return _comment(schema.get("title")) + _comment(schema.get("description"))


def _write_limit(value: object) -> str:
    """Bounds are floats to whatever prints them."""
    return write_json(float(value) if type(value) is int else value)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
