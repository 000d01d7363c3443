"""Log lines: whatever a stranger writes stays inside the value it was written into."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from gateway.logging import render_json
from tests.conftest import KEY, config_for
from tests.fakes import FakeUpstream
from tests.security.conftest import Serve, as_a_process_logs, post

FORGED = '","outcome":"ok","key_id":"admin","x":"'
HOSTILE = (
    "a\nb", "a\r\nb", "\x1b[2J\x1b[31m", "\x9b31m", "\u2028\u2029", "\u202egnp.exe", "\u2066x\u2069",
    "\u200b\u200f\ufeff", "\0", "\x7f",
    FORGED, f"Bearer x{FORGED}", f"bearer \\{FORGED}", f"?key=x{FORGED}", f"redis://a:b{FORGED}@c", "Bearer \\",
    'Bearer x\\"', "\ud800",
    '{"event":"request"}\n{"event":"request","key_id":"admin"}', "sk-" + "a" * 40 + FORGED,
)  # fmt: skip


@pytest.fixture(params=["json", "console"])
def log(request: pytest.FixtureRequest) -> Iterator[tuple[str, io.StringIO]]:
    with as_a_process_logs(request.param) as written:
        yield request.param, written


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_a_value_stays_one_value_of_one_line(value: str) -> None:
    line = render_json(None, "", {"event": "request", "path": value, "outcome": "refused", "key_id": "mallory"})
    assert b"\n" not in line
    read = json.loads(line)
    assert (read["outcome"], read["key_id"], set(read)) == (
        "refused",
        "mallory",
        {"event", "path", "outcome", "key_id"},
    )


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_in_a_line_is_obeyed_by_a_terminal(log: tuple[str, io.StringIO], value: str) -> None:
    _, written = log
    structlog.get_logger("x").info("request", path=value, model=value, key_id=value)
    logging.getLogger("library").warning("%s", value.replace("\ud800", ""))
    text = written.getvalue()
    assert text.count("\n") == len(text.splitlines()) == 2
    for sign in ("\x1b[2J", "\x9b", "\u2028", "\u2029", "\u202e", "\u2066", "\u200b", "\u200f", "\0", "\r"):
        assert sign not in text


async def test_what_a_request_says_of_itself_is_logged_as_one_line(
    serve: Serve, upstream: FakeUpstream, log: tuple[str, io.StringIO]
) -> None:
    style, written = log
    config = config_for(upstreams=[{"name": "up", "url": upstream.url}])
    config["server"]["trusted_proxies"] = ["127.0.0.0/8"]
    gateway = await serve(config)
    before = len(written.getvalue().splitlines())
    evil = "%0a%1b[31m%22,%22key_id%22:%22admin%E2%80%A8%C2%9b"
    sent: list[bytes] = [
        post(b"{}", path=f"/v1/files/{evil}"),
        post(b"{}", path=f"/v1/Bearer%20x{evil}"),
        post(b"{}", path="/v1/files", key=f"sk-{FORGED}"),
        post(b"{}", path="/v1/files", headers=f"X-Forwarded-For: 1.2.3.4{FORGED}\r\n".encode()),
        post(json.dumps({"model": f"m\n{FORGED}\x1b", "messages": [{"role": "user", "content": "x"}]}).encode()),
    ]
    for each in sent:
        assert await gateway.send(each)
    lines = written.getvalue().split("\n")[before:-1]
    assert len(lines) == len(sent), lines
    for line in lines:
        assert not set(line) & set("\r\x9b\u2028")
        assert '\x1b[31m"' not in line
        if style == "json":
            read: dict[str, Any] = json.loads(line)
            assert read["key_id"] in ("alice", "")
            assert KEY not in line
