"""The answer's JSON schema, as OpenAI shows it to its models."""

from __future__ import annotations

import json
from typing import Any

from tokenizers_offline.layouts.openai_schema import MAX_DEPTH
from tokenizers_offline.prompt import OutputSchema

# JSON Schema's validation keywords constrain decoding and are not shown (observed: all but those never sent).
_HIDDEN = frozenset(
    {"default", "exclusiveMaximum", "exclusiveMinimum", "format", "maxItems", "maxLength", "maxProperties", "maximum"}
    | {"minItems", "minLength", "minProperties", "minimum", "multipleOf", "pattern", "required", "uniqueItems"}
)
_NAMED = frozenset({"$defs", "definitions", "patternProperties", "properties"})
"""Keywords whose value maps names to schemas, so that its keys are no keywords."""
_LITERAL = frozenset({"const", "enum", "examples"})


def render_output_schema(output: OutputSchema) -> str:
    """Heading, description and the schema as compact ASCII JSON."""
    comment = f"// {output.description}\n" if output.description else ""
    shown = json.dumps(_hide(output.schema or {}), separators=(",", ":"), default=str)
    return f"# Response Formats\n\n## {output.name}\n\n{comment}{shown}"


def _hide(schema: Any, *, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        return schema
    if isinstance(schema, list):
        return [_hide(item, depth=depth + 1) for item in schema]
    if not isinstance(schema, dict):
        return schema
    shown: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in _HIDDEN or (keyword == "additionalProperties" and value is False):
            continue
        if keyword in _NAMED and isinstance(value, dict):
            shown[keyword] = {name: _hide(member, depth=depth + 1) for name, member in value.items()}
        else:
            shown[keyword] = value if keyword in _LITERAL else _hide(value, depth=depth + 1)
    return shown
