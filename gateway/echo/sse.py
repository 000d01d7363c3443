"""Writing server-sent events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.formats.fields import write_object

CONTENT_TYPE = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"


def event(value: Mapping[str, Any], *, name: str = "") -> bytes:
    """One event with JSON data."""
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + write_object(value) + b"\n\n"
