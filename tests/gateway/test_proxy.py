"""The request's path through a running gateway, against an upstream on a real socket."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import Any

import aiohttp
import pytest

from tests.conftest import KEY, RunningGateway, StartGateway, config_for, digest
from tests.fakes import FakeUpstream, chat, chat_events, plain, stream

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 50}
PATH = "/v1/chat/completions"


@pytest.fixture
async def gateway(start_gateway: StartGateway, upstream: FakeUpstream) -> RunningGateway:
    return await start_gateway(config_for(upstreams=[{"name": "up", "url": upstream.url}]))


async def test_an_answer_comes_back_untouched_and_is_settled(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    body = json.dumps(chat(prompt_tokens=12, completion_tokens=5), indent=3).encode()
    upstream.enqueue(plain(body, headers=[("X-Own", "1"), ("x-ratelimit-remaining-tokens", "77")]))
    async with gateway.client.post(
        gateway.url + PATH, json=CHAT, headers={"Authorization": f"Bearer {KEY}"}
    ) as response:
        assert response.status == 200
        assert await response.read() == body
        assert response.headers["X-Own"] == "1"
        assert response.headers["x-upstream-x-ratelimit-remaining-tokens"] == "77"
        assert response.headers["x-ratelimit-limit-tokens"] == "100000"
        assert response.headers["x-ratelimit-remaining-tokens"] == "99983"
        assert response.headers["x-tollgate-request-id"].startswith("req_")
        assert int(response.headers["x-tollgate-input-tokens"]) > 0
        assert response.headers["x-tollgate-accuracy"] == "exact"
    budget = await gateway.budget()
    assert (budget["used"], budget["held"], budget["remaining"]) == (17, 0, 99983)


async def test_the_request_goes_out_untouched(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    body = b'{ "model":"gpt-4o",\n "messages":[{"role":"user","content":"\\u00e9"}], "max_tokens":5, "x":1.50 }'
    await gateway.post(PATH + "?a=%20b&c", body, headers={"Content-Type": "application/json", "X-App": "me"})
    sent = upstream.requests[0]
    assert sent.body == body
    assert sent.target == PATH + "?a=%20b&c"
    assert sent.header("X-App") == "me"
    assert sent.header("Host") == upstream.url.removeprefix("http://")


async def test_the_hold_is_taken_before_forwarding(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    held: list[dict[str, Any]] = []

    async def look(_: Any, __: Any) -> None:
        held.append(await gateway.budget())
        await plain(chat())(_, __)

    upstream.enqueue(look)
    await gateway.post(PATH, CHAT)
    assert held[0]["held"] >= 50
    assert held[0]["used"] == 0


async def test_a_stream_comes_back_event_by_event(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    events = chat_events("Hel", "lo", usage={"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12})
    gate = asyncio.Event()

    async def wait(number: int) -> None:
        if number == 1:
            await gate.wait()

    upstream.enqueue(stream(*events, between=wait))
    request = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    async with gateway.client.post(
        gateway.url + PATH, json=request, headers={"Authorization": f"Bearer {KEY}"}
    ) as response:
        assert await response.content.readany() == events[0]
        gate.set()
        assert events[0] + await response.read() == b"".join(events)
    assert (await gateway.budget())["used"] == 12
    assert upstream.requests[0].json == request


async def test_usage_is_asked_for_and_hidden_from_a_caller_who_did_not_ask(
    gateway: RunningGateway, upstream: FakeUpstream
) -> None:
    events = chat_events("Hel", "lo", usage={"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12})
    upstream.enqueue(stream(*events))
    response, seen = await gateway.post(PATH, {**CHAT, "stream": True})
    assert response.status == 200
    assert seen == b"".join(event for event in events if b'"choices": []' not in event)
    assert upstream.requests[0].json["stream_options"] == {"include_usage": True}
    assert upstream.requests[0].header("Accept-Encoding") == "identity"
    assert (await gateway.budget())["used"] == 12


async def test_output_is_counted_when_a_stream_reports_no_usage(
    gateway: RunningGateway, upstream: FakeUpstream
) -> None:
    upstream.enqueue(stream(*chat_events("one two", " three")))
    response, _ = await gateway.post(PATH, {**CHAT, "stream": True})
    counted = int(response.headers["x-tollgate-input-tokens"])
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (counted + 3, 0)


async def test_output_is_counted_when_an_answer_reports_no_usage(
    gateway: RunningGateway, upstream: FakeUpstream
) -> None:
    answer = chat("one two three")
    del answer["usage"]
    upstream.enqueue(plain(answer))
    response, _ = await gateway.post(PATH, CHAT)
    assert (await gateway.budget())["used"] == int(response.headers["x-tollgate-input-tokens"]) + 3


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_an_upstreams_error_is_passed_on_and_costs_nothing(
    gateway: RunningGateway, upstream: FakeUpstream, status: int
) -> None:
    upstream.enqueue(plain(b'{"error": {"message": "no"}}', status=status, headers=[("Retry-After", "7")]))
    response, body = await gateway.post(PATH, CHAT)
    assert response.status == status
    assert body == {"error": {"message": "no"}}
    assert response.headers["Retry-After"] == "7"
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (0, 0)


async def test_a_redirect_is_passed_on(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    upstream.enqueue(plain(b"", status=307, headers=[("Location", "https://elsewhere.example/v1")]))
    response, _ = await gateway.post(PATH, CHAT, allow_redirects=False)
    assert response.status == 307
    assert response.headers["Location"] == "https://elsewhere.example/v1"
    assert len(upstream.requests) == 1
    assert (await gateway.budget())["used"] == 0


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_compressed_answer_is_read_and_relayed_as_it_is(
    gateway: RunningGateway, upstream: FakeUpstream, encoding: str, pack: Any
) -> None:
    packed = pack(json.dumps(chat(prompt_tokens=100, completion_tokens=11)).encode())
    upstream.enqueue(plain(packed, headers=[("Content-Encoding", encoding)]))
    async with aiohttp.ClientSession(auto_decompress=False) as client:
        headers = {"Authorization": f"Bearer {KEY}", "Accept-Encoding": "gzip, deflate"}
        async with client.post(gateway.url + PATH, json=CHAT, headers=headers) as response:
            assert await response.read() == packed
            assert response.headers["Content-Encoding"] == encoding
    assert (await gateway.budget())["used"] == 111


async def test_a_compressed_request_is_counted_and_forwarded_unpacked(
    gateway: RunningGateway, upstream: FakeUpstream
) -> None:
    body = json.dumps(CHAT).encode()
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    response, _ = await gateway.post(PATH, gzip.compress(body), headers=headers)
    assert response.status == 200
    assert upstream.requests[0].body == body
    assert upstream.requests[0].header("Content-Encoding") is None


async def test_a_chunked_request_is_forwarded(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    async def pieces() -> Any:
        data = json.dumps(CHAT).encode()
        yield data[:20]
        yield data[20:]

    headers = {"Authorization": f"Bearer {KEY}"}
    async with gateway.client.post(gateway.url + PATH, data=pieces(), headers=headers) as response:
        assert response.status == 200
    assert upstream.requests[0].json == CHAT


async def test_expect_100_continue_is_answered(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with gateway.client.post(gateway.url + PATH, json=CHAT, headers=headers, expect100=True) as response:
        assert response.status == 200
    assert upstream.requests[0].header("Expect") is None


async def test_another_expectation_is_a_417(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    response, _ = await gateway.post(PATH, CHAT, headers={"Expect": "the-unexpected"})
    assert response.status == 417
    assert upstream.requests == []


async def test_head_and_options_are_passed_through(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    upstream.enqueue(plain(b"12345", headers=[("X-Own", "1")]), plain(b"", status=204, headers=[("Allow", "GET")]))
    response, body = await gateway.request("HEAD", "/v1/models")
    assert (response.status, body, response.headers["Content-Length"]) == (200, b"", "5")
    response, _ = await gateway.request("OPTIONS", "/v1/models")
    assert (response.status, response.headers["Allow"]) == (204, "GET")
    assert [each.method for each in upstream.requests] == ["HEAD", "OPTIONS"]


async def test_unmatched_paths_pass_at_the_cost_of_a_request_and_of_reported_usage(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    limits = [{"tokens": 1000, "per": "day"}, {"requests": 5, "per": "day"}]
    config = config_for(upstreams=[{"name": "up", "url": upstream.url}], budgets=[{"name": "main", "limits": limits}])
    gateway = await start_gateway(config)
    usage = {"prompt_tokens": 30, "completion_tokens": 4, "total_tokens": 34}
    upstream.enqueue(plain(b"[]"), plain({"usage": usage}))
    assert (await gateway.get("/v1/files"))[0].status == 200
    assert (await gateway.post("/v1/audio/things", b"RIFF", headers={"Content-Type": "audio/wav"}))[0].status == 200
    assert (await gateway.budget(unit="requests"))["used"] == 2
    assert (await gateway.budget())["used"] == 34
    assert upstream.requests[1].body == b"RIFF"


async def test_unmatched_paths_still_need_a_key(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    response, body = await gateway.get("/v1/files", key=None)
    assert response.status == 401
    assert body["error"]["code"] == "invalid_api_key"
    assert upstream.requests == []


async def test_unmatched_paths_are_refused_when_configured(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    config = config_for(upstreams=[{"name": "up", "url": upstream.url}])
    config["server"]["unmatched"] = "refuse"
    gateway = await start_gateway(config)
    response, body = await gateway.get("/v1/files")
    assert (response.status, body["error"]["code"]) == (404, "not_found")
    assert upstream.requests == []


@pytest.mark.parametrize("path", ["//v1//chat/completions", "/v1/chat/completions/", "/v1/./chat/completions"])
async def test_an_untidy_path_passes_no_budget_by(gateway: RunningGateway, upstream: FakeUpstream, path: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    url = aiohttp.client.URL(gateway.url + path, encoded=True)
    async with gateway.client.post(url, json=CHAT, headers=headers) as response:
        assert response.status == 200
        assert "x-tollgate-input-tokens" in response.headers
    assert (await gateway.budget())["used"] == 12


async def test_a_websocket_is_refused_clearly(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    response, body = await gateway.get("/v1/realtime", headers=headers)
    assert (response.status, body["error"]["code"]) == (501, "websocket_not_supported")


async def test_a_callers_key_never_reaches_an_upstream_that_has_its_own(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    gateway = await start_gateway(config_for(upstreams=[{"name": "up", "url": upstream.url, "api_key": "sk-own"}]))
    await gateway.post(PATH, CHAT, headers={"x-api-key": KEY, "api-key": KEY})
    await gateway.get(f"/v1/files?key={KEY}&page=2", headers={"x-goog-api-key": KEY})
    for sent in upstream.requests:
        assert KEY not in repr(sent)
        assert "sk-own" in repr(sent)
    assert upstream.requests[1].target == "/v1/files?page=2"


async def test_clamped_output_is_written_into_the_request(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    budgets = [{"name": "main", "limits": [{"tokens": 500, "per": "day"}], "output_hold": "clamp"}]
    gateway = await start_gateway(config_for(upstreams=[{"name": "up", "url": upstream.url}], budgets=budgets))
    request = {"model": "gpt-4o", "messages": CHAT["messages"], "stream": True}
    upstream.enqueue(stream(*chat_events("x", usage={"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10})))
    response, _ = await gateway.post(PATH, request)
    sent = upstream.requests[0].json
    counted = int(response.headers["x-tollgate-input-tokens"])
    assert (sent.get("max_tokens") or sent.get("max_completion_tokens")) == 500 - counted
    assert sent["stream_options"] == {"include_usage": True}
    assert (await gateway.budget())["used"] == 10


async def test_refusals_speak_the_callers_dialect(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    budgets = [{"name": "tiny", "limits": [{"tokens": 20, "per": "minute"}], "output_hold": 1}]
    gateway = await start_gateway(config_for(upstreams=[{"name": "up", "url": upstream.url}], budgets=budgets))
    upstream.default = plain(chat(prompt_tokens=15, completion_tokens=1))
    small = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    assert (await gateway.post(PATH, small))[0].status == 200
    response, body = await gateway.post(PATH, small)
    assert response.status == 429
    assert body["error"]["code"] == "rate_limit_exceeded"
    assert "tiny" in body["error"]["message"]
    assert 0 < int(response.headers["Retry-After"]) <= 61
    assert response.headers["x-ratelimit-remaining-tokens"] == "4"
    response, body = await gateway.post("/v1/messages", {**small, "model": "claude-sonnet-4-5"})
    assert (response.status, body["type"], body["error"]["type"]) in {
        (429, "error", "rate_limit_error"),
        (413, "error", "request_too_large"),
    }
    response, body = await gateway.post(PATH, {**small, "max_tokens": 500})
    assert (response.status, body["error"]["code"]) == (413, "request_exceeds_budget")
    assert len(upstream.requests) == 1
    assert (await gateway.budget("tiny"))["used"] == 16


async def test_a_spent_quota_tells_sdks_not_to_retry(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    budgets = [{"name": "month", "limits": [{"tokens": 60, "per": "month"}], "output_hold": 1}]
    gateway = await start_gateway(config_for(upstreams=[{"name": "up", "url": upstream.url}], budgets=budgets))
    upstream.default = plain(chat(prompt_tokens=15, completion_tokens=45))
    request = {**CHAT, "max_tokens": 20}
    await gateway.post(PATH, request)
    response, body = await gateway.post(PATH, request)
    assert (response.status, body["error"]["code"]) == (429, "insufficient_quota")
    assert response.headers["x-should-retry"] == "false"
    assert "Retry-After" not in response.headers


async def test_a_model_that_is_not_allowed_is_forbidden(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    budgets = [{"name": "main", "limits": [{"tokens": 1000, "per": "day"}], "models": {"deny": ["gpt-4*"]}}]
    gateway = await start_gateway(config_for(upstreams=[{"name": "up", "url": upstream.url}], budgets=budgets))
    response, body = await gateway.post(PATH, CHAT)
    assert (response.status, body["error"]["code"]) == (403, "model_not_allowed")
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("path", "request_body", "field"),
    [
        ("/v1/responses/input_tokens", {"model": "gpt-4o", "input": "Hello there"}, "input_tokens"),
        ("/v1/messages/count_tokens", {"model": "claude-sonnet-4-5", "messages": CHAT["messages"]}, "input_tokens"),
        (
            "/v1beta/models/gemini-2.5-flash:countTokens",
            {"contents": [{"role": "user", "parts": [{"text": "Hello there"}]}]},
            "totalTokens",
        ),
    ],
)
async def test_count_endpoints_answer_with_the_number_that_a_budget_uses(
    gateway: RunningGateway, upstream: FakeUpstream, path: str, request_body: dict[str, Any], field: str
) -> None:
    response, body = await gateway.post(path, request_body)
    assert response.status == 200
    real = path.replace("/input_tokens", "").replace("/count_tokens", "").replace(":countTokens", ":generateContent")
    sent = {**request_body, "max_tokens": 5} if real == "/v1/messages" else request_body
    upstream.enqueue(plain(b"{}"))
    forwarded, _ = await gateway.post(real, sent)
    assert body[field] == int(forwarded.headers["x-tollgate-input-tokens"]) > 0
    assert len(upstream.requests) == 1
    assert (await gateway.post(path, request_body, key=None))[0].status == 401


async def test_without_keys_everybody_may_call(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    config = config_for(upstreams=[{"name": "up", "url": upstream.url}], keys=[])
    gateway = await start_gateway(config)
    assert (await gateway.post(PATH, CHAT, key=None))[0].status == 200


async def test_an_azure_deployment_counts_as_its_model(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    azure = {
        "name": "azure",
        "url": upstream.url,
        "api_key": "az",
        "deployments": {"prod": "gpt-4o"},
        "platform": "azure",
    }
    gateway = await start_gateway(config_for(upstreams=[azure]))
    body = {"messages": CHAT["messages"]}
    path = "/openai/deployments/prod/chat/completions?api-version=2024-10-21"
    response, _ = await gateway.post(path, body, key=None, headers={"api-key": KEY})
    assert response.status == 200
    assert upstream.requests[0].target == path
    assert upstream.requests[0].header("api-key") == "az"


async def test_hidden_prompts_are_learned_from_bills(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    gateway = await start_gateway(config_for(upstreams=[{"name": "up", "url": upstream.url}]))
    first, _ = await gateway.post(PATH, CHAT)
    counted = int(first.headers["x-tollgate-input-tokens"])
    upstream.default = plain(chat(prompt_tokens=counted + 199))
    for _ in range(20):
        last, _ = await gateway.post(PATH, CHAT)
    assert int(last.headers["x-tollgate-input-tokens"]) == counted + 199


async def test_two_keys_have_budgets_of_their_own(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    keys = [{"id": "alice", "digest": digest(KEY)}, {"id": "bob", "digest": digest("sk-bob")}]
    gateway = await start_gateway(config_for(upstreams=[{"name": "up", "url": upstream.url}], keys=keys))
    await gateway.post(PATH, CHAT)
    assert (await gateway.budget())["used"] == 12
    assert (await gateway.budget(key="sk-bob"))["used"] == 0


async def test_a_configured_overhead_stands_in_place_of_what_is_known(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    body = {"model": "grok-4", "messages": CHAT["messages"], "max_tokens": 5}
    counts = {}
    for name, options in {
        "plain": {},
        "known": {"platform": "xai"},
        "configured": {"platform": "xai", "overheads": {"grok-*": 1000}},
    }.items():
        gateway = await start_gateway(config_for(upstreams=[{"name": "up", "url": upstream.url, **options}]))
        response, _ = await gateway.post(PATH, body)
        counts[name] = int(response.headers["x-tollgate-input-tokens"])
    assert counts["known"] > counts["plain"]
    assert counts["configured"] == counts["plain"] + 1000
