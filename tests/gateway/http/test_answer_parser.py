from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http import Answer, BadAnswer
from gateway.http.answer_parser import MAX_HEAD_BYTES, AnswerParser


class NoSource:
    def resume(self) -> None: ...

    def abandon(self, answer: Answer) -> None: ...


def start(*, is_head_request: bool = False) -> tuple[AnswerParser, Answer]:
    parser = AnswerParser("up.test:80")
    return parser, restart(parser, is_head_request=is_head_request)


def restart(parser: AnswerParser, *, is_head_request: bool = False) -> Answer:
    answer = Answer(NoSource(), loop=asyncio.AbstractEventLoop())
    parser.start(answer, is_head_request=is_head_request)
    return answer


def body_of(answer: Answer) -> bytes:
    answer.finish()
    return answer.complete_body or b""


def test_parser_reads_head_and_body() -> None:
    parser, answer = start()
    parser.feed(b"HTTP/1.1 200 All Right\r\nX-A: 1\r\nx-a: 2\r\nX-E:\r\nContent-Length: 3\r\n\r\nabc")
    assert (answer.status, answer.reason, answer.http_version) == (200, b"All Right", "1.1")
    assert answer.headers == [(b"X-A", b"1"), (b"x-a", b"2"), (b"X-E", b""), (b"Content-Length", b"3")]
    assert parser.done
    assert parser.keeps_alive
    assert body_of(answer) == b"abc"


def test_parser_takes_chunked_framing_off_and_keeps_trailers() -> None:
    parser, answer = start()
    parser.feed(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\nX-U:\r\n\r\n"
    )
    assert parser.done
    assert parser.keeps_alive
    assert answer.trailers == [(b"X-T", b"1"), (b"X-U", b"")]
    assert answer.headers == [(b"Transfer-Encoding", b"Chunked")]
    assert body_of(answer) == b"abcde"


def test_parser_skips_interim_answers() -> None:
    parser, answer = start()
    parser.feed(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 20")
    assert not parser.has_head
    parser.feed(b"1 Made\r\nContent-Length: 0\r\n\r\n")
    assert (answer.status, answer.reason, answer.headers) == (201, b"Made", [(b"Content-Length", b"0")])


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_parser_expects_no_body_when_the_status_has_none(status: bytes) -> None:
    parser, answer = start()
    parser.feed(b"HTTP/1.1 " + status + b"\r\nContent-Length: 7\r\n\r\n")
    assert parser.done
    assert parser.keeps_alive
    assert body_of(answer) == b""


def test_parser_expects_no_body_after_head_and_goes_on_with_the_next_answer() -> None:
    parser, answer = start(is_head_request=True)
    parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
    assert parser.done
    assert parser.keeps_alive
    assert body_of(answer) == b""
    second = restart(parser)
    parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert body_of(second) == b"ok"


def test_parser_refuses_reuse_when_a_head_answer_has_a_body() -> None:
    parser, answer = start(is_head_request=True)
    parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsmuggle")
    assert parser.done
    assert not parser.keeps_alive
    assert body_of(answer) == b""


@pytest.mark.parametrize(
    "surplus", [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTT", b"garbage", b"X" * (MAX_HEAD_BYTES * 2)]
)
def test_parser_refuses_reuse_when_bytes_follow_the_answer(surplus: bytes) -> None:
    parser, answer = start()
    parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + surplus)
    assert parser.done
    assert not parser.keeps_alive
    assert answer.headers == [(b"Content-Length", b"2")]
    assert body_of(answer) == b"ok"


@pytest.mark.parametrize(
    ("head", "until_eof", "keeps_alive"),
    [
        (b"HTTP/1.1 200 OK\r\n", True, True),
        (b"HTTP/1.0 200 OK\r\n", True, True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n", False, False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n", False, True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n", False, False),
    ],
)
def test_parser_says_how_an_answer_ends(head: bytes, until_eof: bool, keeps_alive: bool) -> None:
    parser, _ = start()
    parser.feed(head + b"\r\n")
    assert (parser.until_eof, parser.keeps_alive) == (until_eof, keeps_alive)
    assert parser.done is not until_eof


def test_parser_refuses_reuse_after_chunked_http_1_0() -> None:
    parser, answer = start()
    parser.feed(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    assert parser.done
    assert not parser.keeps_alive
    assert body_of(answer) == b"ok"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: 1\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX A: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: a\0b\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nzzz",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
    ],
)
def test_parser_refuses_what_is_no_clear_answer(answer: bytes) -> None:
    parser, _ = start()
    with pytest.raises(BadAnswer, match=r"up\.test:80 sent what is not a usable"):
        parser.feed(answer)


@pytest.mark.parametrize(
    ("prefix", "repeated"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Long: " + b"a" * 500 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"a" * 500),
        (b"HTTP/1.1 200 ", b"a" * 500),
        (b"", b"HTTP/1.1 103 Early\r\nX-Long: " + b"a" * 500 + b"\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", b"X-Long: " + b"a" * 500 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a" * 500),
    ],
)
def test_parser_refuses_endless_headers_and_trailers(prefix: bytes, repeated: bytes) -> None:
    parser, _ = start()
    parser.feed(prefix)

    def feed_on() -> None:
        for _ in range(2 * MAX_HEAD_BYTES // 500):
            parser.feed(repeated)

    with pytest.raises(BadAnswer, match="larger than 65536 bytes"):
        feed_on()


def test_parser_refuses_a_head_that_is_too_large_in_one_read() -> None:
    parser, _ = start()
    with pytest.raises(BadAnswer, match="larger than 65536 bytes"):
        parser.feed(b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * MAX_HEAD_BYTES + b"\r\nContent-Length: 0\r\n\r\n")


def test_parser_takes_a_small_head_with_a_large_body_in_one_read() -> None:
    parser, answer = start()
    parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"a" * 200000)
    assert parser.done
    assert len(body_of(answer)) == 200000


ANSWERS = [
    b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\nX-T: 1\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nX-E:\r\nX-F: 1\r\n\r\n",
]


@given(answer=st.sampled_from(ANSWERS), cuts=st.sets(st.integers(1, 150)))
def test_parser_reads_the_same_wherever_the_bytes_are_split(answer: bytes, cuts: set[int]) -> None:
    def read(edges: list[int]) -> tuple[object, ...]:
        parser, result = start()
        for begin, end in zip([0, *edges], [*edges, len(answer)], strict=True):
            parser.feed(answer[begin:end])
        assert parser.done
        return result.status, result.reason, result.headers, result.trailers, body_of(result), parser.keeps_alive

    assert read(sorted(cut for cut in cuts if cut < len(answer))) == read([])
