"""Where a request may go: only to the configured upstream, only below its base, whatever target or host it names."""

from __future__ import annotations

import json

import pytest

from gateway.http.request_head import encode_request_head
from tests.conftest import KEY, config_for, digest
from tests.fakes import FakeUpstream
from tests.security.conftest import CHAT, Serve, post

BODY = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}).encode()
ADMIN = "tg-admin-of-the-test"


def at(target: str, *, host: str = "gateway", headers: bytes = b"", key: str = KEY, method: str = "POST") -> bytes:
    sent = post(BODY, path="/x", key=key, headers=headers)
    return sent.replace(b"POST /x", f"{method} {target}".encode(), 1).replace(b"gateway", host.encode(), 1)


@pytest.mark.parametrize(
    "sent",
    [
        at("http://evil.example/v1/chat/completions"),
        at("https://evil.example:443/v1/chat/completions"),
        at("http://user:pass@evil.example/v1/chat/completions"),
        at("gopher://evil.example:11211/x"),
        at(CHAT, host="evil.example"),
        at(CHAT, host="user@evil.example"),
        at(CHAT, host="169.254.169.254"),
        at(CHAT, headers=b"X-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\n"),
        at("//evil.example/v1/chat/completions"),
        at("/@evil.example/v1/chat/completions"),
        at("/http://evil.example/v1/chat/completions"),
        at(CHAT + "#@evil.example/"),
        at(CHAT + "?url=http://evil.example"),
    ],
)
async def test_every_form_of_target_ends_at_the_configured_upstream(
    serve: Serve, upstream: FakeUpstream, sent: bytes
) -> None:
    gateway = await serve(config_for(upstreams=[{"name": "up", "url": upstream.url + "/base"}]))
    answer = await gateway.send(sent)
    assert answer.split(b" ")[1] in (b"200", b"400")
    for got in upstream.requests:
        assert got.target.startswith("/base/")
        assert got.header("host") == upstream.url.removeprefix("http://")


@pytest.mark.parametrize(
    "sent",
    [
        at("evil.example/v1/chat/completions"),
        at("evil.example:443", method="CONNECT"),
        at("*", method="OPTIONS"),
        at("file:///etc/passwd"),
        at("\\\\evil.example\\v1\\chat\\completions"),
    ],
)
async def test_targets_that_are_no_path_are_refused(serve: Serve, upstream: FakeUpstream, sent: bytes) -> None:
    gateway = await serve(config_for(upstreams=[{"name": "up", "url": upstream.url}]))
    assert (await gateway.send(sent)).split(b" ")[1].startswith(b"4")
    assert upstream.requests == []


@pytest.mark.parametrize(
    "model",
    [
        "http://evil.example/",
        "@evil.example",
        "../../../admin",
        "gpt-4o@evil.example",
        "evil.example/gpt-4o",
        "a\r\nHost: b",
    ],
)
async def test_a_model_s_name_chooses_no_address(serve: Serve, upstream: FakeUpstream, model: str) -> None:
    config = config_for(upstreams=[{"name": "up", "url": upstream.url}])
    config["tokenizers"]["unknown_model"] = "estimate"
    gateway = await serve(config)
    for sent in (
        post(json.dumps({**json.loads(BODY), "model": model}).encode()),
        post(b'{"contents": [{"parts": [{"text": "Hi"}]}]}', path=_quoted(f"/v1beta/models/{model}:generateContent")),
        post(BODY, path=_quoted(f"/openai/deployments/{model}/chat/completions")),
        post(b'{"messages": []}', path=_quoted(f"/model/{model}/converse")),
    ):
        assert (await gateway.send(sent)).split(b" ")[1] in (b"200", b"400", b"404")
    for got in upstream.requests:
        assert got.header("host") == upstream.url.removeprefix("http://")
        assert ".." not in got.target


def _quoted(path: str) -> str:
    from urllib.parse import quote

    return quote(path, safe="/:")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret", "/v1/../../secret", "/%2e%2e/secret", "/%2E./secret", "/v1/..;/secret", "/v1/..%2fsecret",
        "/..%5csecret",
        "/v1/%252e%252e/secret", "/v1/%252e%252e%252fsecret", "/v1/..%3b/secret", "/v1/.%2e%20/secret", "/..\\secret",
        "/v1/models/..%2f..%2fsecret:generateContent", "/v1/files/..", "/v1/ext_authz/../../secret",
        "/v1/..%00/secret",
    ],
)  # fmt: skip
async def test_no_path_climbs_out_of_the_upstream_s_base(serve: Serve, upstream: FakeUpstream, path: str) -> None:
    gateway = await serve(config_for(upstreams=[{"name": "up", "url": upstream.url + "/tenant/v1"}]))
    for method in ("POST", "GET"):
        answer = await gateway.send(at(path, method=method))
        assert answer.split(b" ")[1] in (b"400", b"404"), answer
    assert upstream.requests == []


@pytest.mark.parametrize("folder", ["/docs/", "/dashboard/"])
@pytest.mark.parametrize(
    "name",
    [
        "../settings.py",
        "..%2fsettings.py",
        "%2e%2e/app.py",
        "....//app.py",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "docs.js%00",
        "x",
    ],
)
async def test_pages_have_no_files_but_their_own(serve: Serve, upstream: FakeUpstream, folder: str, name: str) -> None:
    config = config_for(upstreams=[{"name": "up", "url": upstream.url}], admin={"digest": digest(ADMIN)})
    gateway = await serve(config)
    answer = await gateway.send(at(folder + name, method="GET", key=ADMIN))
    assert answer.split(b" ")[1] in (b"400", b"401", b"403", b"404"), answer
    assert b"root:" not in answer
    assert b"import" not in answer
    assert upstream.requests == []


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-Method-Override", "X-Original-URL", "X-Rewrite-URL"])
async def test_no_header_makes_another_request_of_it(serve: Serve, upstream: FakeUpstream, header: str) -> None:
    gateway = await serve(config_for(upstreams=[{"name": "up", "url": upstream.url}]))
    sent = at("/v1/files", method="GET", headers=f"{header}: {CHAT}\r\n".encode())
    assert (await gateway.send(sent)).startswith(b"HTTP/1.1 200 ")
    assert upstream.requests[0].header(header) is None


@pytest.mark.parametrize("name", ["key", "%6bey", "k%65y", "%6B%65%79"])
async def test_a_key_in_the_query_stays_here_however_it_is_written(
    serve: Serve, upstream: FakeUpstream, name: str
) -> None:
    gateway = await serve(config_for(upstreams=[{"name": "up", "url": upstream.url, "api_key": "the-upstreams"}]))
    sent = post(b"{}", path=f"/v1beta/files?a=1&{name}={KEY}&b=2", key=None)
    assert (await gateway.send(sent)).startswith(b"HTTP/1.1 200 ")
    (got,) = upstream.requests
    assert got.target == "/v1beta/files?a=1&b=2"
    assert KEY not in str(got)


@pytest.mark.parametrize("path", ["/admin/keyz", "/admin", "/Admin/keys", "//admin/keys", CHAT])
async def test_the_admin_key_goes_nowhere_even_where_nobody_needs_a_key(
    serve: Serve, upstream: FakeUpstream, path: str
) -> None:
    config = config_for(upstreams=[{"name": "up", "url": upstream.url}], keys=[], admin={"digest": digest(ADMIN)})
    gateway = await serve(config)
    answer = await gateway.send(at(path, key=ADMIN))
    assert answer.split(b" ")[1] in (b"403", b"404"), answer
    assert upstream.requests == []
    assert (await gateway.send(at(CHAT, key="anything"))).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("target", [b"http://evil", b"evil", b"@evil/", b"", b"/a b", b"/a\r\nX: 1", b"/\x00"])
def test_the_client_writes_no_target_that_a_proxy_could_take_for_an_address(target: bytes) -> None:
    with pytest.raises(Exception, match="request target"):
        encode_request_head(
            method="GET", target=target, headers=[], host=b"up", body=None, via_proxy=b"http://up", proxy_headers=()
        )
