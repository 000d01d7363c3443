from hypothesis import given
from hypothesis import strategies as st

from gateway.formats import sse
from gateway.formats.sse import SseEvent, SseSplitter


def split(*chunks: bytes) -> list[SseEvent]:
    splitter = SseSplitter()
    return [event for chunk in chunks for event in splitter.feed(chunk)] + splitter.finish()


def meaning(events: list[SseEvent]) -> list[tuple[str, bytes]]:
    return [(event.event, event.data) for event in events if event.event or event.data]


def test_splitter_reads_names_data_and_comments() -> None:
    stream = b": ping\n\nevent: start\ndata: {}\n\ndata: a\ndata: b\n\ndata:c\r\n\r\ndata: [DONE]\n\n"
    assert meaning(split(stream)) == [("start", b"{}"), ("", b"a\nb"), ("", b"c"), ("", b"[DONE]")]


def test_splitter_reads_a_byte_order_mark_and_lone_returns() -> None:
    assert meaning(split(b"\xef\xbb\xbfdata: a\r\rdata: b\r\r")) == [("", b"a"), ("", b"b")]


def test_splitter_reads_an_unclosed_last_event() -> None:
    assert meaning(split(b"data: a\n\ndata: b")) == [("", b"a"), ("", b"b")]


PIECES = st.sampled_from(
    [b"data: ", b"data:", b"event: x", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"{}", b": c", b"[DONE]", b"\xff"]
)


@given(st.lists(PIECES, max_size=30), st.data())
def test_splitting_anywhere_changes_nothing(pieces: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    events = split(*chunks)
    assert meaning(events) == meaning(split(stream))
    assert b"".join(event.raw for event in events) == stream


def test_an_endless_event_is_relayed_unread(monkeypatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    splitter = SseSplitter()
    chunks = [b"data: a\n\n", b"x" * 60, b"x" * 60, b"data: b\n\n"]
    events = [event for chunk in chunks for event in splitter.feed(chunk)] + splitter.finish()
    assert splitter.overflowed
    assert meaning(events) == [("", b"a")]
    assert b"".join(event.raw for event in events) == b"".join(chunks)
