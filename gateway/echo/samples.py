"""The smallest value that a JSON schema takes, for tool arguments and structured answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MOST_DEPTH = 12


def sample(schema: Mapping[str, Any]) -> Any:
    """A value for a schema: constants, defaults, first choices, required properties."""
    return _sample(schema, schema, "value", 0)


def _sample(schema: Any, root: Mapping[str, Any], name: str, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > _MOST_DEPTH:
        return None
    for fixed in ("const", "default"):
        if fixed in schema:
            return schema[fixed]
    enum = schema.get("enum")
    if isinstance(enum, list) and enum:
        return enum[0]
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return _sample(_follow(reference, root), root, name, depth + 1)
    for choices in ("anyOf", "oneOf", "allOf"):
        several = schema.get(choices)
        if isinstance(several, list) and several:
            return _sample(several[0], root, name, depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), "null")
    if kind is None and "properties" in schema:
        kind = "object"
    match str(kind).lower():
        case "object":
            return _sample_object(schema, root, depth)
        case "array":
            return [_sample(schema.get("items", {}), root, name, depth + 1)] if "items" in schema else []
        case "integer":
            return int(_least(schema, 1))
        case "number":
            return float(_least(schema, 1))
        case "boolean":
            return True
        case "null":
            return None
    return name


def _sample_object(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return {}
    required = schema.get("required")
    names = [name for name in required if name in properties] if isinstance(required, list) else list(properties)
    return {name: _sample(properties[name], root, name, depth + 1) for name in names}


def _least(schema: Mapping[str, Any], otherwise: int) -> float:
    least = schema.get("minimum")
    return least if isinstance(least, int | float) and not isinstance(least, bool) else otherwise


def _follow(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for step in reference.removeprefix("#/").split("/"):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found
