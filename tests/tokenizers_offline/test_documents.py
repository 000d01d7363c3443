import base64
import zlib

from tokenizers_offline.documents import MAX_READ_BYTES, MAX_TEXT_FILE_BYTES, count_pages, read_text
from tokenizers_offline.images import measure
from tokenizers_offline.payload import Payload
from tokenizers_offline.prompt import MediaPart


def payload(data: bytes) -> Payload:
    return Payload(base64.b64encode(data).decode())


def stream(body: bytes, *, kind: bytes = b"", deflated: bool = True) -> bytes:
    packed = zlib.compress(body) if deflated else body
    flate = b" /Filter /FlateDecode" if deflated else b""
    return b"5 0 obj\n<< " + kind + flate + b" >>\nstream\n" + packed + b"\nendstream\nendobj\n"


PAGES = b"1 0 obj << /Type /Pages /Count 2 >> endobj 2 0 obj << /Type /Page >> endobj 3 0 obj <</Type/Page>> endobj\n"


def test_pages_are_counted_where_they_stand() -> None:
    assert count_pages(payload(b"%PDF-1.4\n" + PAGES)) == 2


def test_pages_are_counted_in_object_streams() -> None:
    assert count_pages(payload(b"%PDF-1.5\n" + stream(PAGES, kind=b"/Type /ObjStm"))) == 2


def test_pages_are_taken_from_the_tree_when_the_file_is_large() -> None:
    large = b"%PDF-1.4\n" + b"\0" * MAX_READ_BYTES + b"<< /Type /Pages /Count 321 >>"
    assert count_pages(payload(large)) == 321


def test_files_that_are_no_pdf_have_no_pages() -> None:
    assert count_pages(payload(b"hello" + PAGES)) is None
    assert count_pages(payload(b"%PDF-1.4 nothing")) is None
    assert read_text(payload(b"hello (x) Tj")) is None


def test_text_is_read_from_strings_kerning_and_lines() -> None:
    content = rb"BT (Hel) Tj T* [(wor) -20 (ld) -300 (of \(all\) \164hings)] TJ ET q 1 0 0 1 0 0 cm Q BT (end) Tj ET"
    for deflated in (True, False):
        file = b"%PDF-1.4\n" + stream(content, deflated=deflated)
        assert read_text(payload(file)) == "Hel\nworld of (all) things\nend"


def test_text_is_read_through_glyph_maps() -> None:
    maps = b"1 beginbfchar <0003> <0041> endbfchar 1 beginbfrange <0010> <0012> <0062> endbfrange"
    file = b"%PDF-1.4\n" + stream(maps) + stream(b"BT <0003001000110012> Tj ET")
    assert read_text(payload(file)) == "Abcd"


def test_text_of_large_or_broken_files_is_not_read() -> None:
    assert read_text(payload(b"%PDF-1.4\n" + b"\0" * MAX_TEXT_FILE_BYTES)) is None
    broken = b"%PDF-1.4\n5 0 obj << /FlateDecode >> stream\nBT (x) Tj ET endstream"
    assert read_text(payload(broken)) is None


def test_measure_fills_pages_and_text() -> None:
    file = b"%PDF-1.4\n" + PAGES + stream(b"BT (Hello) Tj ET")
    part = measure(MediaPart("document", data=base64.b64encode(file).decode()))
    assert (part.pages, part.text) == (2, "Hello")
