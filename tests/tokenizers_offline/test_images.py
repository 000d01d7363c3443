import base64
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenizers_offline.images import measure, read_image_size
from tokenizers_offline.payload import Payload
from tokenizers_offline.prompt import MediaPart


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def jpeg(width: int, height: int, *, metadata: int = 20) -> bytes:
    app = b"\xff\xe1" + struct.pack(">H", metadata + 2) + b"\xff" * metadata
    frame = b"\xff\xc2" + struct.pack(">HBHH", 17, 8, height, width)
    return b"\xff\xd8" + app * 3 + b"\xff\xff\xdb\x00\x04ab" + frame


def webp(kind: bytes, body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 100) + b"WEBP" + kind + struct.pack("<I", len(body)) + body + b"\0" * 12


IMAGES = {
    "png": png(640, 480),
    "jpeg": jpeg(640, 480),
    "jpeg with much metadata": jpeg(640, 480, metadata=65_000),
    "gif": b"GIF89a" + struct.pack("<HH", 640, 480) + b"\0" * 20,
    "bmp": b"BM" + b"\0" * 12 + struct.pack("<Iii", 40, 640, -480),
    "old bmp": b"BM" + b"\0" * 12 + struct.pack("<IHH", 12, 640, 480),
    "lossy webp": webp(b"VP8 ", b"\0" * 6 + struct.pack("<HH", 640, 480)),
    "lossless webp": webp(b"VP8L", b"\x2f" + struct.pack("<I", 639 | 479 << 14)),
    "extended webp": webp(b"VP8X", b"\0" * 4 + (639).to_bytes(3, "little") + (479).to_bytes(3, "little")),
}


@pytest.mark.parametrize("name", IMAGES)
def test_image_sizes_are_read_from_headers(name: str) -> None:
    part = measure(MediaPart("image", data=encode(IMAGES[name])))
    assert (part.width, part.height) == (640, 480)


@pytest.mark.parametrize("name", IMAGES)
def test_cut_images_are_not_guessed(name: str) -> None:
    for length in range(0, 40, 3):
        size = read_image_size(Payload(encode(IMAGES[name][:length])))
        assert size in (None, (640, 480))


def test_measured_and_remote_parts_are_left_alone() -> None:
    known = MediaPart("image", data=encode(png(640, 480)), width=1, height=2)
    assert measure(known) is known
    remote = MediaPart("image", url="https://example.com/x.png")
    assert measure(remote) is remote


@given(st.binary(max_size=300), st.sampled_from(["image", "audio", "video", "document"]))
def test_no_bytes_make_measuring_raise(data: bytes, kind: str) -> None:
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"RIFF\0\0\0\0WAVE", b"%PDF-1.4", b"ID3", b"OggS", b"fLaC",
                  b"\0\0\0\x10ftyp"):  # fmt: skip
        measure(MediaPart(kind, data=encode(start + data)))  # type: ignore[arg-type]


@given(st.text(max_size=100))
def test_text_that_is_no_base64_measures_as_nothing(text: str) -> None:
    part = measure(MediaPart("image", data=text))
    assert part.width is None or part.width > 0
