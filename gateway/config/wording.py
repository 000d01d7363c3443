"""Validation errors in the words of config.yaml: what stands there, why not, what to write instead."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from gateway.config.document import Document, Route
from gateway.config.fields import DIGEST_REMEDY
from gateway.config.problems import Problem, did_you_mean
from gateway.config.schema import ConfigFile

_SECRET_FIELDS = {"api_key", "upstream_key", "digest", "key", "headers", "secret", "webhook", "admin"}
"""What stands in these is not shown: a webhook's address often is its own credential."""
_LOOKS_SECRET = re.compile(r"@|\b(?:sk-|whsec_)")
_NO_SPACE = re.compile(r"([A-Za-z_][\w-]*):([^\s/]\S*)")
_KINDS = {
    "string_type": "is not text",
    "int_type": "is not a whole number",
    "int_parsing": "is not a whole number",
    "int_from_float": "is not a whole number",
    "float_type": "is not a number",
    "float_parsing": "is not a number",
    "finite_number": "is not a finite number",
    "bool_type": "is not true or false",
    "bool_parsing": "is not true or false",
    "tuple_type": "is not a list",
    "dict_type": "is not a mapping",
    "model_type": "is not a mapping",
    "string_too_short": "is empty",
}


def word_errors(error: ValidationError, document: Document) -> list[Problem]:
    """Turn pydantic's errors into problems with places, one for each place."""
    problems: dict[str, Problem] = {}
    for detail in error.errors(include_url=False):
        if (problem := _word(detail, document)) is not None:
            problems.setdefault(problem.place, problem)
    return list(problems.values())


def _word(detail: ErrorDetails, document: Document) -> Problem | None:
    route = _route(detail["loc"], document.data)
    kind = detail["type"]
    name = next((step for step in reversed(route) if isinstance(step, str)), "the file")
    field = _field(route)
    if kind == "extra_forbidden":
        return _unknown(route, document)
    if kind == "missing":
        if len(route) == 1 and name in document.damaged:
            return None
        if name == "digest" and "key" in detail["input"]:
            return None  # the plain key is the mistake
        owner = _owner(route[:-1])
        example = _example(name, field)
        return Problem(document.place(route[:-1]), f"{owner} has no `{name}`", f"add `{example}`")
    shown = _shown(route, name, document)
    place = document.place(route)
    context = detail.get("ctx", {})
    if kind == "mistake" and detail["input"] is not None:
        return Problem(place, f"{shown} {context['what']}", str(context["remedy"]))
    if kind == "literal_error":
        expected = str(context["expected"]).replace("'", "`").replace(" or ", ", ")
        return Problem(place, f"{shown} is not one of the values it may have", _nearest(detail["input"], expected))
    if kind in ("greater_than_equal", "less_than_equal"):
        bound = context.get("ge", context.get("le"))
        word = "below" if kind == "greater_than_equal" else "above"
        return Problem(place, f"{shown} is {word} {bound}", f"write `{_example(name, field)}`")
    what = _KINDS.get(kind, detail["msg"].lower())
    remedy = f"write `{_example(name, field)}`"
    written = str(document.written.get(route, detail["input"]))
    if kind in ("string_type", "tuple_type") and isinstance(detail["input"], (int, float)) and field is None:
        what, remedy = "is not text", f'put it in quotes: `"{written}"`'
    elif kind == "string_type" and isinstance(detail["input"], (int, float, bool)):
        remedy = f'put it in quotes: `"{written}"`'
    elif kind == "model_type" and (lacks_space := _NO_SPACE.fullmatch(written)) and not _LOOKS_SECRET.search(written):
        remedy = f"write a space after the colon: `{lacks_space[1]}: {lacks_space[2]}`"
    elif kind == "bool_parsing" or kind == "bool_type":
        remedy = "write `true` or `false`"
    elif detail["input"] is None:
        what = "is empty"
        remedy = f"write `{_example(name, field)}`, or remove the line"
        if field is None:
            remedy = "write a value after the colon, or remove the line"
    return Problem(place, f"{shown} {what}", remedy)


def _unknown(route: Route, document: Document) -> Problem:
    name = str(route[-1])
    place = document.place(route, of_value=False)
    if name == "key" and route[0] in ("keys", "admin"):
        return Problem(
            place, "`key` would put a plain key into this file, where only its digest may stand", DIGEST_REMEDY
        )
    model = _model(route[:-1])
    known = list(model.model_fields) if model else []
    if (belongs := _home(name, model)) is not None:
        return Problem(place, f"there is no field `{name}` {_inside(route)}", belongs)
    where = f" in {_owner(route[:-1])}" if len(route) > 1 else ""
    return Problem(place, f"there is no field `{name}`{where}", did_you_mean(name, known))


def _inside(route: Route) -> str:
    return f"in {_owner(route[:-1])}" if len(route) > 1 else "at the top of the file"


def _home(name: str, model: type[BaseModel] | None) -> str | None:
    """Where a field belongs that is one of a section inside this one, or of the file; None where that is not clear."""
    if model is None:
        return None
    inner = [
        section
        for section, field in model.model_fields.items()
        if (found := _model_inside(field.annotation)) is not None and name in found.model_fields
    ]
    if len(inner) == 1:
        many = typing.get_origin(model.model_fields[inner[0]].annotation) is tuple
        return f"it belongs in {'an item of ' if many else ''}`{inner[0]}`"
    if model is not ConfigFile and not inner and name in ConfigFile.model_fields:
        return "it belongs to the top of the file, with no space before it"
    return None


def _nearest(value: Any, expected: str) -> str:
    known = [each.strip("` ") for each in expected.split(",")]
    remedy = did_you_mean(value, known) if isinstance(value, str) else ""
    return remedy if remedy.startswith("did you mean") else "write one of " + expected


def _shown(route: Route, name: str, document: Document) -> str:
    written = document.written.get(route)
    if route and isinstance(route[-1], int):
        whole = written is None or _LOOKS_SECRET.search(written) or any(step in _SECRET_FIELDS for step in route)
        return f"an item of `{name}`" if whole else f"`{written}` in `{name}`"
    if (
        not written
        or len(written) > 60
        or _LOOKS_SECRET.search(written)
        or any(step in _SECRET_FIELDS for step in route)
    ):
        return f"`{name}`"
    return f"`{name}: {written}`"


def _owner(route: Route) -> str:
    """Name a section for people."""
    if not route:
        return "the file"
    if isinstance(route[-1], int):
        parent = str(route[-2])
        return f"`{parent}` item {route[-1] + 1}"
    return f"`{route[-1]}`"


def _example(name: str, field: FieldInfo | None) -> str:
    examples = (field.examples or []) if field else []
    return f"{name}: {examples[0]}" if examples else f"{name}: ..."


def _route(loc: tuple[int | str, ...], data: Any) -> Route:
    """The part of pydantic's location that exists in the data, plus one step for what is missing there."""
    route: list[int | str] = []
    for step in loc:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            missing = isinstance(data, Mapping) and isinstance(step, str) and step == loc[-1]
            return (*route, step) if missing else tuple(route)
        route.append(step)
    return tuple(route)


def _model(route: Route) -> type[BaseModel] | None:
    model: type[BaseModel] | None = ConfigFile
    for step in route:
        if isinstance(step, int):
            continue
        if model is None or step not in model.model_fields:
            return None
        model = _model_inside(model.model_fields[step].annotation)
    return model


def _field(route: Route) -> FieldInfo | None:
    named = [(index, step) for index, step in enumerate(route) if isinstance(step, str)]
    if not named:
        return None
    index, name = named[-1]
    model = _model(route[:index])
    return model.model_fields.get(name) if model else None


def _model_inside(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in typing.get_args(annotation):
        if (found := _model_inside(inner)) is not None:
            return found
    return None
