"""Listening to answers of paths that no format knows: whatever dialect reports usage, it is charged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gateway import formats
from gateway.formats.base import Call
from tokenizers_offline.prompt import TextPrompt

if TYPE_CHECKING:
    from gateway.formats.base import UsageReader
    from policies.usage import Usage

_CALL = Call(format="", kind="generate", model="", prompt=TextPrompt(()))


class AnyUsageReader:
    """Feeds an answer to every format's reader; the first that finds usage is believed."""

    __slots__ = ("_readers",)

    def __init__(self, readers: Sequence[UsageReader]) -> None:
        self._readers = readers

    def feed(self, chunk: bytes) -> bytes:
        """Listen; nothing is withheld."""
        for reader in self._readers:
            reader.feed(chunk)
        return chunk

    def finish(self) -> bytes:
        """The answer ended."""
        for reader in self._readers:
            reader.finish()
        return b""

    @property
    def usage(self) -> Usage | None:
        """The largest usage that any format reads out of the answer, None when none does."""
        found = [reader.usage for reader in self._readers if reader.usage is not None]
        return max(found, key=lambda usage: usage.input_tokens + usage.output_tokens, default=None)

    @property
    def complete(self) -> bool:
        """Whether there is a usage to believe."""
        return self.usage is not None

    @property
    def output_text(self) -> str:
        """Unknown: the path names no format."""
        return ""

    def output_since(self, piece: int) -> list[str]:
        """Unknown too."""
        return []


def listener_for_unmatched(method: str) -> Callable[[int, str], UsageReader | None]:
    """Makes readers for answers to this method; only a POST's JSON or event stream can report usage."""

    def listen(status: int, content_type: str) -> UsageReader | None:
        if method != "POST" or not content_type.startswith(("application/json", "text/event-stream")):
            return None
        return AnyUsageReader(
            [fmt.usage_reader(_CALL, status=status, content_type=content_type) for fmt in formats.FORMATS]
        )

    return listen
