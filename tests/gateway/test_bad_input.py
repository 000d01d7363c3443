"""What a caller gets for bad input: the right status in its own API's shape, nothing charged, the server alive."""

from __future__ import annotations

import gzip
import io
import json
from typing import Any

import pytest

from tests.conftest import KEY, RunningGateway, StartGateway, config_for, digest
from tests.fakes import FakeClock, FakeUpstream

PATH = "/v1/chat/completions"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 50}
DIALECTS = {
    PATH: lambda body: body["error"]["message"] and set(body["error"]) >= {"type", "param", "code"},
    "/v1/responses": lambda body: body["error"]["message"] and set(body["error"]) >= {"type", "param", "code"},
    "/v1/completions": lambda body: body["error"]["message"] and set(body["error"]) >= {"type", "param", "code"},
    "/v1/embeddings": lambda body: body["error"]["message"] and set(body["error"]) >= {"type", "param", "code"},
    "/v1/messages": lambda body: body["type"] == "error" and body["error"]["type"] and body["error"]["message"],
    "/v1beta/models/gemini-2.5-flash:generateContent": lambda body: body["error"]["status"] and body["error"]["code"],
}


@pytest.fixture
async def gateway(start_gateway: StartGateway, upstream: FakeUpstream, clock: FakeClock) -> RunningGateway:
    keys = [
        {"id": "alice", "digest": digest(KEY)},
        {"id": "off", "digest": digest("sk-off"), "disabled": True},
        {"id": "old", "digest": digest("sk-old"), "expires": "2020-01-01T00:00:00Z"},
    ]
    config = config_for(upstreams=[{"name": "up", "url": upstream.url}], keys=keys)
    config["server"]["max_body"] = "2MiB"
    return await start_gateway(config)


async def unharmed(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    """Nothing went upstream, nothing is charged or held, and the next request passes."""
    assert upstream.requests == []
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (0, 0)
    assert (await gateway.post(PATH, CHAT))[0].status == 200


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe\x00",
        b'{"model": "gpt-4o", "messages": "\xc3\x28"}',
        b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"model": NaN}',
    ],
    ids=["empty", "cut", "array", "null", "string", "binary", "utf8", "array-bomb", "object-bomb", "nan"],
)
async def test_a_body_that_is_no_json_object_is_a_400(
    gateway: RunningGateway, upstream: FakeUpstream, path: str, body: bytes
) -> None:
    response, answer = await gateway.post(path, body, headers={"Content-Type": "application/json"})
    assert response.status == 400
    assert DIALECTS[path](answer)
    await unharmed(gateway, upstream)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [5]}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "content"),
        ({"messages": [{"role": 5, "content": "x"}]}, "role"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"tools": {"a": 1}}, "tools"),
    ],
)
async def test_a_wrong_field_is_named(
    gateway: RunningGateway, upstream: FakeUpstream, changes: dict[str, Any], param: str
) -> None:
    response, answer = await gateway.post(PATH, {**CHAT, **changes})
    assert response.status == 400
    assert answer["error"]["type"] == "invalid_request_error"
    assert param in answer["error"]["param"]
    await unharmed(gateway, upstream)


@pytest.mark.parametrize("model", ["gpt-4oo", "no-such-model", "x" * 5000, "", "\u0000", "../../etc/passwd"])
async def test_an_unknown_model_is_a_404_with_names_near_it(
    gateway: RunningGateway, upstream: FakeUpstream, model: str
) -> None:
    response, answer = await gateway.post(PATH, {**CHAT, "model": model})
    assert response.status == (404 if model else response.status)
    assert response.status in (400, 404)
    if model == "gpt-4oo":
        assert answer["error"]["code"] == "model_not_found"
        assert "gpt-4o" in answer["error"]["message"]
    await unharmed(gateway, upstream)


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("key", [None, "sk-nobody", "sk-off", "sk-old", "", "\u00e9"])
async def test_a_key_that_admits_nobody_is_a_401(
    gateway: RunningGateway, upstream: FakeUpstream, path: str, key: str | None
) -> None:
    response, answer = await gateway.post(path, CHAT, key=key)
    assert response.status == 401
    assert DIALECTS[path](answer)
    assert "x-ratelimit-limit-tokens" not in response.headers
    await unharmed(gateway, upstream)


@pytest.mark.parametrize("path", DIALECTS)
async def test_a_body_over_the_limit_is_a_413(gateway: RunningGateway, upstream: FakeUpstream, path: str) -> None:
    response, answer = await gateway.post(path, io.BytesIO(b"y" * 3 * 1024 * 1024))
    assert response.status == 413
    assert DIALECTS[path](answer)
    await unharmed(gateway, upstream)


async def test_a_chunked_body_over_the_limit_is_a_413(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    async def endless() -> Any:
        for _ in range(48):
            yield b"x" * 65536

    headers = {"Authorization": f"Bearer {KEY}"}
    async with gateway.client.post(gateway.url + PATH, data=endless(), headers=headers) as response:
        assert response.status == 413
    await unharmed(gateway, upstream)


async def test_a_decompression_bomb_is_a_413(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    bomb = gzip.compress(b'{"x": "' + b"y" * (64 * 1024 * 1024) + b'"}')
    assert len(bomb) < 100_000
    response, _ = await gateway.post(PATH, bomb, headers={"Content-Encoding": "gzip"})
    assert response.status == 413
    await unharmed(gateway, upstream)


@pytest.mark.parametrize(
    "body", [b"not gzip at all", gzip.compress(json.dumps(CHAT).encode())[:-12]], ids=["garbage", "cut short"]
)
async def test_a_body_that_does_not_unpack_is_a_400(
    gateway: RunningGateway, upstream: FakeUpstream, body: bytes
) -> None:
    response, _ = await gateway.post(PATH, body, headers={"Content-Encoding": "gzip"})
    assert response.status == 400
    await unharmed(gateway, upstream)


async def test_a_lone_surrogate_is_counted_and_forwarded_as_it_came(
    gateway: RunningGateway, upstream: FakeUpstream
) -> None:
    body = b'{"model": "gpt-4o", "max_tokens": 5, "messages": [{"role": "user", "content": "a\\ud800b"}]}'
    response, _ = await gateway.post(PATH, body)
    assert response.status == 200
    assert upstream.requests[0].body == body
    stream = body.replace(b'"max_tokens"', b'"stream": true, "max_tokens"')
    await gateway.post(PATH, stream)
    assert b"a\\ud800b" in upstream.requests[1].body


async def test_a_megabyte_of_one_word_is_counted_in_time(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    gateway.runtime.counting.counter.warm(["o200k_base"])
    body = {**CHAT, "messages": [{"role": "user", "content": "a" * 1_000_000}]}
    response, answer = await gateway.post(PATH, body)
    assert response.status in (200, 413)
    assert "x-tollgate-input-tokens" in response.headers, answer


async def test_ten_thousand_messages_are_counted(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    messages = [{"role": "user" if number % 2 else "assistant", "content": "x"} for number in range(10_000)]
    response, _ = await gateway.post(PATH, {**CHAT, "messages": messages, "max_tokens": 1})
    assert response.status == 200
    assert int(response.headers["x-tollgate-input-tokens"]) > 30_000


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/calculate", {}, "model_name"),
        ("/calculate", {"model_name": "gpt-4"}, "text"),
        ("/calculate", {"model_name": "gpt-4", "text": 5}, "text"),
        ("/calculate", {"model_name": "gpt-4", "text": None, "messages": None}, "text"),
        ("/calculate", {"model_name": "gpt-4", "text": "x", "messages": []}, "text"),
        ("/calculate", {"model_name": ["gpt-4"], "text": "x"}, "model_name"),
        ("/calculate", {"model_name": "gpt-4", "messages": [{"role": "user", "content": 7}]}, "content"),
        ("/batch-calculate", {"model_name": "gpt-4"}, "texts"),
        ("/batch-calculate", {"model_name": "gpt-4", "texts": "x"}, "texts"),
        ("/batch-calculate", {"model_name": "gpt-4", "texts": ["x", 5]}, "texts[1]"),
        ("/batch-calculate", {"model_name": "gpt-4", "texts": [None]}, "texts[0]"),
        ("/v1/admissions", {"key": KEY}, "request"),
        ("/v1/admissions", {"key": KEY, "request": []}, "request"),
        ("/v1/admissions", {"key": KEY, "request": CHAT, "format": "morse"}, "format"),
        ("/v1/admissions", {"key": KEY, "request": CHAT, "upstream": "nowhere"}, "upstream"),
    ],
)
async def test_direct_endpoints_name_the_wrong_field(
    gateway: RunningGateway, upstream: FakeUpstream, path: str, body: dict[str, Any], param: str
) -> None:
    response, answer = await gateway.post(path, body, key=None)
    assert response.status == 400
    assert answer["error"]["type"] == "invalid_request_error"
    assert param in answer["error"]["param"]
    await unharmed(gateway, upstream)


@pytest.mark.parametrize("path", ["/calculate", "/batch-calculate", "/v1/admissions"])
@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000])
async def test_direct_endpoints_refuse_what_is_no_json_object(
    gateway: RunningGateway, upstream: FakeUpstream, path: str, body: bytes
) -> None:
    response, answer = await gateway.post(path, body, key=None)
    assert response.status == 400
    assert set(answer["error"]) >= {"message", "type", "param", "code"}
    await unharmed(gateway, upstream)


@pytest.mark.parametrize(("method", "path"), [("GET", "/calculate"), ("POST", "/models"), ("DELETE", "/budgets")])
async def test_a_direct_endpoint_with_another_method_is_a_405(
    gateway: RunningGateway, upstream: FakeUpstream, method: str, path: str
) -> None:
    response, answer = await gateway.request(method, path)
    assert response.status == 405
    assert response.headers["Allow"] in ("GET", "POST")
    assert answer["error"]["code"] == "method_not_allowed"
    await unharmed(gateway, upstream)


async def test_an_error_of_ours_is_a_500_that_tells_nothing(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    fault = _Faulty(gateway.runtime.engine)
    object.__setattr__(gateway.runtime, "engine", fault)
    response, answer = await gateway.post(PATH, CHAT)
    object.__setattr__(gateway.runtime, "engine", fault.engine)
    assert response.status == 500
    assert "secret detail" not in json.dumps(answer)
    assert response.headers["x-tollgate-request-id"] in answer["error"]["message"]
    await unharmed(gateway, upstream)


class _Faulty:
    """An engine with a bug."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    async def reserve(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("secret detail")
