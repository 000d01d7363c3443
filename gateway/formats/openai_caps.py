"""The caps on output in OpenAI's bodies: read the largest, lower them all."""

from __future__ import annotations

from gateway.formats.base import Call
from gateway.formats.fields import Fields, write_object


def read_cap(fields: Fields, *names: str) -> int | None:
    """The largest of the caps named in a body; None when none binds.

    Zero and negative figures read as no cap: compatible servers take them as "without limit".
    """
    caps = [cap for name in names if (cap := fields.integer(name)) is not None and cap > 0]
    return max(caps, default=None)


def lower_caps(call: Call, cap: int, *, names: list[str]) -> bytes:
    """The body with each of the fields `names` at most `cap`; a field without a binding cap gets it."""
    body = dict(call.body)
    for name in names:
        given = body.get(name)
        body[name] = min(int(given), cap) if given is not None and given > 0 else cap
    return write_object(body)


def lower_completion_caps(call: Call, cap: int, *, unnamed: str) -> bytes:
    """The body with whichever of ``max_tokens`` and ``max_completion_tokens`` it names at most `cap`, and with the
    field `unnamed` where it names neither."""
    named = [name for name in ("max_tokens", "max_completion_tokens") if call.body.get(name) is not None]
    return lower_caps(call, cap, names=named or [unnamed])
