"""Access logs read back as requests."""

from __future__ import annotations

import gzip
from pathlib import Path

import orjson
import pytest

from gateway.access_logs import LONGEST_LINE, AccessLog, Malformed, read_line
from policies import traffic

LINE = {
    "event": "request", "at": "2026-11-20T12:00:02Z", "request_id": "r", "outcome": "ok", "key_id": "alice",
    "format": "openai_chat", "model": "gpt-4o", "upstream": "echo", "total_ms": 2000.0, "counted": 40, "held": 90,
    "used_input": 40, "used_output": 20, "source": "reported", "status": 200,
}  # fmt: skip


def line_of(end_s: float, took_s: float) -> bytes:
    at = f"2026-11-20T12:{int(end_s) // 60:02}:{int(end_s) % 60:02}Z"
    return orjson.dumps({**LINE, "at": at, "total_ms": took_s * 1000})


def test_a_log_is_put_in_the_order_that_requests_began(tmp_path: Path) -> None:
    path = tmp_path / "log"
    spans = [(5.0, 1.0), (6.0, 5.0), (900.0, 1.0), (901.0, 300.0)]
    path.write_bytes(b"\n".join(line_of(*span) for span in spans))
    began = [request.at for request in AccessLog(path)]
    assert began == sorted(began)
    assert len(began) == 4


def test_no_more_than_so_many_requests_wait_to_be_put_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "MOST_WAITING", 2)
    path = tmp_path / "log"
    path.write_bytes(b"\n".join(line_of(10.0 + number, took) for number, took in enumerate((1, 1, 1, 13))))
    assert [request.ends_at - request.at for request in AccessLog(path)] == [1, 13, 1, 1]


def test_a_request_is_read_with_what_a_log_knows() -> None:
    request = read_line(orjson.dumps(LINE))
    assert request is not None
    assert (request.asked, request.cap, request.choices, request.tags) == (40, None, 1, {})
    assert (request.input_tokens, request.output_tokens, request.ends_at - request.at) == (40, 20, 2.0)
    refused = read_line(orjson.dumps({**LINE, "outcome": "refused", "held": 0}))
    assert refused is not None
    assert refused.refused


@pytest.mark.parametrize("other", [{"event": "other"}, {"outcome": "failed"}, {"outcome": "rejected"}])
def test_lines_of_other_events_are_passed_over(other: dict[str, str]) -> None:
    assert read_line(orjson.dumps({**LINE, **other})) is None
    assert read_line(b'{"event": "listening"}\n') is None
    assert read_line(b"\n") is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (orjson.dumps({**LINE, "at": "noon"}), "isoformat"),
        (orjson.dumps({**LINE, "total_ms": None}), "float"),
        (orjson.dumps({**LINE, "counted": []}), "int"),
        (orjson.dumps({name: LINE[name] for name in LINE if name != "model"}), "it has no 'model'"),
        (b'["request"]', "it is no JSON object"),
        (b'{"event": "request", "at"', "it is no JSON: "),
        (b"2026-11-20 GET / 200", "it is no JSON object"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(line: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        read_line(line)


def test_malformed_lines_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\n".join([line_of(5, 1), b"{}", b"", b"oops", line_of(6, 1), b"{", b"x" * LONGEST_LINE]))
    log = AccessLog(path)
    assert len(list(log)) == 2
    assert (log.other, log.malformed) == (1, 3)
    assert log.first_malformed == (4, "it is no JSON object")


def test_a_broken_gzip_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(b"\n".join(line_of(5, 1) for _ in range(1000)))[:-9])
    log = AccessLog(path)
    with pytest.raises(OSError, match="gzip file is broken"):
        list(log)


def test_only_the_time_asked_for_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\n".join(line_of(end, 0) for end in (5, 6, 7)))
    first, second, third = (request.at for request in AccessLog(path))
    assert [request.at for request in AccessLog(path, since=second, until=third)] == [second]
    assert first < second
