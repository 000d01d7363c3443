from hypothesis import given
from hypothesis import strategies as st

from tokenizers_offline.layouts.openai_schema import render_namespace, render_tools
from tokenizers_offline.prompt import ToolSpec


def body_of(schema: dict[str, object], *, whole_limits: bool = False) -> str:
    text = render_namespace([ToolSpec("f", None, schema)], whole_limits=whole_limits).text
    return text.removeprefix("namespace functions {\n\ntype f = ").removesuffix(";\n\n} // namespace functions")


def one(schema: dict[str, object], *, whole_limits: bool = False) -> str:
    written = body_of({"type": "object", "properties": {"a": schema}, "required": ["a"]}, whole_limits=whole_limits)
    return written.removeprefix("(_: {\n").removesuffix("}) => any")


def test_functions_without_parameters_take_nothing() -> None:
    tools = [ToolSpec("f", "Does it.\n\n  Well. ", None), ToolSpec("g", "", {"type": "object", "properties": {}})]
    assert render_namespace(tools).text == (
        "namespace functions {\n\n// Does it.\n// Well.\ntype f = () => any;\n\ntype g = () => any;\n\n"
        "} // namespace functions"
    )


def test_plain_properties_end_on_the_closing_line() -> None:
    schema = {"properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"]}
    assert body_of(schema) == "(_: {\na: string,\nb?: number }) => any"


def test_comments_titles_and_defaults_stand_around_a_property() -> None:
    assert one({"type": "string", "title": "A", "description": "x\ny"}) == "// A\n// x\n// y\na: string,\n"
    assert one({"type": "boolean", "default": False}) == "a: boolean, // default: false\n"
    schema = {"title": "T", "description": "D", "properties": {"a": {"type": "null"}}}
    assert body_of(schema) == "(_: // T\n// D\n{\na?: null }) => any"


def test_types_of_every_kind_are_written() -> None:
    assert one({"enum": ["a", 1, None]}) == 'a: "a" | 1 | null '
    assert one({"const": "x"}) == 'a: "x" '
    assert one({"type": "array", "items": {"type": "number"}}) == "a: number[] "
    assert one({"type": "array"}) == "a: any[] "
    assert one({"type": "object"}) == "a: object "
    assert one({"type": ["string", "null"]}) == "a: string | null "
    assert one({"anyOf": [{"type": "string"}, {"type": "null"}]}) == "a: string | null "
    assert one({}) == "a: any "
    assert one({"type": "object", "properties": {"b": {"type": "string"}}}) == "a: {\nb?: string } "


def test_commented_types_take_lines_of_their_own() -> None:
    assert one({"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]}) == (
        'a:\n | string // format: "date"\n | null\n,\n'
    )
    assert one({"type": ["string", "null"], "description": "d"}) == ("// d\na:\n// d\n | string\n// d\n | null\n,\n")
    item = {"type": "object", "title": "I", "properties": {"b": {"type": "string", "description": "d"}}}
    assert one({"type": "array", "items": item}) == "a: Array<\n// I\n{\n// d\nb?: string,\n}\n>,\n"


def test_bounds_are_floats_or_as_they_came() -> None:
    schema = {"type": "integer", "minimum": 1}
    assert one(schema) == "a: number // minimum: 1.0\n,\n"
    assert one(schema, whole_limits=True) == "a: number, // minimum: 1\n"


def test_references_are_written_in_place() -> None:
    schema = {
        "$defs": {"P": {"type": "object", "title": "P", "properties": {"x": {"type": "number"}}}},
        "properties": {"a": {"$ref": "#/$defs/P"}, "b": {"$ref": "#/nowhere"}},
    }
    assert body_of(schema) == "(_: {\n// P\na?: {\nx?: number },\nb?: any }) => any"


def test_unseen_keywords_are_named_as_unsure() -> None:
    tools = [ToolSpec("f", None, {"properties": {"a": {"type": "string", "pattern": "x"}}})]
    assert render_namespace(tools).unsure == ("pattern",)
    assert render_namespace([ToolSpec("f", None, {"properties": {"a": {"type": "string"}}})]).unsure == ()


def test_schemas_that_refer_to_themselves_are_cut_and_unsure() -> None:
    branches = {f"p{i}": {"$ref": "#/$defs/A"} for i in range(20)}
    schema = {"$defs": {"A": {"type": "object", "properties": branches}}, "properties": branches}
    written = render_namespace([ToolSpec("f", None, schema)])
    assert "any" in written.text
    assert "$ref" in written.unsure
    assert len(written.text) < 1_000_000


def test_render_tools_remembers_what_render_namespace_writes() -> None:
    tools = [ToolSpec("f", "d", {"properties": {"a": {"type": "string", "pattern": "x"}}})]
    assert render_tools(tools) == render_tools(list(tools)) == render_namespace(tools)
    odd = [ToolSpec("f", "\ud800", None)]  # cannot be a key
    assert render_tools(odd) == render_namespace(odd)


keywords = st.sampled_from(
    ["type", "properties", "items", "anyOf", "enum", "$ref", "required", "default", "minimum", "title", "description"]
)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["object", "array", "#", "x"]))
schemas = st.recursive(
    leaves, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keywords, inner, max_size=4))
)


@given(st.dictionaries(keywords, schemas))
def test_no_schema_makes_the_writer_raise(schema: dict[str, object]) -> None:
    assert render_namespace([ToolSpec("f", None, schema)]).text.endswith("} // namespace functions")
