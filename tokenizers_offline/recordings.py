"""How long a recording lasts, read from the headers of WAV, MP3, FLAC, Ogg and MP4."""

from __future__ import annotations

import re
import struct

from tokenizers_offline.payload import Payload

_MAX_CHUNKS = 256
_MPEG_1_KBIT = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG_2_KBIT = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG_1_HZ = (44_100, 48_000, 32_000)


def read_seconds(payload: Payload) -> float | None:
    """Seconds of sound or film; None when the headers do not tell."""
    head = payload.read(0, 16)
    try:
        if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
            return _read_wav(payload)
        if head[:4] == b"fLaC":
            return _read_flac(payload)
        if head[:4] == b"OggS":
            return _read_ogg(payload)
        if head[4:8] == b"ftyp":
            return _read_mp4(payload)
        if head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0):
            return _read_mp3(payload)
    except (struct.error, ZeroDivisionError, IndexError):
        return None
    return None


def _read_wav(payload: Payload) -> float | None:
    position = 12
    byte_rate = 0
    for _ in range(_MAX_CHUNKS):
        name, size = struct.unpack("<4sI", payload.read(position, 8))
        if name == b"fmt ":
            (byte_rate,) = struct.unpack_from("<I", payload.read(position + 16, 4))
        elif name == b"data":
            held = max(0, len(payload) - position - 8)  # streamed files write a size they do not have
            return float(min(size, held) / byte_rate)
        position += 8 + size + size % 2
    return None


def _read_flac(payload: Payload) -> float | None:
    bits = int.from_bytes(payload.read(18, 8), "big")  # 20 bits rate, 3 channels, 5 depth, 36 samples
    return (bits & 0xFFFFFFFFF) / (bits >> 44)


def _read_ogg(payload: Payload) -> float | None:
    """The last page's position in samples over the rate; Opus always counts at 48 kHz (RFC 7845)."""
    head = payload.read(0, 128)
    if b"OpusHead" in head:
        rate = 48_000
    elif (vorbis := head.find(b"\x01vorbis")) >= 0:
        (rate,) = struct.unpack_from("<I", head, vorbis + 12)
    else:
        return None
    tail = payload.read(max(0, len(payload) - 65_536), 65_536)
    page = tail.rfind(b"OggS")
    (samples,) = struct.unpack_from("<q", tail, page + 6)
    return float(samples / rate) if page >= 0 and samples > 0 else None


def _read_mp4(payload: Payload) -> float | None:
    position, end = 0, len(payload)
    for _ in range(_MAX_CHUNKS):
        if position >= end:
            return None
        size, name = struct.unpack(">I4s", payload.read(position, 8))
        header = 8
        if size == 1:
            (size,) = struct.unpack(">Q", payload.read(position + 8, 8))
            header = 16
        if name == b"moov":  # step inside: its `mvhd` is what is wanted
            end = position + size
            position += header
            continue
        if name == b"mvhd":
            box = payload.read(position + header, 32)
            scale, duration = struct.unpack_from(">IQ" if box[0] == 1 else ">II", box, 20 if box[0] == 1 else 12)
            return float(duration / scale)
        if size < header:
            return None
        position += size
    return None


def _read_mp3(payload: Payload) -> float | None:
    """Frame count from a Xing/Info or VBRI header where there is one, else size over bit rate."""
    start = 0
    head = payload.read(0, 10)
    if head[:3] == b"ID3":
        start = 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
    window = payload.read(start, 4096)
    sync = re.search(rb"\xff[\xe2-\xff]", window)
    if sync is None:
        return None
    at = sync.start()
    (frame,) = struct.unpack_from(">I", window, at)
    version, layer = frame >> 19 & 3, frame >> 17 & 3
    if layer != 1:  # only layer III
        return None
    kbit = (_MPEG_1_KBIT if version == 3 else _MPEG_2_KBIT)[frame >> 12 & 15]
    rate = _MPEG_1_HZ[frame >> 10 & 3] // {3: 1, 2: 2, 0: 4}.get(version, 1)
    samples = 1152 if version == 3 else 576
    table = re.search(rb"Xing|Info", window[at : at + 64])
    if table is not None:
        flags, frames = struct.unpack_from(">II", window, at + table.start() + 4)
        if flags & 1:
            return float(frames * samples / rate)
    return (len(payload) - start - at) * 8 / (kbit * 1000)
