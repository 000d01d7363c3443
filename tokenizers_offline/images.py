"""How big is this medium? Width and height, seconds or pages, read from headers; nothing is decoded or fetched."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

from tokenizers_offline.documents import count_pages, read_text
from tokenizers_offline.payload import Payload
from tokenizers_offline.prompt import MediaPart
from tokenizers_offline.recordings import read_seconds

_MAX_JPEG_SEGMENTS = 512


def measure(part: MediaPart) -> MediaPart:
    """The part with its size fields filled where its own bytes tell them; fields already filled are kept.

    Never raises: what cannot be read stays None, and the layouts then say that they guess.
    """
    if part.data is None:
        return part
    match part.kind:
        case "image" if part.width is None or part.height is None:
            size = read_image_size(Payload(part.data))
            return replace(part, width=size[0], height=size[1]) if size is not None else part
        case "audio" | "video" if part.seconds is None:
            return replace(part, seconds=read_seconds(Payload(part.data)))
        case "document" if part.pages is None:
            payload = Payload(part.data)
            return replace(part, pages=count_pages(payload), text=part.text or read_text(payload))
        case _:
            return part


def read_image_size(payload: Payload) -> tuple[int, int] | None:
    """Width and height in pixels of a PNG, JPEG, GIF, WebP or BMP; None when it is none of them or is cut short."""
    head = payload.read(0, 32)
    for signature, read in _READERS:
        if head.startswith(signature):
            try:
                size = read(payload, head)
            except struct.error:
                return None
            return size if size is not None and size[0] > 0 and size[1] > 0 else None
    return None


def _read_png(payload: Payload, head: bytes) -> tuple[int, int] | None:
    if head[12:16] == b"CgBI":  # Apple's variant puts a chunk of its own before the header
        head = head[:12] + payload.read(28, 20)
    width, height = struct.unpack_from(">II", head, 16)
    return width, height


def _read_gif(payload: Payload, head: bytes) -> tuple[int, int] | None:
    width, height = struct.unpack_from("<HH", head, 6)
    return width, height


def _read_bmp(payload: Payload, head: bytes) -> tuple[int, int] | None:
    (header_size,) = struct.unpack_from("<I", head, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", head, 18)
    return width, abs(height)  # a negative height stores the rows top down


def _read_webp(payload: Payload, head: bytes) -> tuple[int, int] | None:
    match head[8:16]:
        case b"WEBPVP8 ":
            width, height = struct.unpack_from("<HH", head, 26)
            return width & 0x3FFF, height & 0x3FFF
        case b"WEBPVP8L":
            (bits,) = struct.unpack_from("<I", head, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"WEBPVP8X":
            low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", head, 24)
            return (high_width << 16 | low_width) + 1, (high_height << 16 | low_height) + 1
        case _:
            return None


def _read_jpeg(payload: Payload, head: bytes) -> tuple[int, int] | None:
    """Hops from segment to segment to the first start-of-frame, however much metadata stands before it."""
    position = 2
    for _ in range(_MAX_JPEG_SEGMENTS):
        segment = payload.read(position, 9)
        marker, length = struct.unpack_from(">HH", segment)
        if marker == 0xFFFF:  # a fill byte
            position += 1
        elif 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            height, width = struct.unpack_from(">HH", segment, 5)
            return width, height
        elif marker >> 8 != 0xFF:
            return None
        else:
            position += 2 + length
    return None


_READERS: tuple[tuple[bytes, Callable[[Payload, bytes], tuple[int, int] | None]], ...] = (
    (b"\x89PNG\r\n\x1a\n", _read_png),
    (b"\xff\xd8", _read_jpeg),
    (b"GIF87a", _read_gif),
    (b"GIF89a", _read_gif),
    (b"RIFF", _read_webp),
    (b"BM", _read_bmp),
)
