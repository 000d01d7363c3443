"""Functions as gpt-oss sees them: the TypeScript namespace of OpenAI's published harmony guide and template.

It differs in details from what OpenAI's own service shows its hosted models (`openai_schema`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers_offline.layouts.conversation import compact
from tokenizers_offline.prompt import ToolSpec

MAX_DEPTH = 40
"""Schemas nested deeper are cut with ``any``."""

_TYPES = {"integer": "number", "number": "number", "string": "string", "boolean": "boolean", "null": "null"}


def render_functions(tools: Iterable[ToolSpec]) -> str:
    """All functions in their namespace, with its heading."""
    return "## functions\n\nnamespace functions {\n\n" + "".join(map(_function, tools)) + "} // namespace functions"


def _function(tool: ToolSpec) -> str:
    lead = _comment(tool.description)
    if tool.parameters is None:
        return f"{lead}type {tool.name} = () => any;\n\n"
    schema = tool.parameters
    members = _mapping(schema.get("properties"))
    return f"{lead}type {tool.name} = (_: {{\n{_members(schema, members, depth=0)}}}) => any;\n\n"


def _members(schema: Mapping[str, Any], members: Mapping[str, Any], *, depth: int) -> str:
    required = schema.get("required")
    needed = required if isinstance(required, list) else []
    lines = []
    for name, given in members.items():
        member = _mapping(given)
        default = f", // default: {compact(member['default'])}" if "default" in member else ","
        mark = "" if name in needed else "?"
        lines.append(f"{_comment(member.get('description'))}{name}{mark}: {_type(member, depth=depth + 1)}{default}\n")
    return "".join(lines)


def _type(schema: Mapping[str, Any], *, depth: int) -> str:
    if depth > MAX_DEPTH:
        return "any"
    choices = schema.get("enum")
    if isinstance(choices, list):
        return " | ".join(map(compact, choices))
    union = schema.get("oneOf") or schema.get("anyOf")
    if isinstance(union, list):
        return " | ".join(_type(_mapping(one), depth=depth + 1) for one in union)
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(_type({**schema, "type": one}, depth=depth + 1) for one in kind)
    if kind == "array":
        return f"{_type(_mapping(schema.get('items')), depth=depth + 1)}[]"
    if kind == "object":
        members = _mapping(schema.get("properties"))
        return f"{{\n{_members(schema, members, depth=depth)}}}" if members else "object"
    return _TYPES.get(kind, "any") if isinstance(kind, str) else "any"


def _comment(text: object) -> str:
    """Each line of a description after ``// ``."""
    if not isinstance(text, str) or not text:
        return ""
    return "".join(f"// {line}\n" for line in text.split("\n"))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
