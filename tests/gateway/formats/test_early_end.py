"""Streams ended early: what is written can be read by this API's own reader as a whole answer."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.formats import match
from gateway.formats.base import Call, RequestFormat
from gateway.formats.early_end import ElementSplitter
from policies.usage import Usage

USAGE = Usage(11, 7, source="counted")
MESSAGES = [{"role": "user", "content": "Hi"}]
STREAMS = [
    ("/v1/chat/completions", {"messages": MESSAGES, "stream_options": {"include_usage": True}}, "text/event-stream"),
    ("/v1/chat/completions", {"messages": MESSAGES, "n": 3}, "text/event-stream"),
    ("/v1/completions", {"prompt": "Hi", "stream_options": {"include_usage": True}}, "text/event-stream"),
    ("/v1/responses", {"input": "Hi"}, "text/event-stream"),
    ("/v1/messages", {"messages": MESSAGES}, "text/event-stream"),
    ("/v1beta/models/m:streamGenerateContent", {"contents": [{"parts": [{"text": "Hi"}]}]}, "text/event-stream"),
    ("/v1beta/models/m:streamGenerateContent", {"contents": [{"parts": [{"text": "Hi"}]}]}, "application/json"),
    ("/api/chat", {"messages": MESSAGES}, "application/x-ndjson"),
    ("/api/generate", {"prompt": "Hi"}, "application/x-ndjson"),
    ("/v2/chat", {"messages": MESSAGES}, "text/event-stream"),
    ("/v1/chat", {"message": "Hi"}, "application/stream+json"),
]


def call_of(path: str, body: dict[str, Any]) -> tuple[RequestFormat, Call]:
    found = match("POST", path)
    assert found is not None
    fmt, route, groups = found
    return fmt, fmt.parse(route, groups, json.dumps({"model": "m", "stream": True, **body}).encode())


@pytest.mark.parametrize(("path", "body", "content_type"), STREAMS)
@pytest.mark.parametrize("noise", [b"", b"data: no json\n\n", b'data: []\n\ndata: {"choices":[5],"item":3}\n\n'])
def test_an_end_completes_the_answer_wherever_it_comes(
    path: str, body: dict[str, Any], content_type: str, noise: bytes
) -> None:
    fmt, call = call_of(path, body)
    ending = fmt.early_end(call, content_type=content_type)
    assert ending is not None
    for event in ending.split(noise):
        ending.follow(event)
    reader = fmt.usage_reader(call, status=200, content_type=content_type)
    reader.feed(ending.closing(USAGE))
    reader.finish()
    assert reader.complete
    assert reader.output_text == ""
    if reader.usage is not None:
        assert (reader.usage.input_tokens or 11, reader.usage.output_tokens) == (11, 7)


@pytest.mark.parametrize(
    ("path", "body", "content_type"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES, "stream": False}, "application/json"),
        ("/v1/responses", {"input": "Hi", "stream": False}, "application/json"),
        ("/v1/messages", {"messages": MESSAGES, "stream": False}, "application/json"),
        ("/v1beta/models/m:generateContent", {"contents": [{"parts": [{"text": "Hi"}]}]}, "application/json"),
        ("/api/chat", {"messages": MESSAGES, "stream": False}, "application/json"),
        ("/v1/embeddings", {"input": "Hi"}, "application/json"),
        ("/model/m/converse-stream", {"messages": []}, "application/vnd.amazon.eventstream"),
    ],
)
def test_an_answer_that_is_no_such_stream_cannot_be_ended(path: str, body: dict[str, Any], content_type: str) -> None:
    fmt, call = call_of(path, body)
    assert fmt.early_end(call, content_type=content_type) is None


ANYTHING = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    elements=st.lists(st.dictionaries(st.text(max_size=4), ANYTHING, max_size=3), max_size=5),
    cuts=st.lists(st.integers(0, 400), max_size=8),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
def test_an_array_is_split_into_its_elements_wherever_it_is_cut(
    elements: list[Any], cuts: list[int], indent: int | None, ascii_only: bool
) -> None:
    whole = json.dumps(elements, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace")
    splitter = ElementSplitter()
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    pieces = [whole[start:end] for start, end in pairwise(edges)]
    events = [event for piece in pieces for event in splitter.feed(piece)]
    rest = splitter.finish()
    assert [json.loads(event.data) for event in events] == json.loads(whole)
    assert b"".join(event.raw for event in (*events, *rest)) == whole
