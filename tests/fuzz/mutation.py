"""Making hostile inputs out of good ones: by structure where it is JSON, by bytes everywhere.

Where choices come from is the caller's: a seeded `Random`, or the bytes that a coverage-guided fuzzer tries.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from random import Random
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Source(Protocol):
    """Where choices come from."""

    def below(self, limit: int) -> int: ...


class Seeded:
    """Choices of a random generator."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def below(self, limit: int) -> int:
        return int(self._random.random() * limit)


def pick(source: Source, values: Sequence[T]) -> T:
    return values[source.below(len(values))]


def _nested(kind: str, depth: int) -> Any:
    value: Any = "end"
    for _ in range(depth):
        value = [value] if kind == "list" else {"properties": {"a": value}, "type": "object"}
    return value


ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 0.5, -0.0, 1e308, 5e-324, 10**400,
    "", " ", "\0", "\r\n", "a\nb", "\u2028", "\u202e", "\ud800", "😀" * 40, "x" * 3000, "word " * 600, "9" * 5000,
    "{{ 7*7 }}", "{% for x in range(10**9) %}", "{{ ''.__class__.__mro__ }}", "<|im_end|>", "<|endoftext|>",
    "data:image/png;base64,", "data:;base64,AAAA", "data:image/jpeg;base64,/9j/" + "/8AA" * 300, "http://[::1",
    "../../etc",
    "__class__", "1e999", "NaN", "2026-13-45T99:99:99Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00",
    [], {}, [[]], [{}], [None], ["a", 1, None], {"": {}}, {"a": None}, {"type": "text", "text": "x"},
    {"$ref": "#"}, {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, {"anyOf": [{"$ref": "#"}]},
    {"type": ["object", "null"], "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, {"enum": [1, None, "x", {}]},
    {"type": "function", "function": {"name": "f", "parameters": {"$ref": "#"}}}, {"type": "image_url",
    "image_url": {}},
)  # fmt: skip
MOST_CHANGES = 6
LONGEST = 200_000
"""Inputs stay below this many bytes, so that many of them are tried."""


def mutate_json(source: Source, seeds: Sequence[Any]) -> bytes:
    """A document with a few of its nodes changed, moved, doubled or taken from another."""
    document = copy.deepcopy(pick(source, seeds))
    try:
        for _ in range(1 + source.below(MOST_CHANGES)):
            document = _changed(source, document, seeds)
        text = json.dumps(document, ensure_ascii=source.below(2) == 0, allow_nan=True).encode("utf-8", "surrogatepass")
    except RecursionError:  # nested within nested: too deep for the one that makes it, not for the one that reads it
        text = b'{"messages":' * 1500
    return mutate_bytes(source, [text]) if source.below(4) == 0 else text[:LONGEST]


def mutate_bytes(source: Source, seeds: Sequence[bytes]) -> bytes:
    """Bytes with some cut out, doubled, overwritten or put in."""
    data = bytearray(pick(source, seeds))
    for _ in range(1 + source.below(MOST_CHANGES)):
        at, size = source.below(len(data) + 1), source.below(40)
        match source.below(6):
            case 0:
                del data[at : at + size]
            case 1:
                data[at:at] = data[at : at + size] * (1 + source.below(4))
            case 2:
                data[at:at] = pick(source, _ODD_BYTES)
            case 3 if at < len(data):
                data[at] = source.below(256)
            case 4:
                other = pick(source, seeds)
                begin = source.below(len(other) + 1)
                data[at : at + size] = other[begin : begin + 200]
            case _:
                del data[at:]
    return bytes(data[:LONGEST])


_ODD_BYTES = (
    b"\0", b"\r", b"\n", b"\r\n", b"\n\n", b"\r\r\n", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xc3", b"{",
    b"}", b"[",
    b"]", b'"', b"\\", b"\\u", b"\\ud800", b":", b"data:", b"data: [DONE]\n\n", b"event: ", b"9" * 400, b"-",
    b"1e999", b"*a",
    b"&a ", b"!!str ", b"<<: ", b"${", b"${A:-", b"%", b"\t", b"  ", b"? ", b"- ", b"|", b">", b"\x1f\x8b",
    b"\x00\x00\x00\x10",
    b"[" * 300, b"{\"a\":" * 250, b"0\r\n\r\n", b"ffffffff\r\n", b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
)  # fmt: skip


def split(source: Source, data: bytes) -> list[bytes]:
    """The same bytes in pieces, as a network might deliver them."""
    pieces, at = [], 0
    while at < len(data) and len(pieces) < 200:
        size = 1 + source.below((3, 40, 4000)[source.below(3)])
        pieces.append(data[at : at + size])
        at += size
    return [*pieces, data[at:]] if at < len(data) else pieces


def _changed(source: Source, document: Any, seeds: Sequence[Any]) -> Any:
    places = _places(document)
    if not places:
        return copy.deepcopy(pick(source, ODD_VALUES))
    holder, key = pick(source, places)
    match source.below(7):
        case 0 | 1:
            holder[key] = copy.deepcopy(pick(source, ODD_VALUES))
        case 2:
            del holder[key]
        case 3:
            other, its = pick(source, _places(pick(source, seeds)) or [(holder, key)])
            holder[key] = copy.deepcopy(other[its])
        case 4 if isinstance(holder, dict):
            other, its = pick(source, places)
            holder[str(its)] = copy.deepcopy(holder[key])
        case 5 if isinstance(holder, list):
            holder[key:key] = copy.deepcopy(holder[key : key + 3]) * (1 + source.below(20))
        case _:
            kind = pick(source, ("list", "schema"))
            holder[key] = _nested(kind, pick(source, (3, 60, 190, 300)))
    return document


def _places(document: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting and len(found) < 2000:
        node = waiting.pop()
        children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in children:
            found.append((node, key))
            waiting.append(child)
    return found
