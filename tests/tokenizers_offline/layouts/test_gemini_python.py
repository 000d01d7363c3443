"""The Python stubs that Gemini 2.5 is shown."""

from __future__ import annotations

from typing import Any

from tokenizers_offline.layouts.gemini_python import render_call, render_result, render_tool
from tokenizers_offline.prompt import ToolSpec


def stub(properties: dict[str, Any], *, required: tuple[str, ...] = (), **schema: Any) -> str:
    parameters = {"type": "object", "properties": properties, "required": list(required), **schema}
    return render_tool(ToolSpec("find_it", "Finds it.", parameters))


def test_stub_of_a_tool_without_parameters() -> None:
    assert render_tool(ToolSpec("now", None, None)) == 'def now(\n) -> dict:\n  """\n\n  Args:\n  """\n'


def test_stub_annotates_required_and_optional_parameters() -> None:
    rendered = stub(
        {
            "text": {"type": "STRING", "description": "What"},
            "limit": {"type": "integer"},
            "kinds": {"type": "array", "items": {"enum": ["a", "b"]}},
            "free": {"type": "object"},
            "either": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        },
        required=("text",),
    )
    assert rendered.startswith(
        "def find_it(\n"
        "    text: str,\n"
        "    limit: int | None = None,\n"
        '    kinds: list[Literal["a", "b"]] | None = None,\n'
        "    free: dict | None = None,\n"
        "    either: float | None | None = None,\n"
        ") -> dict:\n"
    )
    assert "    text: What\n    limit: \n" in rendered


def test_stub_indents_further_lines_of_a_description() -> None:
    rendered = render_tool(ToolSpec("now", "First.\n\nSecond.", None))
    assert '  """First.\n\n  Second.\n\n  Args:\n' in rendered


def test_nested_objects_become_dataclasses_before_the_function() -> None:
    rendered = stub(
        {"home_town": {"type": "object", "description": "Where", "properties": {"zip": {"type": "string"}}}}
    )
    assert rendered.startswith(
        "@dataclasses.dataclass(kw_only=True)\nclass FindItHomeTown:\n"
        '  """Where\n\n  Attributes:\n    zip: \n  """\n  zip: str | None = None\n\n\n'
    )
    assert "home_town: FindItHomeTown | None = None" in rendered


def test_a_schema_that_refers_to_itself_is_unrolled_four_levels() -> None:
    node = {"type": "object", "description": "A node", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    rendered = stub({"first": {"$ref": "#/$defs/Node"}}, **{"$defs": {"Node": node}})
    assert rendered.count("class ") == 5
    assert "next: Any" in rendered
    assert "    first: A node\n" in rendered


def test_a_schema_bomb_ends() -> None:
    bomb = {"anyOf": [{"$ref": "#/$defs/B"}] * 100}
    assert len(stub({"x": {"$ref": "#/$defs/B"}}, **{"$defs": {"B": bomb}})) < 10_000_000


def test_hostile_schemas_are_read_as_far_as_they_make_sense() -> None:
    for properties in ({"a": 5}, {"a": {"enum": "x"}}, {"a": {"items": 5, "type": "array"}}, {"a": {"anyOf": [5]}}):
        assert "a: " in stub(properties)
    assert render_tool(ToolSpec("f", "", {"properties": 5, "required": 5, "$defs": 5})).startswith("def f(")


def test_call_writes_python_literals() -> None:
    given = {"text": "it's", "on": True, "of": None, "by": [1, {"k": "v"}]}
    assert (
        render_call("f", given) == "print(default_api.f(text = 'it\\'s', on = True, of = None, by = [1, {'k': 'v'}]))"
    )


def test_result_sorts_its_keys() -> None:
    assert render_result("f", {"b": 1, "a": "x\ny"}) == "{'f_response': {'a': 'x\\ny', 'b': 1}}"
