"""How many pages a PDF has, without a PDF library: page objects are counted where they stand."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from tokenizers_offline.payload import Payload

_MAX_BYTES = 32 * 1024 * 1024
_MAX_OBJECT_STREAMS = 200
_MAX_STREAM_BYTES = 1024 * 1024
_STREAM_START = re.compile(rb"stream\r?\n")
_PAGE = re.compile(rb"/Type\s{0,8}/Page(?![A-Za-z])")
_COUNT = re.compile(rb"/Count\s{1,8}(\d{1,6})")


def count_pages(payload: Payload) -> int | None:
    """Pages of a PDF; None when it is not one, is encrypted, or is larger than 32 MiB.

    Page objects are looked for in the plain file and in its compressed object streams; where none is in sight
    the page tree's own ``/Count`` is taken.
    """
    if b"%PDF-" not in payload.read(0, 1024) or len(payload) > _MAX_BYTES:
        return None
    file = payload.read(0, len(payload))
    texts = [file, *_read_object_streams(file)]
    pages = sum(len(_PAGE.findall(text)) for text in texts)
    return pages or max((int(count) for text in texts for count in _COUNT.findall(text)), default=0) or None


def _read_object_streams(file: bytes) -> Iterator[bytes]:
    position = 0
    for _ in range(_MAX_OBJECT_STREAMS):
        position = file.find(b"/ObjStm", position) + 7
        start = _STREAM_START.search(file, position, position + 512) if position >= 7 else None
        if start is None:
            return
        end = file.find(b"endstream", start.end(), start.end() + _MAX_STREAM_BYTES)
        try:
            yield zlib.decompressobj().decompress(file[start.end() : end], _MAX_STREAM_BYTES)
        except zlib.error:
            continue
