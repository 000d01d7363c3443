"""A few bytes that stand for very many: neither a request nor an answer fills the memory with them."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib

import pytest

from gateway.decoding import MAX_DECODED_BYTES, decoder_for
from tests.conftest import config_for
from tests.fakes import FakeUpstream, plain
from tests.security.conftest import Serve, post

MANY = 256 * 1024 * 1024
MiB = 1024 * 1024
BODY = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}).encode()


def packed_zeros(window_bits: int) -> bytes:
    packer = zlib.compressobj(9, wbits=window_bits)
    piece = bytes(MiB)
    return b"".join(packer.compress(piece) for _ in range(MANY // MiB)) + packer.flush()


GZIP, ZLIB, BARE = packed_zeros(31), packed_zeros(15), packed_zeros(-15)


@pytest.mark.parametrize(
    ("coding", "bomb", "statuses"),
    [
        ("gzip", GZIP, (b"413",)),
        ("deflate", ZLIB, (b"413",)),
        ("deflate", BARE, (b"413", b"400")),
        ("gzip, gzip", gzip.compress(GZIP), (b"400",)),
        ("gzip", gzip.compress(GZIP), (b"400",)),
        ("x-gzip", GZIP, (b"400", b"413")),
        ("identity", b"[" * 1_000_000, (b"400",)),
    ],
    ids=["gzip", "deflate", "bare deflate", "twice", "nested", "x-gzip", "brackets"],
)
async def test_a_packed_request_is_refused_before_it_is_unpacked(
    serve: Serve, upstream: FakeUpstream, coding: str, bomb: bytes, statuses: tuple[bytes, ...]
) -> None:
    gateway = await serve(config_for(upstreams=[{"name": "up", "url": upstream.url}]), max_body="4MiB")
    tracemalloc.start()
    try:
        answer = await gateway.send(post(bomb, headers=f"Content-Encoding: {coding}\r\n".encode()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.split(b" ")[1] in statuses
    assert peak < 48 * MiB
    assert upstream.requests == []


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_packed_answer_is_relayed_and_never_lies_unpacked_in_memory(
    serve: Serve, upstream: FakeUpstream, coding: str
) -> None:
    bomb = GZIP if coding == "gzip" else ZLIB
    upstream.enqueue(plain(bomb, headers=[("Content-Encoding", coding)]))
    gateway = await serve(config_for(upstreams=[{"name": "up", "url": upstream.url}]))
    tracemalloc.start()
    try:
        answer = await gateway.send(post(BODY, headers=b"Accept-Encoding: gzip, deflate\r\n"), for_s=100)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.partition(b"\r\n\r\n")[2] == bomb
    # What the usage reader keeps of an answer that it could still make sense of, and copies of that as it tries.
    assert peak < 5 * MAX_DECODED_BYTES
    counters = await gateway.runtime.engine.store.counters()
    assert all(row.held == 0 for row in counters)
    assert any(row.used for row in counters)


@pytest.mark.parametrize(("coding", "bomb"), [("gzip", GZIP), ("deflate", ZLIB), ("deflate", BARE)])
def test_a_bomb_is_unpacked_piece_by_piece_and_not_to_its_end(coding: str, bomb: bytes) -> None:
    decoder = decoder_for(coding)
    assert decoder is not None
    tracemalloc.start()
    total = sum(len(piece) for piece in decoder.feed(bomb))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert MAX_DECODED_BYTES < total < MAX_DECODED_BYTES + MiB
    assert peak < 4 * MiB
