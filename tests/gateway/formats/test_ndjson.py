import itertools

from hypothesis import given
from hypothesis import strategies as st

from gateway.formats import ndjson
from gateway.formats.ndjson import LineSplitter

STREAM = b'{"a": 1}\r\n\n{"b": "\xc3\xa9"}\n  {"c": 3}'


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_feed_gives_the_same_lines_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    splitter = LineSplitter()
    events = [e for a, b in itertools.pairwise(edges) for e in splitter.feed(STREAM[a:b])] + splitter.finish()
    assert [event.data for event in events if event.data] == [b'{"a": 1}', b'{"b": "\xc3\xa9"}', b'{"c": 3}']
    assert b"".join(event.raw for event in events) == STREAM


def test_feed_stops_reading_when_a_line_outgrows_the_limit() -> None:
    splitter = LineSplitter()
    chunk = b"x" * (ndjson.MAX_EVENT_BYTES // 2 + 1)
    relayed = [event.raw for _ in range(3) for event in splitter.feed(chunk)]
    relayed += [event.raw for event in splitter.feed(b"\n{}\n")]
    assert splitter.overflowed
    assert b"".join(relayed) == chunk * 3 + b"\n{}\n"
