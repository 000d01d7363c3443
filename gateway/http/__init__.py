"""A lean pooled HTTP/1.1 client: stdlib and httptools, nothing of the rest of the gateway."""

from gateway.http.answer import Answer
from gateway.http.client import HttpClient
from gateway.http.errors import (
    AnswerCut,
    AnswerTooLarge,
    BadAnswer,
    ConnectFailed,
    HttpError,
    ResetBeforeAnswer,
    SendFailed,
    TimedOut,
    UnsafeRequest,
)
from gateway.http.origin import Origin

__all__ = [
    "Answer",
    "AnswerCut",
    "AnswerTooLarge",
    "BadAnswer",
    "ConnectFailed",
    "HttpClient",
    "HttpError",
    "Origin",
    "ResetBeforeAnswer",
    "SendFailed",
    "TimedOut",
    "UnsafeRequest",
]
