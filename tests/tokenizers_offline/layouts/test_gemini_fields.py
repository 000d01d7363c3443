"""The walk over schemas and values that Gemini 2.0 and Vertex AI count by."""

from __future__ import annotations

from tokenizers_offline.layouts.gemini_fields import count_typed, walk_schema, walk_value

SCHEMA = {
    "type": "OBJECT",
    "title": "T",
    "properties": {
        "kind": {"type": "STRING", "enum": ["a", "b"], "default": "a"},
        "many": {"type": "ARRAY", "items": {"type": "NUMBER", "format": "float", "description": "D"}},
        "odd": 5,
    },
    "required": ["kind"],
    "propertyOrdering": ["kind", "many"],
}


def test_schema_yields_every_string_that_counts() -> None:
    assert sorted(walk_schema(SCHEMA)) == sorted(
        ["T", "kind", "kind", "many", "kind", "many", "odd", "a", "a", "b", "float", "D"]
    )


def test_typed_nodes_are_counted_at_any_depth() -> None:
    assert count_typed(SCHEMA) == 4
    assert count_typed({"anyOf": [{"type": "STRING"}, {"any_of": [{"type": "NULL"}]}, 5]}) == 2


def test_values_yield_keys_and_strings() -> None:
    assert list(walk_value({"a": "x", "b": [1, {"c": "y"}], "d": None})) == ["a", "b", "d", "x", "c", "y"]
