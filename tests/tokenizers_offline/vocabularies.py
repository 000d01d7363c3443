"""Small vocabularies for tests, in every form that tokenizers are published in, and a store to keep them in."""

from __future__ import annotations

import base64
import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

TOKENS = ["h", "e", "l", "o", "Ġ", "w", "r", "d", "!", "Ċ", "he", "ll", "hell", "hello", "Ġw", "or", "Ġwor", "ld"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d"]
PATTERN = r" ?\p{L}+|\s+|[^\s\p{L}]+"


def document(*, array_merges: bool = False, added: tuple[str, ...] = ("<|user|>", "<|end|>")) -> dict[str, Any]:
    """A byte-level ``tokenizer.json`` that knows the words hello and world (as three tokens)."""
    merges: list[Any] = [merge.split() for merge in MERGES] if array_merges else list(MERGES)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "added_tokens": [{"id": 100 + i, "content": content, **flags} for i, content in enumerate(added)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "model": {"type": "BPE", "vocab": {token: i for i, token in enumerate(alphabet())}, "merges": merges},
    }


def alphabet() -> list[str]:
    """Every byte's letter, so that no text is unknown, then the merged tokens."""
    from tokenizers_offline.byte_ranks import byte_letters

    letters = list(byte_letters())
    return letters + [token for token in TOKENS if token not in letters]


def document_bytes(**options: Any) -> bytes:
    return json.dumps(document(**options), ensure_ascii=False).encode()


def config_bytes(*, template: str = "{{ messages[0].content }}", extra: str = "<|extra|>") -> bytes:
    """A ``tokenizer_config.json`` with one added token of its own and a chat template."""
    token = {"content": extra, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return json.dumps({"added_tokens_decoder": {"150": {**token, "special": True}}, "chat_template": template}).encode()


def ranks_bytes() -> bytes:
    """The ranks file of bytes and the tokens ab, abc and bc."""
    tokens = [bytes([value]) for value in range(256)] + [b"ab", b"bc", b"abc"]
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))


def sentencepiece_bytes(pieces: list[tuple[str, float, int]]) -> bytes:
    """A SentencePiece ModelProto with (piece, score, kind)."""
    out = bytearray()
    for piece, score, kind in pieces:
        text = piece.encode()
        inner = b"\x0a" + bytes([len(text)]) + text + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind])
        out += b"\x0a" + bytes([len(inner)]) + inner
    return bytes(out)


def wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    """A wheel that pip takes, holding `files`."""
    bare = name.replace("-", "_")
    info = f"{bare}-{version}.dist-info"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / f"{bare}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in {**files, **metadata}.items():
            archive.writestr(member, data)
        archive.writestr(f"{info}/RECORD", "".join(f"{member},,\n" for member in (*files, *metadata)))
    return path


def zipped(name: str, data: bytes) -> bytes:
    """A zip with one member."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


def tarball(files: dict[str, bytes]) -> bytes:
    """A gzipped tarball as npm publishes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
