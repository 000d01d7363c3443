"""Reading a compressed answer: a copy is decoded for the usage reader, the caller's bytes stay as they came."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from typing import Any, Protocol

MAX_DECODED_BYTES = 256 * 1024 * 1024
"""A copy that unpacks to more than this is no longer read: no upstream may fill the memory."""

_PIECE_BYTES = 1024 * 1024


class Decoder(Protocol):
    """Takes the next compressed bytes and gives what they unpack to. Bytes it cannot read give nothing."""

    def feed(self, chunk: bytes) -> bytes: ...


class _ZlibDecoder:
    __slots__ = ("_broken", "_total", "_unpacker")

    def __init__(self, window_bits: int) -> None:
        self._unpacker = zlib.decompressobj(window_bits)
        self._broken = False
        self._total = 0

    def feed(self, chunk: bytes) -> bytes:
        if self._broken:
            return b""
        pieces = []
        rest = chunk
        try:
            while rest and not self._unpacker.eof:
                piece = self._unpacker.decompress(rest, _PIECE_BYTES)
                rest = self._unpacker.unconsumed_tail
                pieces.append(piece)
                self._total += len(piece)
                if self._total > MAX_DECODED_BYTES:
                    self._broken = True
                    break
        except zlib.error:
            self._broken = True
        return b"".join(pieces)


class _DeflateDecoder:
    """``deflate`` means zlib's wrapper (RFC 9110), but some servers send it bare: the first two bytes tell."""

    __slots__ = ("_head", "_unpacker")

    def __init__(self) -> None:
        self._head = b""
        self._unpacker: _ZlibDecoder | None = None

    def feed(self, chunk: bytes) -> bytes:
        if self._unpacker is None:
            chunk = self._head = self._head + chunk
            if len(chunk) < 2:
                return b""
            wrapped = chunk[0] & 0x0F == 8 and int.from_bytes(chunk[:2], "big") % 31 == 0
            self._unpacker = _ZlibDecoder(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
        return self._unpacker.feed(chunk)


class _LibraryDecoder:
    """Wraps an incremental decoder of an installed library (Brotli, Zstandard)."""

    __slots__ = ("_total", "_unpack")

    def __init__(self, unpack: Callable[[bytes], bytes]) -> None:
        self._unpack: Callable[[bytes], bytes] | None = unpack
        self._total = 0

    def feed(self, chunk: bytes) -> bytes:
        if self._unpack is None:
            return b""
        try:
            piece = self._unpack(chunk)
        except Exception:  # each library raises its own type; a copy that cannot be read only loses the reading
            self._unpack = None
            return b""
        self._total += len(piece)
        if self._total > MAX_DECODED_BYTES:
            self._unpack = None
        return piece


def _library(name: str) -> Any | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_BROTLI = _library("brotli")
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
            return _LibraryDecoder(_BROTLI.Decompressor().process)
        case "zstd" if _ZSTANDARD is not None:
            return _LibraryDecoder(_ZSTANDARD.ZstdDecompressor().decompressobj().decompress)
    return _LibraryDecoder(lambda _: b"")


def decodable(accept_encoding: str) -> str:
    """An ``Accept-Encoding`` cut down to what can be read here; "" when the caller named none.

    An answer in any other encoding would be relayed unread, and its usage lost.
    """
    if not accept_encoding:
        return ""
    kept = [part.strip() for part in accept_encoding.split(",") if part.partition(";")[0].strip().lower() in _KNOWN]
    return ", ".join(kept) or "identity"
