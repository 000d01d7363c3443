"""Embeddings of the echo model: a unit vector drawn from the text's hash, the same for the same text."""

from __future__ import annotations

import base64
import hashlib
import math
from array import array

_DIMENSIONS = {"text-embedding-3-large": 3072, "gemini-embedding-001": 3072}
_MOST_DIMENSIONS = 8192


def dimensions_of(model: str, asked: object) -> int:
    """How long a vector is: as asked, or the model's own default."""
    if isinstance(asked, int) and not isinstance(asked, bool) and 0 < asked <= _MOST_DIMENSIONS:
        return asked
    return _DIMENSIONS.get(model, 1536)


def embed(text: str, *, dimensions: int) -> list[float]:
    """A unit vector for a text."""
    raw = hashlib.shake_128(text.encode("utf-8", "surrogatepass")).digest(dimensions)
    values = [byte - 127.5 for byte in raw]
    length = math.sqrt(sum(value * value for value in values))
    return [value / length for value in values]


def as_base64(vector: list[float]) -> str:
    """The vector as OpenAI's ``encoding_format: base64`` sends it: little-endian 32-bit floats."""
    return base64.b64encode(array("f", vector).tobytes()).decode()
