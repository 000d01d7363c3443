import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.formats.fields import MAX_DEPTH, Fields, read_object, write_object


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"   ", "empty"),
        (b"{", "not valid JSON"),
        (b"[1]", "not an array"),
        (b"null", "not null"),
        (b'"x"', "not a string"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": "\xff"}', "not valid UTF-8 (byte 7)"),
        (b'{"a": "\\ud800", "b": NaN}', "NaN"),
        (b'{"a": "\\ud800", }', "not valid JSON"),
        (b'{"a":' * 150_000, "deeper than"),
        (b'{"a": "\\ud800", "b":' + b"[" * 100_000, "deeper than"),
        (b'{"a":' + b"[" * 300 + b"]" * 300 + b"}", "deeper than 200"),
        (b'{"a": "\\ud800", "b":' + b"[" * 300 + b"]" * 300 + b"}", "deeper than 200"),
    ],
)
def test_read_object_refuses_with_a_reason(body: bytes, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_object(body)
    assert words in caught.value.message
    assert caught.value.code == "invalid_json"


def test_read_object_takes_a_body_as_deep_as_allowed() -> None:
    body = b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}"
    assert write_object(read_object(body)) == body


def test_read_object_takes_wide_bodies() -> None:
    assert len(read_object(orjson.dumps({"a": [[i] for i in range(5000)]}))["a"]) == 5000


def test_lone_surrogates_survive_reading_and_writing() -> None:
    value = read_object(b'{"a": "x\\ud800y"}')
    assert value == {"a": "x\ud800y"}
    assert json.loads(write_object(value)) == value


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(-(2**53), 2**53), st.booleans(), st.none())))
def test_write_object_is_read_back(value: dict[str, object]) -> None:
    assert read_object(write_object(value)) == value


def test_paths_name_the_field_when_nested() -> None:
    body = Fields({"messages": [{"content": "x"}, {"content": 3}]})
    first, second = body.children("messages")
    assert first.required_text("content") == "x"
    with pytest.raises(BadRequest) as caught:
        second.text("content")
    assert caught.value.param == "messages[1].content"
    assert "must be a string, not an integer" in caught.value.message


def test_children_refuse_an_element_that_is_no_object() -> None:
    with pytest.raises(BadRequest) as caught:
        list(Fields({"tools": [{}, "x"]}).children("tools"))
    assert caught.value.param == "tools[1]"


@pytest.mark.parametrize("name", ["text", "required_text", "integer", "boolean", "array", "mapping", "child"])
@pytest.mark.parametrize("value", ["x", 3, True, [1], {"a": 1}, 2.5])
def test_readers_take_their_type_and_refuse_others(name: str, value: object) -> None:
    takes = {
        "text": str,
        "required_text": str,
        "integer": int,
        "boolean": bool,
        "array": list,
        "mapping": dict,
        "child": dict,
    }
    fields = Fields({"f": value})
    if type(value) is takes[name]:
        assert getattr(fields, name)("f") is not None
    else:
        with pytest.raises(BadRequest) as caught:
            getattr(fields, name)("f")
        assert caught.value.param == "f"


def test_null_counts_as_absent() -> None:
    fields = Fields({"f": None})
    assert not fields.has("f")
    assert fields.text("f", default="d") == "d"
    assert fields.optional_text("f") is None
    assert fields.integer("f") is None
    assert fields.boolean("f", default=True) is True
    assert fields.array("f") is None
    assert fields.child("f") is None
    assert list(fields.children("f")) == []
    for read in (fields.required_text, fields.required_child):
        with pytest.raises(BadRequest, match="'f' is missing"):
            read("f")


def test_integer_reads_whole_floats_and_keeps_its_minimum() -> None:
    assert Fields({"n": 3.0}).integer("n") == 3
    with pytest.raises(BadRequest, match="at least 1"):
        Fields({"n": 0}).integer("n", minimum=1)
