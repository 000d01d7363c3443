"""How Gemini 2.5 in AI Studio is shown tools: as Python stubs, calls and results of a ``default_api``.

Models of that generation recite the form when asked for their prompt (public transcripts); rendered so, every one of
37 distinct recorded tool lists counts to the reported token, but one that is a token off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizers_offline.prompt import ToolSpec

_SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_REFERENCE_LEVELS = 4
"""A schema that refers to itself is unrolled this often; deeper references read ``Any``."""
_MAX_NODES = 20_000
"""Past this a tool's schema is a bomb, not a tool: what is left reads ``Any``."""


class _Stub:
    """One tool's classes and function."""

    def __init__(self, tool: ToolSpec) -> None:
        self._tool = tool
        schema = tool.parameters or {}
        self._schema = schema
        definitions = schema.get("$defs") or schema.get("definitions")
        self._definitions = definitions if isinstance(definitions, Mapping) else {}
        self._classes: list[str] = []
        self._nodes = 0

    def render(self) -> str:
        fields = self._read_fields(self._schema, (self._tool.name,), 0)
        parameters = "".join(f"    {name}: {annotation},\n" for name, annotation, _ in fields)
        lines = (self._tool.description or "").split("\n")
        indented = "\n".join([lines[0], *(f"  {line}" if line.strip() else line for line in lines[1:])])
        described = "".join(f"    {name}: {text}\n" for name, _, text in fields)
        head = f'def {self._tool.name}(\n{parameters}) -> dict:\n  """{indented}\n\n  Args:\n{described}  """\n'
        return "".join(self._classes) + head

    def _read_fields(self, schema: Mapping[str, Any], path: tuple[str, ...], level: int) -> list[tuple[str, str, str]]:
        """Name, annotation and description of each property."""
        properties = schema.get("properties")
        required = schema.get("required")
        names = required if isinstance(required, list) else []
        fields = []
        for name, inner in properties.items() if isinstance(properties, Mapping) else ():
            schema_of = inner if isinstance(inner, Mapping) else {}
            annotation = self._annotate(schema_of, (*path, name), level)
            text = schema_of.get("description") or self._follow(schema_of).get("description") or ""
            fields.append((name, annotation if name in names else f"{annotation} | None = None", str(text)))
        return fields

    def _follow(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return {}
        found = self._definitions.get(reference.rpartition("/")[2])
        return found if isinstance(found, Mapping) else {}

    def _annotate(self, schema: Mapping[str, Any], path: tuple[str, ...], level: int) -> str:
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            return "Any"
        if "$ref" in schema:
            if level > _REFERENCE_LEVELS:
                return "Any"
            return self._annotate(self._follow(schema), path, level + 1)
        options = schema.get("anyOf") or schema.get("any_of")
        if isinstance(options, list):
            kinds = (self._annotate(option, path, level) for option in options if isinstance(option, Mapping))
            return " | ".join(dict.fromkeys(kinds))
        if isinstance(schema.get("enum"), list):
            return f"Literal[{', '.join(json.dumps(value, ensure_ascii=False) for value in schema['enum'])}]"
        kind = str(schema.get("type", "")).lower()
        if kind == "array":
            items = schema.get("items")
            return f"list[{self._annotate(items, path, level) if isinstance(items, Mapping) else 'Any'}]"
        if kind == "object":
            return self._define(schema, path, level) if schema.get("properties") else "dict"
        return _SCALARS.get(kind, "Any")

    def _define(self, schema: Mapping[str, Any], path: tuple[str, ...], level: int) -> str:
        name = "".join(word[:1].upper() + word[1:] for part in path for word in part.split("_"))
        fields = self._read_fields(schema, path, level)
        described = "".join(f"    {field}: {text}\n" for field, _, text in fields)
        attributes = "".join(f"  {field}: {annotation}\n" for field, annotation, _ in fields)
        docstring = f'  """{schema.get("description") or ""}\n\n  Attributes:\n{described}  """\n'
        self._classes.append(f"@dataclasses.dataclass(kw_only=True)\nclass {name}:\n{docstring}{attributes}\n\n")
        return name


def render_tool(tool: ToolSpec) -> str:
    """A tool as the model is shown it; tools stand apart, so each may be encoded by itself."""
    return _Stub(tool).render()


def render_call(name: str, arguments: Mapping[str, Any]) -> str:
    """A call of an earlier turn."""
    given = ", ".join(f"{key} = {_literal(value)}" for key, value in arguments.items())
    return f"print(default_api.{name}({given}))"


def render_result(name: str, response: object) -> str:
    """What a call brought back; the keys of its objects are in alphabetical order, as a protobuf Struct's are."""
    return _literal({f"{name}_response": response})


def _literal(value: object) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
        return f"'{escaped}'"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return f"[{', '.join(_literal(item) for item in value)}]"
    return repr(value)
