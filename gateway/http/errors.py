"""What can go wrong between this process and an upstream.

HttpError
├── UnsafeRequest        the request would not be well-formed HTTP; refused before any byte was sent
├── ConnectFailed        no connection: name, address, TLS, proxy, client closed; nothing was sent
├── TimedOut             `phase` says waiting for what
├── ResetBeforeAnswer    the connection ended before the answer's head; whether the upstream took it is unknown
│   └── SendFailed       ... while the request was still being sent
├── AnswerCut            the connection ended in the middle of the answer's body
├── BadAnswer            what came is not an HTTP/1.x answer to this request
└── AnswerTooLarge       `read_all` met its limit
"""

from __future__ import annotations

from typing import Literal

Phase = Literal["connect", "send", "header", "idle", "total"]


class HttpError(Exception):
    """An exchange that failed. `nothing_sent` is True only when no byte of the request can have reached the origin."""

    nothing_sent = False


class UnsafeRequest(HttpError, ValueError):
    nothing_sent = True


class ConnectFailed(HttpError):
    nothing_sent = True


class TimedOut(HttpError):
    """`phase`: ``connect`` (a free slot, DNS, TCP, proxy, TLS), ``send``, ``header``, ``idle``, ``total``."""

    def __init__(self, message: str, *, phase: Phase, nothing_sent: bool = False) -> None:
        super().__init__(message)
        self.phase: Phase = phase
        self.nothing_sent = nothing_sent


class ResetBeforeAnswer(HttpError):
    """`silent`: not one byte came back, which on a reused connection is the keep-alive race."""

    def __init__(self, message: str, *, silent: bool) -> None:
        super().__init__(message)
        self.silent = silent


class SendFailed(ResetBeforeAnswer):
    pass


class AnswerCut(HttpError):
    pass


class BadAnswer(HttpError):
    pass


class AnswerTooLarge(HttpError):
    pass
