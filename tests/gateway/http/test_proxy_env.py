from __future__ import annotations

import pytest

from gateway.http import Origin
from gateway.http.proxy_env import ProxyTable

HTTP = Origin("http", "up.test", 80)
HTTPS = Origin("https", "api.up.test", 443)


def chosen(environ: dict[str, str], origin: Origin) -> str | None:
    proxy = ProxyTable(environ).proxy_for(origin)
    return proxy.origin.authority if proxy else None


def test_proxy_is_chosen_by_the_origins_scheme() -> None:
    environ = {"HTTP_PROXY": "http://a.test:1", "HTTPS_PROXY": "b.test:2"}
    assert chosen(environ, HTTP) == "a.test:1"
    assert chosen(environ, HTTPS) == "b.test:2"
    assert chosen({}, HTTP) is None


def test_proxy_falls_back_to_all_proxy() -> None:
    assert chosen({"ALL_PROXY": "http://a.test:1"}, HTTPS) == "a.test:1"


def test_proxy_lower_case_wins_when_both_are_set() -> None:
    assert chosen({"HTTP_PROXY": "http://a.test:1", "http_proxy": "http://b.test:2"}, HTTP) == "b.test:2"
    assert chosen({"HTTP_PROXY": "http://a.test:1", "http_proxy": ""}, HTTP) is None


def test_proxy_in_capitals_is_not_read_under_cgi() -> None:
    environ = {"HTTP_PROXY": "http://evil.test:1", "REQUEST_METHOD": "GET"}
    assert chosen(environ, HTTP) is None


@pytest.mark.parametrize(
    "rules",
    [
        "*",
        "up.test",
        ".up.test",
        "*.up.test",
        "UP.test",
        "other.test, api.up.test",
        "api.up.test:443",
    ],
)
def test_no_proxy_covers(rules: str) -> None:
    assert chosen({"ALL_PROXY": "http://a.test:1", "NO_PROXY": rules}, HTTPS) is None


@pytest.mark.parametrize("rules", ["", ",", "p.test", "pi.up.test", "api.up.test:8443", "10.0.0.0/8", "::1"])
def test_no_proxy_does_not_cover(rules: str) -> None:
    assert chosen({"ALL_PROXY": "http://a.test:1", "NO_PROXY": rules}, HTTPS) == "a.test:1"


@pytest.mark.parametrize(
    ("rules", "host"),
    [
        ("10.0.0.0/8", "10.1.2.3"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("[::1]:80", "::1"),
        ("fd00::/8", "fd00::5"),
    ],
)
def test_no_proxy_covers_addresses_and_networks(rules: str, host: str) -> None:
    assert chosen({"ALL_PROXY": "http://a.test:1", "NO_PROXY": rules}, Origin("http", host, 80)) is None


def test_proxy_credentials_become_a_header_and_are_not_shown() -> None:
    proxy = ProxyTable({"HTTP_PROXY": "http://us%40er:p%3Aw@a.test:1"}).proxy_for(HTTP)
    assert proxy is not None
    assert proxy.headers == ((b"Proxy-Authorization", b"Basic dXNAZXI6cDp3"),)
    assert "Basic" not in repr(proxy)


@pytest.mark.parametrize(
    "url", ["socks5://secret@a.test:1", "https://u:secret@a.test:1", "http://u:secret@a.test:x", "http://"]
)
def test_proxy_table_names_the_variable_when_its_url_is_not_usable(url: str) -> None:
    with pytest.raises(ValueError, match="HTTPS_PROXY: ") as caught:
        ProxyTable({"HTTPS_PROXY": url})
    assert "secret" not in str(caught.value)
