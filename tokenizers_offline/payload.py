"""Random access to the bytes behind base64 text, so that a header is read without decoding a whole file."""

from __future__ import annotations

import binascii
import re

_BLANKS = re.compile(r"\s+")
_URL_SAFE = str.maketrans("-_", "+/")


class Payload:
    """Bytes by position. Positions past the end, and text that is not base64, read as nothing."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        # Line breaks shift every position. MIME breaks after 76 characters, so the first 100 tell.
        self._text = _BLANKS.sub("", text) if _BLANKS.search(text, 0, 100) else text

    def __len__(self) -> int:
        """How many bytes the text holds (padding removed)."""
        padding = len(self._text[-2:]) - len(self._text[-2:].rstrip("="))
        return max(0, len(self._text) * 3 // 4 - padding)

    def read(self, start: int, size: int) -> bytes:
        """Up to `size` bytes from `start`."""
        if start < 0 or size <= 0:
            return b""
        first = start // 3 * 4
        last = -(-(start + size) // 3) * 4
        text = self._text[first:last].rstrip("=").translate(_URL_SAFE)
        if len(text) % 4 == 1:
            text = text[:-1]
        try:
            decoded = binascii.a2b_base64(text + "=" * (-len(text) % 4))
        except (binascii.Error, ValueError):
            return b""
        skip = start - start // 3 * 3
        return decoded[skip : skip + size]
