"""What a PDF holds, without a PDF library: its pages, counted where they stand, and the text of a small one.

Work is bounded by size, since counting happens on the way of a request.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from tokenizers_offline.payload import Payload

MAX_READ_BYTES = 1024 * 1024
"""Of a larger file only the two ends are searched for the page tree."""
MAX_TEXT_FILE_BYTES = 64 * 1024
"""The text of a larger file is not read."""
_MAX_STREAMS = 300
_MAX_STREAM_BYTES = 512 * 1024
_MAX_INFLATED_BYTES = 512 * 1024

_STREAM = re.compile(rb"stream\r?\n")
_PAGE = re.compile(rb"/Type\s{0,8}/Page(?![A-Za-z])")
_COUNT = re.compile(rb"/Count\s{1,8}(\d{1,6})")
_WORD_GAP = -180
"""A shift in a TJ array, in thousandths of the font size, from which on two strings are two words."""
_SHOWN = re.compile(
    rb"\((?P<literal>(?:\\.|[^\\()])*)\)|<(?P<hex>[0-9A-Fa-f\s]*)>|(?P<shift>-?\d{1,6}(?:\.\d{1,6})?)(?=\s*[(<])"
    rb"|(?P<line>\bT(?:\*|[dD]\b)|\bET\b)",
    re.DOTALL,
)
_BLOCK = re.compile(rb"\bBT\b(.*?)\bET\b", re.DOTALL)
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|.)", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"", b"f": b"", b"\n": b""}
_GLYPH = re.compile(rb"<([0-9A-Fa-f]{1,8})>\s*<([0-9A-Fa-f]{4,64})>(?!\s*<)")
_GLYPHS = re.compile(rb"<([0-9A-Fa-f]{1,8})>\s*<([0-9A-Fa-f]{1,8})>\s*<([0-9A-Fa-f]{4})>")


def count_pages(payload: Payload) -> int | None:
    """Pages of a PDF; None when it is not one or does not tell.

    Page objects are looked for in the plain file and in its compressed object streams; where none is in sight
    the page tree's own ``/Count`` is taken.
    """
    if not is_pdf(payload):
        return None
    size = len(payload)
    if size > MAX_READ_BYTES:
        ends = payload.read(0, MAX_READ_BYTES // 2) + payload.read(size - MAX_READ_BYTES // 2, MAX_READ_BYTES // 2)
        return max((int(count) for count in _COUNT.findall(ends)), default=0) or None
    file = payload.read(0, size)
    texts = [file, *(text for header, text in _read_streams(file) if b"/ObjStm" in header)]
    pages = sum(len(_PAGE.findall(text)) for text in texts)
    return pages or max((int(count) for text in texts for count in _COUNT.findall(text)), default=0) or None


def is_pdf(payload: Payload) -> bool:
    """Whether the bytes are a PDF's."""
    return b"%PDF-" in payload.read(0, 1024)


def read_text(payload: Payload) -> str | None:
    """The text that a small PDF shows, roughly in its order; None when it shows none, is too large or no PDF.

    Fonts with glyph numbers of their own are read through their ToUnicode maps, all fonts' maps taken together:
    good enough to count by, not to read by.
    """
    if len(payload) > MAX_TEXT_FILE_BYTES or not is_pdf(payload):
        return None
    glyphs: dict[bytes, str] = {}
    contents = []
    for _, text in _read_streams(payload.read(0, len(payload))):
        if b"beginbf" in text:
            _read_glyphs(text, glyphs)
        elif b"BT" in text and (b"Tj" in text or b"TJ" in text):
            contents.append(text)
    return "\n".join(_read_content(text, glyphs) for text in contents) or None


def _read_streams(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each stream's dictionary and its bytes, inflated where they are deflated; images and fonts are left out."""
    position = 0
    inflated = 0
    for _ in range(_MAX_STREAMS):
        start = _STREAM.search(file, position)
        if start is None or inflated > _MAX_INFLATED_BYTES:
            return
        header = file[max(position, start.start() - 512) : start.start()]
        header = header[header.rfind(b" obj") + 1 :]
        end = file.find(b"endstream", start.end(), start.end() + _MAX_STREAM_BYTES)
        position = start.end() if end < 0 else end + 9
        if end < 0 or b"/Image" in header or b"/Length1" in header or b"/FontFile" in header:
            continue
        text = file[start.end() : end]
        if b"/FlateDecode" in header:
            try:
                text = zlib.decompressobj().decompress(text, _MAX_STREAM_BYTES)
            except zlib.error:
                continue
        inflated += len(text)
        yield header, text


def _read_glyphs(text: bytes, glyphs: dict[bytes, str]) -> None:
    for code, target in _GLYPH.findall(text):
        glyphs[_from_hex(code)] = _from_hex(target).decode("utf-16-be", "ignore")
    for first, last, target in _GLYPHS.findall(text):
        low, high, base = int(first, 16), int(last, 16), int(target, 16)
        for offset in range(min(high - low + 1, 256)):
            glyphs[(low + offset).to_bytes(max(1, len(first) // 2), "big")] = chr((base + offset) & 0xFFFF)


def _read_content(content: bytes, glyphs: dict[bytes, str]) -> str:
    shown = []
    for block in _BLOCK.findall(content):
        for match in _SHOWN.finditer(block):
            if match["literal"] is not None:
                shown.append(_ESCAPE.sub(_unescape, match["literal"]).decode("latin-1"))
            elif match["hex"] is not None:
                shown.append(_look_up(_from_hex(match["hex"]), glyphs))
            elif match["line"] is not None:
                shown.append("\n")
            elif float(match["shift"]) < _WORD_GAP:
                shown.append(" ")
        shown.append("\n")
    return re.sub(r"\n\s*", "\n", "".join(shown)).encode("utf-8", "ignore").decode().strip()


def _unescape(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return bytes([int(code, 8) & 255]) if code[:1].isdigit() and code[:1] < b"8" else _ESCAPED.get(code, code)


def _look_up(codes: bytes, glyphs: dict[bytes, str]) -> str:
    width = 2 if len(codes) % 2 == 0 and (not glyphs or any(len(code) == 2 for code in glyphs)) else 1
    return "".join(glyphs.get(codes[i : i + width], "?") for i in range(0, len(codes), width))


def _from_hex(digits: bytes) -> bytes:
    digits = b"".join(digits.split())
    return bytes.fromhex((digits + b"0" * (len(digits) % 2)).decode())
