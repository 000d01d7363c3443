"""How Gemini 3 in AI Studio is shown tools: the declaration form that Google documents for FunctionGemma.

Markers and quotes are special tokens, one each: a text here is a list of plain stretches and every joint is a
marker. Rendered so, all 22 distinct tool lists recorded with Gemini 3 models count to the reported token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizers_offline.prompt import ToolSpec

MARK = "\x00"
"""Stands for one special token. A caller's own NUL characters are dropped before."""


def render_tool(tool: ToolSpec) -> str:
    """A tool between its two markers."""
    parts = []
    if tool.description:
        parts.append(f"description:{_quote(tool.description)}")
    if tool.parameters is not None:
        parts.append(f"parameters:{{{_render_schema(tool.parameters, _is_json_schema(tool))}}}")
    return f"{MARK}declaration:{_clean(tool.name)}{{{','.join(parts)}}}{MARK}"


def render_call(name: str, arguments: Mapping[str, Any]) -> str:
    """A call of an earlier turn."""
    return f"{MARK}call:{_clean(name)}{_render_value(arguments)}{MARK}"


def render_result(name: str, response: object) -> str:
    """What a call brought back."""
    return f"{MARK}response:{_clean(name)}{_render_value(response)}{MARK}"


def _is_json_schema(tool: ToolSpec) -> bool:
    return "parameters" not in tool.raw


def _render_schema(schema: Mapping[str, Any], json_schema: bool) -> str:
    parts = []
    if isinstance(schema.get("description"), str):
        parts.append(f"description:{_quote(schema['description'])}")
    if isinstance(schema.get("enum"), list):
        parts.append(f"enum:{_render_value([str(value) for value in schema['enum']])}")
        if json_schema:
            parts.append(f"format:{_quote('enum')}")
    if isinstance(schema.get("items"), Mapping):
        parts.append(f"items:{{{_render_schema(schema['items'], json_schema)}}}")
    if schema.get("nullable") is True:
        parts.append("nullable:true")
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and properties:
        inner = (
            f"{_clean(name)}:{{{_render_schema(properties[name], json_schema)}}}"
            for name in sorted(properties)
            if isinstance(properties[name], Mapping)
        )
        parts.append(f"properties:{{{','.join(inner)}}}")
    if schema.get("required"):
        parts.append(f"required:{_render_value(schema['required'])}")
    if isinstance(schema.get("title"), str):
        parts.append(f"title:{_quote(schema['title'])}")
    if isinstance(schema.get("type"), str):
        parts.append(f"type:{_quote(schema['type'].upper())}")
    return ",".join(parts)


def _render_value(value: object) -> str:
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_clean(key)}:{_render_value(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_render_value(item) for item in value) + "]"
    return json.dumps(value)


def _quote(text: str) -> str:
    return f"{MARK}{_clean(text)}{MARK}"


def _clean(text: str) -> str:
    return text.replace(MARK, "")
