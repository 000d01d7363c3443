import base64

from hypothesis import given
from hypothesis import strategies as st

from tokenizers_offline.payload import Payload


@given(st.binary(max_size=400), st.integers(0, 450), st.integers(0, 450), st.booleans(), st.booleans())
def test_reads_equal_slices_of_the_whole(data: bytes, start: int, size: int, url_safe: bool, padded: bool) -> None:
    text = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(data).decode()
    payload = Payload(text if padded else text.rstrip("="))
    assert payload.read(start, size) == data[start : start + size]
    assert len(payload) == len(data)


@given(st.binary(min_size=100, max_size=400), st.integers(0, 400))
def test_line_breaks_do_not_shift_positions(data: bytes, start: int) -> None:
    assert Payload(base64.encodebytes(data).decode()).read(start, 50) == data[start : start + 50]


def test_negative_positions_and_garbage_read_as_nothing() -> None:
    assert Payload("AAAA").read(-1, 3) == b""
    assert Payload("\u00e9" * 20).read(0, 9) == b""
    assert len(Payload("")) == 0
