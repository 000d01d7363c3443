"""Line ends in whatever ends up in a head, to an upstream or to a caller: one request stays one, one answer one."""

from __future__ import annotations

import json

import pytest

from gateway.config import ConfigError
from tests.conftest import KEY, config_for, digest
from tests.fakes import FakeUpstream, raw
from tests.security.conftest import CHAT, Serve, post

EVIL = "x\r\nX-Evil: 1\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n"
BODY = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}).encode()


def assert_one_at_most(upstream: FakeUpstream) -> None:
    assert len(upstream.requests) <= 1
    for got in upstream.requests:
        assert got.header("x-evil") is None
        assert not got.target.startswith("/smuggled")
        assert not set(got.target) & set(" \r\n")


@pytest.mark.parametrize(
    "target",
    [
        "/v1/x%0d%0aX-Evil:%201", "/v1/x%0aX-Evil:%201", "/v1/files?a=%0d%0aX-Evil:%201%0d%0a%0d%0aGET%20/smuggled",
        "/v1/files?a=b%20HTTP/1.1%0d%0aX-Evil:%201", "/v1/%E5%98%8A%E5%98%8DX-Evil:1",
        "/v1beta/models/g%0d%0aX-Evil:%201:generateContent",
        "/openai/deployments/gpt-4o%0d%0aX-Evil:%201/chat/completions",
    ],
)  # fmt: skip
async def test_line_ends_in_a_target_split_nothing(serve: Serve, upstream: FakeUpstream, target: str) -> None:
    gateway = await serve(config_for(upstreams=[{"name": "up", "url": upstream.url}]))
    answer = await gateway.send(post(BODY, path=target))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nx-evil" not in answer.partition(b"\r\n\r\n")[0].lower()
    assert_one_at_most(upstream)


@pytest.mark.parametrize("field", ["model", "user", "safety_identifier", "metadata"])
async def test_line_ends_in_a_body_split_nothing(serve: Serve, upstream: FakeUpstream, field: str) -> None:
    config = config_for(upstreams=[{"name": "up", "url": upstream.url}])
    config["tokenizers"]["unknown_model"] = "estimate"
    gateway = await serve(config)
    answer = await gateway.send(post(json.dumps({**json.loads(BODY), field: EVIL}).encode()))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nx-evil" not in answer.partition(b"\r\n\r\n")[0].lower()
    assert_one_at_most(upstream)


@pytest.mark.parametrize("where", ["api_key", "upstream_key"])
async def test_line_ends_in_a_configured_key_are_refused_and_not_shown(
    serve: Serve, upstream: FakeUpstream, where: str
) -> None:
    key = {"id": "alice", "digest": digest(KEY)} | ({where: EVIL} if where == "upstream_key" else {})
    up = {"name": "up", "url": upstream.url} | ({where: EVIL} if where == "api_key" else {})
    with pytest.raises(ConfigError) as refused:
        await serve(config_for(upstreams=[up], keys=[key]))
    assert where in str(refused.value)
    assert "X-Evil" not in str(refused.value)


async def test_line_ends_in_a_configured_header_are_never_sent(serve: Serve, upstream: FakeUpstream) -> None:
    up = {"name": "up", "url": upstream.url, "headers": {"X-Team": EVIL}}
    gateway = await serve(config_for(upstreams=[up]))
    answer = await gateway.send(post(BODY))
    assert answer.split(b" ")[1] in (b"400", b"502")
    assert upstream.requests == []
    assert [row for row in await gateway.runtime.engine.store.counters() if row.used or row.held] == []


@pytest.mark.parametrize(
    "head",
    [
        b"X-A: 1\rX-Evil: 1\r\n", b"X-A: 1\nX-Evil: 1\r\n", b"X-A: 1\0\r\n", b"X-A : 1\r\n", b"X-A: 1\r\n folded\r\n",
        b"Content-Length: 5\r\n", b"Content-Length: 2\r\nContent-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n",
    ],
)  # fmt: skip
async def test_an_upstream_splits_no_answer(serve: Serve, upstream: FakeUpstream, head: bytes) -> None:
    """Also not with a length of its own beside ours."""
    smuggled = b"{}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    upstream.enqueue(
        raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n" + head + b"\r\n" + smuggled)
    )
    gateway = await serve(config_for(upstreams=[{"name": "up", "url": upstream.url}]))
    answer = await gateway.send(post(BODY))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.split(b" ")[1] == b"502"
    assert b"evil" not in answer.lower()


async def test_bytes_after_an_answer_are_not_the_next_ones_answer(serve: Serve, upstream: FakeUpstream) -> None:
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    upstream.enqueue(
        raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}" + evil, then="hang")
    )
    gateway = await serve(config_for(upstreams=[{"name": "up", "url": upstream.url}]))
    assert (await gateway.send(post(BODY))).endswith(b"\r\n\r\n{}")
    second = await gateway.send(post(BODY))
    assert second.startswith(b"HTTP/1.1 200 ")
    assert b"evil" not in second


@pytest.mark.parametrize("name", ["x-tollgate-request-id", "x-tollgate-accuracy", "x-ratelimit-remaining-tokens"])
async def test_neither_side_can_say_what_only_the_gateway_says(serve: Serve, upstream: FakeUpstream, name: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n{name}: forged\r\n\r\n{{}}"
    upstream.enqueue(raw(head.encode()))
    gateway = await serve(config_for(upstreams=[{"name": "up", "url": upstream.url}]))
    answer = await gateway.send(post(BODY, path=CHAT))
    lines = [line for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n") if line.lower().startswith(name.encode())]
    assert len(lines) == 1
    assert b"forged" not in lines[0]
