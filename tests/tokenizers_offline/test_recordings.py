import base64
import struct

import pytest

from tokenizers_offline.images import measure
from tokenizers_offline.prompt import MediaPart


def seconds(data: bytes) -> float | None:
    return measure(MediaPart("audio", data=base64.b64encode(data).decode())).seconds


def wav(byte_rate: int, size: int, *, claimed: int | None = None) -> bytes:
    fmt = struct.pack("<HHIIHH", 1, 1, byte_rate // 2, byte_rate, 2, 16)
    data = struct.pack("<4sI", b"data", size if claimed is None else claimed) + b"\0" * size
    return (
        b"RIFF\0\0\0\0WAVE" + struct.pack("<4sI", b"LIST", 3) + b"abc\0" + struct.pack("<4sI", b"fmt ", 16) + fmt + data
    )


def mp3(frames: int, *, tag: bytes = b"") -> bytes:
    header = struct.pack(">I", 0xFFFB9000)  # MPEG-1 layer III, 128 kbit/s, 44.1 kHz: 417 bytes a frame
    return tag + (header + b"\0" * 413) * frames


def test_wav_lasts_its_data_over_its_rate() -> None:
    assert seconds(wav(16_000, 24_000)) == 1.5
    assert seconds(wav(16_000, 24_000, claimed=0xFFFFFFFF)) == 1.5
    assert seconds(wav(0, 10)) is None


def test_mp3_lasts_its_size_over_its_bit_rate() -> None:
    tag = b"ID3\x04\0\0\0\0\0\x0a" + b"\0" * 10
    for data in (mp3(100), mp3(100, tag=tag)):
        assert seconds(data) == pytest.approx(2.61, abs=0.02)


def test_mp3_with_a_frame_count_lasts_its_frames() -> None:
    info = struct.pack(">I", 0xFFFB9000) + b"\0" * 32 + b"Xing" + struct.pack(">II", 1, 1000)
    assert seconds(info) == pytest.approx(1000 * 1152 / 44_100)


def test_flac_lasts_its_samples_over_its_rate() -> None:
    stream = (44_100 << 44 | 15 << 36 | 88_200).to_bytes(8, "big")
    assert seconds(b"fLaC" + b"\0" * 14 + stream) == 2.0


def test_ogg_lasts_to_its_last_page() -> None:
    page = b"OggS\0\0" + struct.pack("<q", 96_000) + b"\0" * 20
    assert seconds(b"OggS" + b"\0" * 24 + b"OpusHead" + b"\0" * 200 + page) == 2.0
    vorbis = b"\x01vorbis" + b"\0" * 5 + struct.pack("<I", 48_000)
    assert seconds(b"OggS" + b"\0" * 24 + vorbis + b"\0" * 200 + page) == 2.0


def test_mp4_lasts_what_its_movie_header_says() -> None:
    mvhd = struct.pack(">I4sIIIII", 100, b"mvhd", 0, 0, 0, 1000, 2500) + b"\0" * 72
    moov = struct.pack(">I4s", 8 + len(mvhd), b"moov") + mvhd
    assert seconds(struct.pack(">I4s", 16, b"ftyp") + b"isom\0\0\0\0" + moov) == 2.5


def test_unknown_sounds_do_not_tell() -> None:
    assert seconds(b"") is None
    assert seconds(b"hello world, this is no sound") is None
