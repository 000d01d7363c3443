"""Bytes of an upstream -> `Answer`, with everything refused that two readers could understand differently."""

from __future__ import annotations

from httptools import HttpParserError, HttpResponseParser

from gateway.http.answer import Answer
from gateway.http.errors import BadAnswer

MAX_HEAD_BYTES = 64 * 1024
"""Of an answer's status line and headers with the interim (1xx) answers before it, and of its trailers."""

_BODILESS = frozenset((204, 304))


class AnswerParser:
    """Parses one connection's answers one after the other; `start` before each.

    `has_head`, `done` say how far the answer is; `until_eof` that only the connection's end ends it;
    `keeps_alive` that the connection may carry another request; `heard` that anything came at all.
    The grammar (and the refusal of Content-Length beside Transfer-Encoding, repeated or odd lengths, folded
    lines, bare LF) is llhttp's, through httptools, which calls the ``on_...`` methods.
    """

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._parser = HttpResponseParser(self)
        self._answer: Answer | None = None
        self._is_head_request = False
        self._interim = False
        self._unproductive_bytes = 0
        self.heard = False
        self.has_head = False
        self.done = False
        self.until_eof = False
        self.keeps_alive = True

    def start(self, answer: Answer, *, is_head_request: bool) -> None:
        """Expect the answer to the request just sent."""
        self._answer = answer
        self._is_head_request = is_head_request
        self._unproductive_bytes = 0
        self.heard = self.has_head = self.done = self.until_eof = False
        self.keeps_alive = True

    def feed(self, data: bytes) -> None:
        """Parse what came. Raises `BadAnswer`; after the answer's end, surplus only clears `keeps_alive`."""
        self.heard = True
        self._unproductive_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self.keeps_alive = False
            if self.done:
                return
            if isinstance(error.__context__, BadAnswer):
                raise error.__context__ from None
            raise self._refusal(str(error)) from None
        if self.done:
            if self._is_head_request:
                # llhttp cannot be told that this answer has no body, and waits for one: begin anew.
                self._parser = HttpResponseParser(self)
        elif self._unproductive_bytes > MAX_HEAD_BYTES:
            raise self._refusal(f"its headers or trailers are larger than {MAX_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        if self.done:
            raise self._refusal("bytes follow the answer's end")

    def on_status(self, reason: bytes) -> None:
        if self._answer is not None:
            self._answer.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        answer = self._answer
        if answer is not None:
            (answer.trailers if self.has_head else answer.headers).append((name, value))

    def on_headers_complete(self) -> None:
        answer, parser = self._answer, self._parser
        if answer is None:
            return
        status: int = parser.get_status_code()
        version: str = parser.get_http_version()
        if status < 100 or version not in ("1.1", "1.0"):
            raise self._refusal(f"it has status {status} and HTTP version {version}")
        if status < 200:
            if status == 101:
                raise self._refusal("it switches protocols, which was not asked for")
            self._interim = True
            return
        if self._unproductive_bytes > MAX_HEAD_BYTES and _size(answer.headers) > MAX_HEAD_BYTES:
            raise self._refusal(f"its headers are larger than {MAX_HEAD_BYTES} bytes")
        framed = False
        for name, value in answer.headers:
            # Two lengths stand for two names: cheaper than lower-casing every header.
            length = len(name)
            if length == 14:
                if name.lower() == b"content-length":
                    framed = True
            elif length == 17 and name.lower() == b"transfer-encoding":
                if value.strip().lower() != b"chunked":
                    raise self._refusal(f"its transfer coding {value[:64]!r} was not asked for")
                framed = True
                if version == "1.0":
                    self.keeps_alive = False  # RFC 9112 6.1: such framing is faulty
        self.until_eof = not framed and status not in _BODILESS and not self._is_head_request
        answer.status = status
        answer.http_version = version
        self.has_head = True
        self._unproductive_bytes = 0
        if self._is_head_request:
            self._end()

    def on_body(self, chunk: bytes) -> None:
        if self.done:
            self.keeps_alive = False
        elif self._answer is not None:
            self._unproductive_bytes = 0
            self._answer.feed(chunk)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
            if self._answer is not None:
                self._answer.headers.clear()
                self._answer.reason = b""
        elif self.has_head and not self.done:
            self._end()

    def _end(self) -> None:
        self.done = True
        self._answer = None
        if not self._parser.should_keep_alive():
            self.keeps_alive = False

    def _refusal(self, reason: str) -> BadAnswer:
        return BadAnswer(f"{self._peer} sent what is not a usable HTTP/1.1 answer: {reason}")


def _size(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)
