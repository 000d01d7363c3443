"""Secrets that are looked for in everything that comes out: answers, headers, logs, metrics, the dashboard,
the store."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import config_for, digest
from tests.fakes import FakeUpstream, end, plain, raw
from tests.security.conftest import CHAT, Serve, Served, as_a_process_logs, post

CALLER, OFF, ADMIN = "canary-caller-key-0001", "canary-disabled-key-0002", "canary-admin-key-0003"
UPSTREAM, HOOK = "canary-upstream-key-0004", "canary-webhook-secret-0005"
REDIS = "canary-redis-password-0006"
PROMPT, ANSWER = "canary-prompt-0007", "canary-answer-0008"
HEADER = "canary-configured-header-0009"
SECRETS = (CALLER, OFF, ADMIN, UPSTREAM, HOOK, REDIS, HEADER, PROMPT)
DIGESTS = tuple(digest(key).removeprefix("sha256:") for key in (CALLER, OFF, ADMIN))

CHAT_BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 5}
GETS = (
    "/health", "/metrics", "/models", "/openapi.json", "/docs", "/budgets", "/dashboard", "/dashboard/session",
    "/dashboard/data", "/dashboard/nothing", "/admin/keys", "/admin/keys/alice", "/admin/keys/nobody",
    "/admin/budgets",
    "/admin/holds", "/admin/usage", "/admin/drift", "/admin/nothing", "/docs/nothing", "/v1/files",
    "/v1/ext_authz/v1/models",
    "/v1/auth_request/v1/models",
)  # fmt: skip
POSTS = (
    CHAT, "/v1/messages", "/v1/responses", "/v1/embeddings", "/v1beta/models/gemini-2.5-flash:countTokens",
    "/calculate",
    "/batch-calculate", "/v1/admissions", "/v1/admissions/nothing/settle", "/v1/ext_authz" + CHAT,
    "/v1/auth_request" + CHAT,
    "/admin/reload", "/admin/keys", "/admin/keys/alice/rotate", "/admin/budgets/main/top-up", "/v1/anything",
    "/dashboard/login",
)  # fmt: skip


@pytest.fixture
def log() -> Any:
    """The log as a process writes it, every level of it."""
    with as_a_process_logs("json") as written:
        yield written


@pytest.fixture
async def gateway(serve: Serve, upstream: FakeUpstream, tmp_path: Path, log: io.StringIO) -> Served:
    config = config_for(
        upstreams=[{"name": "up", "url": upstream.url, "api_key": UPSTREAM, "headers": {"X-Team": HEADER}}],
        keys=[
            {"id": "alice", "digest": digest(CALLER), "upstream_key": UPSTREAM},
            {"id": "off", "digest": digest(OFF), "disabled": True},
        ],
        admin={"digest": digest(ADMIN)},
        webhook={"url": f"{upstream.url}/hook?token={HOOK}", "secret": HOOK},
        store={"url": f"sqlite:///{tmp_path}/budgets.db"},
    )
    return await serve(config)


async def everything(gateway: Served) -> str:
    """What every endpoint says to everybody, well-behaved or not."""
    said = io.StringIO()
    heads: list[dict[str, str]] = [{}]
    for key in (CALLER, OFF, ADMIN, "canary-nobody"):
        heads += [
            {"Authorization": f"Bearer {key}"},
            {"x-api-key": key, "anthropic-version": "1"},
            {"x-goog-api-key": key},
        ]
    heads.append({"Authorization": f"Basic {CALLER}", "Cookie": f"tollgate_session={ADMIN}"})
    bodies: list[Any] = [
        CHAT_BODY,
        {**CHAT_BODY, "model": "canary-model"},
        {"key": CALLER, "request": CHAT_BODY},
        {"key": OFF},
        [],
    ]
    async with aiohttp.ClientSession(f"http://127.0.0.1:{gateway.port}") as client:
        for head in heads:
            for path in GETS:
                async with client.get(path, headers=head) as response:
                    said.write(f"{response.status} {dict(response.headers)} {await response.text()}\n")
            for number, path in enumerate(POSTS):
                body = bodies[number % len(bodies)] if head else CHAT_BODY
                async with client.post(path, json=body, headers=head) as response:
                    said.write(f"{response.status} {dict(response.headers)} {await response.text()}\n")
        async with client.get(f"/v1/files?key={CALLER}") as response:
            said.write(f"{response.status} {dict(response.headers)} {await response.text()}\n")
        form = aiohttp.FormData({"key": ADMIN})
        async with client.post("/dashboard/login", data=form) as response:
            said.write(f"{dict(response.headers)} {await response.text()}\n")
        async with client.get("/dashboard/data") as response:
            said.write(await response.text())
        async with client.get("/dashboard") as response:
            said.write(await response.text())
    return said.getvalue()


def assert_silent(said: str, *, where: str) -> None:
    for secret in (*SECRETS, *DIGESTS):
        at = said.find(secret)
        assert at < 0, f"{where} tells {secret}: ...{said[max(0, at - 200) : at + 60]}"


async def test_no_endpoint_tells_a_secret_whoever_asks(
    gateway: Served, upstream: FakeUpstream, log: io.StringIO, tmp_path: Path
) -> None:
    said = await everything(gateway)
    assert said.count("\n") > 400
    assert '"open":true' in said
    assert_silent(said, where="an endpoint")
    assert_silent(log.getvalue(), where="the log")
    assert len(log.getvalue().splitlines()) > 100
    for file in await asyncio.to_thread(lambda: list(tmp_path.glob("budgets.db*"))):
        assert_silent((await asyncio.to_thread(file.read_bytes)).decode("latin-1"), where=file.name)
    # And the other way: no caller's or admin's key reaches an upstream that has its own.
    for got in upstream.requests:
        for key in (CALLER, OFF, ADMIN):
            assert key not in f"{got.target} {got.headers}"


@pytest.mark.parametrize(
    "failure",
    [
        end("close"), end("reset"), raw(b"HTTP/1.1 200 OK\r\nBroken\r\n\r\n"), raw(b"\0\1\2"),
        plain({"error": {"message": "no"}}, status=401), plain({"error": "no"}, status=500),
        raw(b"HTTP/1.1 200 OK\r\nContent-Len"),
    ],
)  # fmt: skip
async def test_no_failure_tells_a_secret(
    gateway: Served, upstream: FakeUpstream, log: io.StringIO, failure: Any
) -> None:
    upstream.enqueue(failure, failure)
    said = await gateway.send(post(json.dumps(CHAT_BODY).encode(), key=CALLER))
    assert said.startswith(b"HTTP/1.1 ")
    assert_silent(said.decode(), where="an error")
    assert_silent(log.getvalue(), where="the log")


async def test_a_fault_of_ours_tells_a_secret_to_nobody(
    gateway: Served, log: io.StringIO, upstream: FakeUpstream
) -> None:
    """Its traceback is logged: without the values of variables, and scrubbed of what looks like a key."""

    class Faulty:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(f"cannot call with Authorization: Bearer {CALLER} and redis://:{REDIS}@host")

    object.__setattr__(gateway.runtime, "engine", Faulty())
    said = await gateway.send(post(json.dumps(CHAT_BODY).encode(), key=CALLER))
    assert said.startswith(b"HTTP/1.1 500 ")
    assert_silent(said.decode(), where="an error")
    assert "request_failed" in log.getvalue()
    assert_silent(log.getvalue(), where="the log")


async def test_a_lost_store_tells_no_password(serve: Serve, upstream: FakeUpstream, log: io.StringIO) -> None:
    config = config_for(
        upstreams=[{"name": "up", "url": upstream.url}],
        keys=[{"id": "alice", "digest": digest(CALLER)}],
        store={"url": f"redis://user:{REDIS}@127.0.0.1:1/0"},
    )
    gateway = await serve(config)
    for sent in (
        post(json.dumps(CHAT_BODY).encode(), key=CALLER),
        b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ):
        said = await gateway.send(sent)
        assert said.startswith(b"HTTP/1.1 503 ")
        assert_silent(said.decode(), where="an answer")
    assert_silent(log.getvalue(), where="the log")


def test_what_is_wrong_with_a_configuration_is_told_without_its_secrets(tmp_path: Path) -> None:
    from gateway.config import ConfigError, load_settings

    path = tmp_path / "bad.yaml"
    text = (
        f"store: {{url: 'redis://user:{REDIS}@host:x/0'}}\n"
        f"upstreams: [{{name: up, url: 'http://x', api_key: [{UPSTREAM}]}}]\n"
        f"keys: [{{id: a, digest: {CALLER}}}]\nadmin: {{digest: {ADMIN}}}\n"
        f"webhook: {{url: 'ftp://x/{HOOK}', secret: [{HOOK}]}}\n"
    )
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_settings(path, env={})
    told = str(refused.value)
    assert told.count("\n") >= 3
    assert_silent(told, where="the problem list")


def test_settings_show_no_secret_when_printed(tmp_path: Path) -> None:
    from gateway.config import load_settings

    path = tmp_path / "config.yaml"
    config = config_for(
        upstreams=[{"name": "up", "url": "http://up", "api_key": "${UP}"}],
        keys=[{"id": "a", "digest": digest(CALLER), "upstream_key": "${UP}"}],
        webhook={"url": "https://hook.example", "secret": "${HOOK}"},
        store={"url": "redis://user:${REDIS}@host/0"},
    )
    path.write_text(json.dumps(config))
    shown = repr(load_settings(path, env={"UP": UPSTREAM, "HOOK": HOOK, "REDIS": REDIS}))
    for secret in (UPSTREAM, HOOK, REDIS):
        assert secret not in shown


with contextlib.suppress(ImportError):
    import redis  # noqa: F401 - imported late by the store: its first import reads files, which may not block a loop
