"""What other proxies ask: Envoy's ext_authz and nginx's auth_request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import KEY, RunningGateway, StartGateway, config_for
from tests.fakes import chat

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
MESSAGE = {"model": "claude-sonnet-4-6", "max_tokens": 50, "messages": CHAT["messages"]}
ENVOY = "/v1/ext_authz"
NGINX = "/v1/auth_request"


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    budgets = [{"name": "main", "limits": [{"tokens": 100, "per": "day"}]}]
    return await start_gateway(config_for(budgets=budgets))


@pytest.mark.parametrize("prefix", [ENVOY, NGINX])
async def test_a_check_holds_and_its_answer_settles(gateway: RunningGateway, prefix: str) -> None:
    response, body = await gateway.post(prefix + "/v1/chat/completions", CHAT)
    assert (response.status, body) == (200, b"")
    assert response.headers["x-tollgate-input-tokens"] == "8"
    assert response.headers["x-ratelimit-remaining-tokens"] == "42"
    assert (await gateway.budget())["held"] == 58
    answered, told = await gateway.post(response.headers["x-tollgate-answer-to"], chat(), key=None)
    assert (answered.status, told["id"]) == (200, response.headers["x-tollgate-admission"])
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (12, 0)


async def test_a_check_takes_every_api(gateway: RunningGateway) -> None:
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    response, _ = await gateway.post(ENVOY + "/v1/messages", MESSAGE, key=None, headers=headers)
    assert response.status == 200
    assert response.headers["anthropic-ratelimit-tokens-limit"] == "100"
    request = {"contents": [{"parts": [{"text": "Hi"}]}], "generationConfig": {"maxOutputTokens": 5}}
    path = f"/v1beta/models/gemini-2.5-flash:generateContent?key={KEY}"
    response, _ = await gateway.post(ENVOY + path, request, key=None)
    assert (response.status, response.headers["x-tollgate-accuracy"]) == (200, "exact")


async def test_envoy_gets_refusals_as_the_caller_is_to_see_them(gateway: RunningGateway) -> None:
    assert (await gateway.post(ENVOY + "/v1/chat/completions", CHAT))[0].status == 200
    response, body = await gateway.post(ENVOY + "/v1/chat/completions", CHAT)
    assert (response.status, body["error"]["code"]) == (429, "insufficient_quota")
    assert response.headers["x-should-retry"] == "false"
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    response, body = await gateway.post(ENVOY + "/v1/messages", MESSAGE, key=None, headers=headers)
    assert (response.status, body["type"], body["error"]["type"]) == (429, "error", "rate_limit_error")
    response, body = await gateway.post(ENVOY + "/v1/chat/completions", {"model": "gpt-4o"})
    assert response.status == 400
    assert (await gateway.post(ENVOY + "/v1/chat/completions", CHAT, key="sk-nobody"))[0].status == 401


async def test_envoys_cut_body_is_refused(gateway: RunningGateway) -> None:
    headers = {"x-envoy-auth-partial-body": "true"}
    response, body = await gateway.post(ENVOY + "/v1/chat/completions", CHAT, headers=headers)
    assert (response.status, body["error"]["code"]) == (413, "request_too_large")
    assert (await gateway.budget())["held"] == 0


async def test_nginx_gets_refusals_in_headers(gateway: RunningGateway) -> None:
    assert (await gateway.post(NGINX + "/v1/chat/completions", CHAT))[0].status == 200
    response, body = await gateway.post(NGINX + "/v1/chat/completions", CHAT)
    assert (response.status, response.headers["x-tollgate-status"]) == (403, "429")
    assert json.loads(response.headers["x-tollgate-error"]) == body
    assert body["error"]["code"] == "insufficient_quota"
    response, _ = await gateway.post(NGINX + "/v1/chat/completions", CHAT, key="sk-nobody")
    assert (response.status, response.headers["x-tollgate-status"]) == (401, "401")
    odd = {**CHAT, "model": "gpt-é\n世界"}
    response, _ = await gateway.post(NGINX + "/v1/chat/completions", odd)
    assert (response.status, response.headers["x-tollgate-status"]) == (403, "404")
    assert "世界" in json.loads(response.headers["x-tollgate-error"])["error"]["message"]


async def test_nginx_without_a_body_holds_a_request_and_settles_by_the_answer(start_gateway: StartGateway) -> None:
    limits = [{"tokens": 100, "per": "day"}, {"requests": 10, "per": "minute"}]
    gateway = await start_gateway(config_for(budgets=[{"name": "main", "limits": limits}]))
    response, _ = await gateway.get(NGINX + "/v1/chat/completions")  # nginx asks with GET
    assert response.status == 200
    assert (await gateway.budget())["held"] == 1
    assert (await gateway.budget(unit="requests"))["used"] + (await gateway.budget(unit="requests"))["held"] == 1
    answer = chat(prompt_tokens=90, completion_tokens=20)
    await gateway.post(response.headers["x-tollgate-answer-to"], answer, key=None)
    assert (await gateway.budget())["used"] == 110
    response, _ = await gateway.get(NGINX + "/v1/chat/completions")
    assert (response.status, response.headers["x-tollgate-status"]) == (403, "429")


async def test_a_check_of_another_path_costs_a_request(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(config_for(budgets=[{"name": "main", "limits": [{"requests": 1, "per": "minute"}]}]))
    response, _ = await gateway.get(ENVOY + "/v1/models")
    assert response.status == 200
    answered, told = await gateway.post(response.headers["x-tollgate-answer-to"], {"data": []}, key=None)
    assert (answered.status, told["usage"]["input_tokens"]) == (200, 0)
    assert (await gateway.get(ENVOY + "/v1/models"))[0].status == 429
    closed = await start_gateway(config_for(server={"unmatched": "refuse"}))
    assert (await closed.get(ENVOY + "/v1/models"))[0].status == 404


async def test_a_clamped_check_tells_the_body_to_send(start_gateway: StartGateway) -> None:
    budgets: list[dict[str, Any]] = [
        {"name": "main", "limits": [{"tokens": 100, "per": "day"}], "output_hold": "clamp"}
    ]
    uncapped = {name: value for name, value in CHAT.items() if name != "max_tokens"}
    gateway = await start_gateway(config_for(budgets=budgets))
    response, body = await gateway.post(ENVOY + "/v1/chat/completions", uncapped)
    assert response.status == 200
    assert response.headers["x-tollgate-output-cap"] == "92"
    assert body == {**uncapped, "max_tokens": 92}


@pytest.mark.parametrize("prefix", [ENVOY, NGINX])
async def test_a_check_sees_through_untidy_paths(gateway: RunningGateway, prefix: str) -> None:
    for path in ("//v1/chat/completions", "/v1/./chat//completions/", "/v1/chat/x/../completions"):
        response, _ = await gateway.post(prefix + path, {"model": "gpt-4o"})
        assert response.headers.get("x-tollgate-status", str(response.status)) == "400", path
