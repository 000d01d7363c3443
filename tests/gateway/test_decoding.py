from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import decoding
from gateway.decoding import decodable, decoder_for


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", bare_deflate)]
)
@given(data=st.binary(max_size=2000), cut=st.integers(1, 50))
def test_decoding_gives_the_original_wherever_it_is_split(encoding: str, pack: object, data: bytes, cut: int) -> None:
    packed = pack(data)  # type: ignore[operator]
    decoder = decoder_for(encoding)
    assert decoder is not None
    pieces = [packed[start : start + cut] for start in range(0, len(packed), cut)]
    assert b"".join(out for piece in pieces for out in decoder.feed(piece)) == data


def test_identity_needs_no_decoder() -> None:
    assert decoder_for("") is None
    assert decoder_for("Identity") is None


@given(st.binary(max_size=300))
def test_garbage_never_raises(data: bytes) -> None:
    for encoding in ("gzip", "deflate", "br", "zstd", "unheard-of"):
        decoder = decoder_for(encoding)
        assert decoder is not None
        list(decoder.feed(data))
        list(decoder.feed(data))


def test_a_bomb_is_read_no_further_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_DECODED_BYTES", 3 * 1024 * 1024)
    decoder = decoder_for("gzip")
    assert decoder is not None
    pieces = list(decoder.feed(gzip.compress(bytes(64 * 1024 * 1024))))
    assert 3 * 1024 * 1024 < sum(map(len, pieces)) <= 4 * 1024 * 1024
    assert max(map(len, pieces)) <= 256 * 1024
    assert list(decoder.feed(b"more")) == []


def test_a_body_of_many_pieces_is_whole() -> None:
    data = bytes(range(256)) * 4096 + bytes(1024 * 1024)
    for encoding, pack in (("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", bare_deflate)):
        decoder = decoder_for(encoding)
        assert decoder is not None
        assert b"".join(decoder.feed(pack(data))) == data


def test_accept_encoding_is_cut_down_to_what_can_be_read() -> None:
    assert decodable("") == ""
    assert decodable("gzip;q=0.5, compress, deflate") == "gzip;q=0.5, deflate"
    assert decodable("compress") == "identity"
