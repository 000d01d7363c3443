"""Pages in a browser: what strangers wrote never runs, another site can neither ask nor frame, cookies stay here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import gateway
from policies.ledger import LedgerEntry
from tests.conftest import KEY, RunningGateway, StartGateway, config_for, digest
from tests.fakes import FakeUpstream, plain

ADMIN = "sk-test-admin"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
EVIL = "</script><img src=x onerror=alert(1)>\ndata: {}\n\nevent: x"
WEB = Path(gateway.__file__).parent / "web"


@pytest.fixture
async def opened(start_gateway: StartGateway, upstream: FakeUpstream) -> tuple[RunningGateway, dict[str, str]]:
    config = config_for(upstreams=[{"name": "up", "url": upstream.url}], admin={"digest": digest(ADMIN)})
    running = await start_gateway(config)
    response, _ = await running.post("/dashboard/login", b"key=" + ADMIN.encode(), key=None, headers=FORM)
    return running, {"Cookie": response.headers["Set-Cookie"].partition(";")[0]}


Opened = tuple[RunningGateway, dict[str, str]]


@pytest.mark.parametrize(
    "path", ["/dashboard", "/dashboard/dashboard.js", "/dashboard/dashboard.css", "/docs", "/docs/docs.js"]
)
async def test_every_page_and_file_forbids_scripts_from_elsewhere_and_frames(opened: Opened, path: str) -> None:
    running, cookie = opened
    response, _ = await running.get(path, key=None, headers=cookie)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert re.search(r"script-src 'self'(;|$)", policy)
    assert "base-uri 'none'" in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_scripts_put_what_strangers_wrote_into_pages_as_text_only() -> None:
    for path in WEB.glob("*.js"):
        code = path.read_text()
        found = re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc", code)
        assert found == [], path.name
    for path in WEB.glob("*.html"):
        text = path.read_text()
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son[a-z]+=|javascript:", text), path.name


async def test_what_strangers_wrote_ends_no_event_and_no_line_of_the_dashboard(opened: Opened) -> None:
    running, cookie = opened
    await running.runtime.engine.record(
        LedgerEntry(
            request_id=EVIL,
            at=running.runtime.clock(),
            key_id=EVIL,
            model=EVIL,
            upstream=EVIL,
            outcome="ok",
            tags={"team": EVIL},
        )
    )
    response, told = await running.get("/dashboard/data", key=None, headers=cookie)
    assert response.content_type == "application/json"
    assert "onerror" in json.dumps(told), "the dashboard shows the model: or this test tries nothing"
    async with running.client.get(f"{running.url}/dashboard/stream", headers=cookie) as stream:
        lines = [await stream.content.readline() for _ in range(4)]
    assert [line.partition(b":")[0].strip() for line in lines] == [b"retry", b"", b"data", b""]
    json.loads(lines[2].removeprefix(b"data: "))


@pytest.mark.parametrize("path", ["/dashboard/data", "/dashboard/stream"])
async def test_figures_need_the_session_and_no_other_cookie_will_do(opened: Opened, path: str) -> None:
    running, cookie = opened
    token = cookie["Cookie"].partition("=")[2]
    expires, nonce, signature = token.split(".")
    forged = [
        "", "x", "..", f"{expires}.{nonce}.", f"{int(expires) + 9}.{nonce}.{signature}",
        f"{expires}.other.{signature}",
        f"{expires}.{nonce}.{signature[:-1]}0", f"9{expires}.{nonce}.{signature}", f"{expires}.{nonce}.{'é' * 64}",
        "9" * 5000,
    ]  # fmt: skip
    for value in forged:
        if value == token:
            continue
        head = {"Cookie": f"tollgate_session={value}"}
        response, _ = await running.get(path, key=None, headers=head)
        assert response.status == 401, value
        assert "Content-Security-Policy" in response.headers or response.content_type == "application/json"


async def test_the_session_opens_the_dashboard_and_nothing_else(opened: Opened, upstream: FakeUpstream) -> None:
    """So that no other site, and no page of an upstream, can make a signed-in browser change anything."""
    running, cookie = opened
    for method, path in (
        ("POST", "/admin/reload"),
        ("POST", "/admin/keys"),
        ("GET", "/admin/keys"),
        ("GET", "/budgets"),
    ):
        response, _ = await running.request(method, path, {} if method == "POST" else None, key=None, headers=cookie)
        assert response.status == 401
    assert upstream.requests == []


async def test_the_session_s_cookie_is_strict_and_for_the_dashboard_only(opened: Opened) -> None:
    running, _ = opened
    response, _ = await running.post("/dashboard/login", b"key=" + ADMIN.encode(), key=None, headers=FORM)
    flags = response.headers["Set-Cookie"].split("; ")[1:]
    assert {"HttpOnly", "SameSite=Strict"} <= set(flags)
    assert not [flag for flag in flags if flag.lower().startswith(("path", "domain"))]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1:1", "file://"]
)
@pytest.mark.parametrize("path", ["/dashboard/login", "/dashboard/logout"])
async def test_another_origin_can_neither_sign_in_nor_out(opened: Opened, path: str, origin: str) -> None:
    running, cookie = opened
    response, _ = await running.post(
        path, b"key=" + ADMIN.encode(), key=None, headers={**FORM, **cookie, "Origin": origin}
    )
    assert response.status == 403
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"key=" + b"a" * 100_000, FORM["Content-Type"]),
        (
            b'--b\r\nContent-Disposition: form-data; name="key"; filename="f"\r\n\r\nx\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
        ),
        (b'{"key": "sk-test-admin"}', "application/json"),
        (b"key=" + ADMIN.encode(), "text/plain"),
    ],
    ids=["long", "file", "json", "another site's form"],
)
async def test_sign_in_takes_a_short_form_and_nothing_else(opened: Opened, body: bytes, kind: str) -> None:
    """A file in a form would be written to the disk by whoever parses forms."""
    running, _ = opened
    response, _ = await running.post("/dashboard/login", body, key=None, headers={"Content-Type": kind})
    assert response.status == 400
    assert "Set-Cookie" not in response.headers


async def test_sign_in_takes_no_body_of_unknown_length(opened: Opened) -> None:
    running, _ = opened

    async def endless() -> Any:
        yield b"key="
        yield ADMIN.encode()

    async with running.client.post(f"{running.url}/dashboard/login", data=endless(), headers=FORM) as response:
        assert response.status == 400


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "application/octet-stream", "", "text/javascript"])
async def test_an_answer_that_is_a_page_does_not_run_as_one_of_ours(
    opened: Opened, upstream: FakeUpstream, kind: str
) -> None:
    """Files that callers upload can be asked for with a link: not a script beside the dashboard's session."""
    running, _ = opened
    upstream.enqueue(plain(b"<script>alert(1)</script>", headers=[("Content-Type", kind)]))
    response, body = await running.get(f"/v1/files/a/content?key={KEY}", key=None)
    assert body == b"<script>alert(1)</script>"
    assert response.headers.getall("Content-Security-Policy") == ["sandbox"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_an_answer_of_an_api_is_left_as_it_is(opened: Opened) -> None:
    running, _ = opened
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
    response, _ = await running.post("/v1/chat/completions", body)
    assert "Content-Security-Policy" not in response.headers


async def test_an_error_that_cites_a_path_or_model_is_no_page(opened: Opened) -> None:
    running, _ = opened
    for path in ("/docs/<script>alert(1)</script>", "/v1/chat/completions"):
        response, _ = await running.request("GET", path, key=None)
        assert response.content_type == "application/json"
