"""The reference of config.yaml as Markdown, written from the models that validate it (``make fix`` renews it).

``python -m gateway.config.reference FILE`` replaces what stands between the two marks in FILE.
"""

from __future__ import annotations

import sys
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from gateway.config.schema import ConfigFile

BEGIN = "<!-- fields: written by gateway/config/reference.py -->"
END = "<!-- end of fields -->"

_SHOWN_DEFAULTS = {
    "max_body": "`32MiB`",
    "shutdown_timeout": "`30s`",
    "header_timeout": "`15s`",
    "body_timeout": "`2m`",
    "keepalive_timeout": "`75s`",
    "hold_timeout": "`10m`",
    "retention": "`30d`",
    "connect_timeout": "`10s`",
    "timeout": "`10m`",
    "idle_timeout": "`5m`",
}
"""Durations and sizes are kept as numbers; here they read as they are written."""


def reference() -> str:
    """Every section with its fields: default, example, meaning."""
    sections = list(_sections(ConfigFile, "", many=False))
    return "\n\n".join([_table("The file", ConfigFile), *(_table(f"`{path}`", model) for path, model in sections)])


def renewed(text: str) -> str:
    """Return a document with the reference between its marks replaced."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


def _sections(model: type[BaseModel], path: str, *, many: bool) -> typing.Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        inner, is_many, by_name = _inside(field.annotation)
        if inner is None:
            continue
        own = f"{path}.{name}" if path else name
        own += "[]" if is_many else ".NAME" if by_name else ""
        yield own, inner
        yield from _sections(inner, own, many=is_many)


def _inside(annotation: Any) -> tuple[type[BaseModel] | None, bool, bool]:
    """The section inside an annotation, and whether it is a list or a mapping of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False, False
    origin = typing.get_origin(annotation)
    for inner in typing.get_args(annotation):
        found, _, _ = _inside(inner)
        if found is not None:
            return found, origin is tuple, origin is dict
    return None, False, False


def _table(title: str, model: type[BaseModel]) -> str:
    lines = [f"### {title}", "", "| field | default | example | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        example = _cell(str((field.examples or [""])[0]))
        lines.append(f"| `{name}` | {_default(name, field)} | `{example}` | {_cell(field.description or '')} |")
    return "\n".join(lines)


def _default(name: str, field: Any) -> str:
    if field.is_required():
        return "required"
    if name in _SHOWN_DEFAULTS:
        return _SHOWN_DEFAULTS[name]
    default = field.default
    if default is PydanticUndefined or default in (None, (), ""):
        return "-"
    if default == ("*",):
        return '`"*"`'
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(renewed(target.read_text(encoding="utf-8")), encoding="utf-8")
