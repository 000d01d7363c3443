from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.formats.base import UsageReader
from gateway.formats.listening import figure, is_event_stream
from gateway.formats.openai_usage import (
    ChatAnswerReader,
    EmbeddingsAnswerReader,
    ResponsesAnswerReader,
    read_chat_usage,
    read_responses_usage,
)
from policies.usage import Usage


@pytest.mark.parametrize(
    ("block", "usage"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}, Usage(5, 7)),
        ({"prompt_tokens": 5, "total_tokens": 5}, Usage(5, 0)),
        (
            {
                "prompt_tokens": 50,
                "completion_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": 40},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(50, 7, cached_tokens=40, reasoning_tokens=3),
        ),
        ({"prompt_tokens": 50, "completion_tokens": 7, "prompt_cache_hit_tokens": 30}, Usage(50, 7, cached_tokens=30)),
        # xAI: reasoning stands in the total only
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 112}, Usage(5, 107)),
        ({"prompt_tokens": 5, "completion_tokens": None, "prompt_tokens_details": None}, Usage(5, 0)),
        ({"completion_tokens": 5}, None),
        ({"prompt_tokens": -1}, None),
        ({"prompt_tokens": "5"}, None),
        ({"prompt_tokens": 10**30}, None),
        (None, None),
        ([], None),
    ],
)
def test_chat_usage_is_read_in_every_shape(block: object, usage: Usage | None) -> None:
    assert read_chat_usage(block) == usage


def test_responses_usage_is_read() -> None:
    block = {
        "input_tokens": 50,
        "output_tokens": 9,
        "input_tokens_details": {"cached_tokens": 40},
        "output_tokens_details": {"reasoning_tokens": 3},
    }
    assert read_responses_usage(block) == Usage(50, 9, cached_tokens=40, reasoning_tokens=3)
    assert read_responses_usage({}) is None


def test_figure_takes_whole_numbers_only() -> None:
    assert figure({"a": {"b": 3.0}}, "a", "b") == 3
    assert figure({"a": True}, "a") is None
    assert figure({"a": 1.5}, "a") is None
    assert figure({"a": 1}, "a", "b") is None


def test_event_streams_are_told_by_type_or_by_what_was_asked() -> None:
    assert is_event_stream(content_type="text/event-stream; charset=utf-8", stream=False)
    assert is_event_stream(content_type="", stream=True)
    assert not is_event_stream(content_type="application/json", stream=True)


def event(document: object) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"


USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
CHUNKS = [
    event({"choices": [], "prompt_filter_results": []}),  # Azure opens with this one: it is not the usage chunk
    event({"choices": [{"delta": {"role": "assistant", "content": ""}}], "usage": None}),
    event({"choices": [{"delta": {"content": "Hé"}}]}),
    event({"choices": [{"delta": {"reasoning_content": "hm"}}]}),
    event({"choices": [{"delta": {"tool_calls": [{"function": {"name": "f", "arguments": '{"a"'}}]}}]}),
    b": comment\r\n\r\n",
]
USAGE_CHUNK = event({"choices": [], "usage": USAGE})
DONE = b"data: [DONE]\n\n"


def listen(reader: UsageReader, stream: bytes, cuts: list[int]) -> bytes:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    relayed = [reader.feed(stream[a:b]) for a, b in pairwise(edges)]
    return b"".join([*relayed, reader.finish()])


@given(st.lists(st.integers(0, 10_000), max_size=12), st.booleans())
def test_cutting_a_stream_anywhere_changes_nothing(cuts: list[int], hide: bool) -> None:
    stream = b"".join([*CHUNKS, USAGE_CHUNK, DONE])
    reader = ChatAnswerReader(events=True, hide_usage=hide)
    relayed = listen(reader, stream, cuts)
    assert relayed == (b"".join([*CHUNKS, DONE]) if hide else stream)
    assert reader.usage == Usage(5, 7)
    assert reader.complete
    assert reader.output_text == 'Héhmf{"a"'


def test_feed_returns_the_very_same_bytes_when_nothing_is_hidden() -> None:
    reader = ChatAnswerReader(events=True)
    chunk = CHUNKS[2]
    assert reader.feed(chunk) is chunk


def test_a_cut_stream_is_not_complete_and_keeps_its_text() -> None:
    reader = ChatAnswerReader(events=True)
    listen(reader, b"".join(CHUNKS[:3]), [])
    assert (reader.usage, reader.complete, reader.output_text) == (None, False, "Hé")


def test_usage_beside_the_last_choice_is_read_and_relayed() -> None:
    last = event({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": USAGE})
    reader = ChatAnswerReader(events=True, hide_usage=True)
    assert listen(reader, last + DONE, []) == last + DONE
    assert reader.usage == Usage(5, 7)


def test_groq_usage_is_found_in_its_own_place() -> None:
    reader = ChatAnswerReader(events=True)
    listen(reader, event({"choices": [{"delta": {}}], "x_groq": {"usage": USAGE}}), [])
    assert reader.usage == Usage(5, 7)


@given(st.binary(max_size=200), st.lists(st.integers(0, 300), max_size=5), st.booleans(), st.booleans())
def test_garbage_is_relayed_and_never_raises(stream: bytes, cuts: list[int], events: bool, hide: bool) -> None:
    for reader in (
        ChatAnswerReader(events=events, hide_usage=hide),
        ResponsesAnswerReader(events=events),
    ):
        assert listen(reader, stream, cuts) == stream
        assert reader.usage is None
        assert isinstance(reader.output_text, str)


def test_a_json_answer_is_read_whole() -> None:
    answer = orjson.dumps({"choices": [{"message": {"content": "hi", "refusal": None}}], "usage": USAGE})
    reader = ChatAnswerReader(events=False)
    assert listen(reader, answer, [3, 9]) == answer
    assert (reader.usage, reader.complete, reader.output_text) == (Usage(5, 7), True, "hi")


def test_a_cut_json_answer_bounds_its_output_from_above() -> None:
    reader = ChatAnswerReader(events=False)
    listen(reader, b'{"choices": [{"message": {"content": "hello wor', [])
    assert (reader.usage, reader.complete) == (None, False)
    assert "hello wor" in reader.output_text


def test_an_error_answer_is_relayed_unread() -> None:
    reader = ChatAnswerReader(events=True, failed=True, hide_usage=True)
    answer = b'{"error": {"message": "no"}}'
    assert listen(reader, answer, [4]) == answer
    assert (reader.usage, reader.complete, reader.output_text) == (None, False, "")


def test_responses_are_read_as_events() -> None:
    stream = b"".join(
        b"event: " + kind.encode() + b"\n" + event({"type": kind, **rest})
        for kind, rest in [
            ("response.created", {"response": {"usage": None}}),
            ("response.output_item.added", {"item": {"type": "function_call", "name": "f"}}),
            ("response.function_call_arguments.delta", {"delta": '{"a":1}'}),
            ("response.output_text.delta", {"delta": "hi"}),
            ("response.completed", {"response": {"usage": {"input_tokens": 5, "output_tokens": 7}}}),
        ]
    )
    reader = ResponsesAnswerReader(events=True)
    assert listen(reader, stream, [7, 70, 170]) == stream
    assert (reader.usage, reader.complete, reader.output_text) == (Usage(5, 7), True, 'f{"a":1}hi')


def test_a_queued_response_is_not_complete() -> None:
    reader = ResponsesAnswerReader(events=False)
    listen(reader, orjson.dumps({"status": "queued", "usage": None}), [])
    assert (reader.usage, reader.complete) == (None, False)


def test_a_whole_response_is_read() -> None:
    answer = {
        "status": "completed",
        "output": [
            {"type": "reasoning", "summary": [{"text": "s"}]},
            {"type": "function_call", "name": "f", "arguments": "{}"},
            {"type": "message", "content": [{"type": "output_text", "text": "hi"}]},
        ],
        "usage": {"input_tokens": 5, "output_tokens": 7},
    }
    reader = ResponsesAnswerReader(events=False)
    listen(reader, orjson.dumps(answer), [])
    assert (reader.usage, reader.complete, reader.output_text) == (Usage(5, 7), True, "sf{}hi")


@pytest.mark.parametrize("usage_first", [True, False])
@given(cuts=st.lists(st.integers(0, 200_000), max_size=6))
def test_embeddings_usage_is_read_from_either_end(usage_first: bool, cuts: list[int]) -> None:
    usage = {"prompt_tokens": 5, "total_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1}}
    data = {"data": [{"embedding": [0.123456789] * 4000, "index": 0}]}
    answer = orjson.dumps({"usage": usage, **data} if usage_first else {**data, "usage": usage})
    reader = EmbeddingsAnswerReader(failed=False)
    assert listen(reader, answer, cuts) == answer
    assert (reader.usage, reader.complete, reader.output_text) == (Usage(5, 0, cached_tokens=1), True, "")


def test_embeddings_usage_is_unknown_when_the_answer_is_cut_or_an_error() -> None:
    reader = EmbeddingsAnswerReader(failed=False)
    listen(reader, b'{"data": [0.1, 0.2', [])
    assert (reader.usage, reader.complete) == (None, False)
    failed = EmbeddingsAnswerReader(failed=True)
    listen(failed, b'{"usage": {"prompt_tokens": 5}}', [])
    assert (failed.usage, failed.complete) == (None, False)
