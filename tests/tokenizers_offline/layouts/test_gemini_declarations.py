"""The declarations that Gemini 3 is shown; `|` stands for a marker here."""

from __future__ import annotations

from typing import Any

import pytest

from tokenizers_offline.layouts.gemini_declarations import MARK, render_call, render_result, render_tool
from tokenizers_offline.prompt import ToolSpec


def shown(text: str) -> str:
    return text.replace(MARK, "|")


def declare(parameters: dict[str, Any] | None, *, description: str = "", json_schema: bool = False) -> str:
    raw = {"parametersJsonSchema" if json_schema else "parameters": parameters}
    return shown(render_tool(ToolSpec("find", description, parameters, raw=raw)))


@pytest.mark.parametrize(
    ("parameters", "description", "expected"),
    [
        (None, "", "|declaration:find{}|"),
        ({"type": "object", "properties": {}}, "", "|declaration:find{parameters:{type:|OBJECT|}}|"),
        (
            {"type": "OBJECT", "properties": {"b": {"type": "string"}, "a": {"type": "integer"}}, "required": ["b"]},
            "Finds.",
            (
                "|declaration:find{description:|Finds.|,parameters:{properties:{a:{type:|INTEGER|},b:{type:|STRING|}},"
                "required:[|b|],type:|OBJECT|}}|"
            ),
        ),
        (
            {"type": "array", "items": {"type": "string", "title": "T", "nullable": True}},
            "",
            "|declaration:find{parameters:{items:{nullable:true,title:|T|,type:|STRING|},type:|ARRAY|}}|",
        ),
    ],
)
def test_declaration_of_a_tool(parameters: dict[str, Any] | None, description: str, expected: str) -> None:
    assert declare(parameters, description=description) == expected


def test_enum_gets_a_format_when_it_came_as_json_schema() -> None:
    schema = {"type": "string", "enum": ["x"]}
    assert declare(schema) == "|declaration:find{parameters:{enum:[|x|],type:|STRING|}}|"
    assert "enum:[|x|],format:|enum|,type" in declare(schema, json_schema=True)


def test_values_are_quoted_by_markers_and_sorted() -> None:
    assert shown(render_call("f", {"b": [1, True, None], "a": "x"})) == "|call:f{a:|x|,b:[1,true,null]}|"
    assert shown(render_result("f", {"r": {"k": "v"}})) == "|response:f{r:{k:|v|}}|"


def test_a_callers_own_mark_cannot_pose_as_one() -> None:
    assert render_call("f", {"a": f"x{MARK}y"}).count(MARK) == 4
