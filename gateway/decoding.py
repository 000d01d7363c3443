"""Reading a compressed answer: a copy is decoded for the usage reader, the caller's bytes stay as they came."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

MAX_DECODED_BYTES = 64 * 1024 * 1024
"""A copy that unpacks to more than this is no longer read, as a plain answer of that size is not."""

_PIECE_BYTES = 256 * 1024
"""The most that is unpacked at a time, so that a few bytes that stand for millions never lie unpacked in memory."""

_ZSTANDARD_SLICE_BYTES = 256
"""The library cannot be told how much to give; so few bytes stand for 8 MiB at most (4 bytes a block of 128 KiB)."""


class Decoder(Protocol):
    """Takes the next compressed bytes and gives what they unpack to, piece by piece. Bytes it cannot read give
    nothing."""

    def feed(self, chunk: bytes) -> Iterator[bytes]: ...


class _ZlibDecoder:
    __slots__ = ("_broken", "_total", "_unpacker")

    def __init__(self, window_bits: int) -> None:
        self._unpacker = zlib.decompressobj(window_bits)
        self._broken = False
        self._total = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        rest, goes_on = chunk, True
        while goes_on and not self._broken and not self._unpacker.eof:
            try:
                piece = self._unpacker.decompress(rest, _PIECE_BYTES)
            except zlib.error:
                self._broken = True
                return
            rest = self._unpacker.unconsumed_tail
            goes_on = bool(rest) or len(piece) == _PIECE_BYTES
            self._total += len(piece)
            self._broken = self._total > MAX_DECODED_BYTES
            if piece:
                yield piece


class _DeflateDecoder:
    """``deflate`` means zlib's wrapper (RFC 9110), but some servers send it bare: the first two bytes tell."""

    __slots__ = ("_head", "_unpacker")

    def __init__(self) -> None:
        self._head = b""
        self._unpacker: _ZlibDecoder | None = None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        if self._unpacker is None:
            chunk = self._head = self._head + chunk
            if len(chunk) < 2:
                return
            wrapped = chunk[0] & 0x0F == 8 and int.from_bytes(chunk[:2], "big") % 31 == 0
            self._unpacker = _ZlibDecoder(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
        yield from self._unpacker.feed(chunk)


class _LibraryDecoder:
    """Wraps an incremental decoder of an installed library (Brotli, Zstandard): its `unpack` gives pieces."""

    __slots__ = ("_total", "_unpack")

    def __init__(self, unpack: Callable[[bytes], Iterator[bytes]]) -> None:
        self._unpack: Callable[[bytes], Iterator[bytes]] | None = unpack
        self._total = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        if self._unpack is None:
            return
        try:
            for piece in self._unpack(chunk):
                self._total += len(piece)
                if piece:
                    yield piece
                if self._total > MAX_DECODED_BYTES:
                    self._unpack = None
                    return
        except Exception:  # each library raises its own type; a copy that cannot be read only loses the reading
            self._unpack = None


def _brotli_pieces() -> Callable[[bytes], Iterator[bytes]]:
    unpacker: Any = _BROTLI.Decompressor()  # type: ignore[union-attr]

    def unpack(chunk: bytes) -> Iterator[bytes]:
        yield unpacker.process(chunk, output_buffer_limit=_PIECE_BYTES)
        while not unpacker.can_accept_more_data():
            yield unpacker.process(b"", output_buffer_limit=_PIECE_BYTES)

    return unpack


def _zstandard_pieces() -> Callable[[bytes], Iterator[bytes]]:
    unpacker: Any = _ZSTANDARD.ZstdDecompressor().decompressobj()  # type: ignore[union-attr]

    def unpack(chunk: bytes) -> Iterator[bytes]:
        for at in range(0, len(chunk), _ZSTANDARD_SLICE_BYTES):
            yield unpacker.decompress(chunk[at : at + _ZSTANDARD_SLICE_BYTES])

    return unpack


def _nothing(_: bytes) -> Iterator[bytes]:
    return iter(())


def _library(name: str) -> Any | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _bounded_brotli() -> Any | None:
    """Brotli of a version that can be told how much to give; any other is as good as none."""
    found = _library("brotli")
    return found if found is not None and hasattr(found.Decompressor, "can_accept_more_data") else None


_BROTLI = _bounded_brotli()
_ZSTANDARD = _library("zstandard")
_KNOWN = frozenset(
    {"gzip", "x-gzip", "deflate", "identity"}
    | ({"br"} if _BROTLI is not None else set())
    | ({"zstd"} if _ZSTANDARD is not None else set())
)


def decoder_for(encoding: str) -> Decoder | None:
    """The decoder of a ``Content-Encoding``; None when there is nothing to decode. An encoding that cannot be read
    here gets a decoder that gives nothing."""
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return _ZlibDecoder(zlib.MAX_WBITS | 16)
        case "deflate":
            return _DeflateDecoder()
        case "br" if _BROTLI is not None:
            return _LibraryDecoder(_brotli_pieces())
        case "zstd" if _ZSTANDARD is not None:
            return _LibraryDecoder(_zstandard_pieces())
    return _LibraryDecoder(_nothing)


def decodable(accept_encoding: str) -> str:
    """An ``Accept-Encoding`` cut down to what can be read here; "" when the caller named none.

    An answer in any other encoding would be relayed unread, and its usage lost.
    """
    if not accept_encoding:
        return ""
    kept = [part.strip() for part in accept_encoding.split(",") if part.partition(";")[0].strip().lower() in _KNOWN]
    return ", ".join(kept) or "identity"
