from __future__ import annotations

import pytest

from gateway.http import Origin


@pytest.mark.parametrize(
    ("url", "origin", "host_header"),
    [
        ("http://up.test", Origin("http", "up.test", 80), b"up.test"),
        ("HTTPS://Up.Test/v1?x", Origin("https", "up.test", 443), b"up.test"),
        ("https://up.test:8443", Origin("https", "up.test", 8443), b"up.test:8443"),
        ("http://[::1]:81/", Origin("http", "::1", 81), b"[::1]:81"),
        ("http://[fe80::1%eth0]/", Origin("http", "fe80::1%eth0", 80), b"[fe80::1]"),
        ("http://bücher.test/", Origin("http", "xn--bcher-kva.test", 80), b"xn--bcher-kva.test"),
        ("http://local_name:80", Origin("http", "local_name", 80), b"local_name"),
    ],
)
def test_origin_is_read_from_a_url(url: str, origin: Origin, host_header: bytes) -> None:
    assert Origin.from_url(url) == origin
    assert Origin.from_url(url).host_header == host_header


@pytest.mark.parametrize(
    "url",
    ["up.test", "ftp://up.test", "http://", "http://up.test:99999", "http://up.test:0", "http://a..b", "http://a b/"],
)
def test_origin_refuses_what_is_no_http_url(url: str) -> None:
    with pytest.raises(ValueError, match=r"scheme|host|port"):
        Origin.from_url(url)


def test_origin_errors_do_not_show_user_info() -> None:
    with pytest.raises(ValueError, match="scheme") as caught:
        Origin.from_url("ftp://user:secret@up.test")
    assert "secret" not in str(caught.value)
