from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import RunningGateway, StartGateway


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    return await start_gateway()


async def test_calculate_counts_a_text_without_a_key(gateway: RunningGateway) -> None:
    body = {"text": "Hello, 世界！", "model_name": "gpt-3.5-turbo"}
    response, answer = await gateway.post("/calculate", body, key=None)
    assert response.status == 200
    assert answer.pop("notes") == []
    assert answer == {
        "model_name": "gpt-3.5-turbo",
        "token_count": 7,
        "encoding": "cl100k_base",
        "accuracy": "exact",
        "upper_bound": 7,
        "characters": 10,
    }


async def test_calculate_takes_model_for_model_name(gateway: RunningGateway) -> None:
    _, answer = await gateway.post("/calculate", {"text": "Hello", "model": "gpt-4o"}, key=None)
    assert (answer["model_name"], answer["encoding"], answer["token_count"]) == ("gpt-4o", "o200k_base", 1)


async def test_calculate_counts_a_conversation_as_the_proxy_would(gateway: RunningGateway) -> None:
    chat: dict[str, Any] = {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "Hello there"}]},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
    }
    _, answer = await gateway.post("/calculate", {"model_name": "gpt-4o", **chat}, key=None)
    response, _ = await gateway.post("/v1/chat/completions", {"model": "gpt-4o", **chat, "max_tokens": 3})
    assert answer["token_count"] == int(response.headers["x-tollgate-input-tokens"])
    assert answer["upper_bound"] >= answer["token_count"]
    assert answer["characters"] == len("Be kind.Hello there")


async def test_calculate_says_how_sure_it_is(gateway: RunningGateway) -> None:
    _, answer = await gateway.post("/calculate", {"text": "Hello there", "model_name": "claude-sonnet-4-6"}, key=None)
    assert answer["accuracy"] == "estimate"
    assert answer["upper_bound"] > answer["token_count"]


async def test_batch_calculate_counts_each_text(gateway: RunningGateway) -> None:
    body = {"texts": ["Hello", "你好", "def hello(): pass"], "model_name": "deepseek-coder"}
    response, answer = await gateway.post("/batch-calculate", body, key=None)
    assert response.status == 200
    assert answer["encoding"] == "deepseek-coder"
    assert answer["count"] == len(answer["token_counts"]) == 3
    assert answer["total_tokens"] == sum(answer["token_counts"]) > 3


async def test_batch_calculate_of_nothing_is_nothing(gateway: RunningGateway) -> None:
    _, answer = await gateway.post("/batch-calculate", {"texts": [], "model_name": "gpt-4"}, key=None)
    assert (answer["token_counts"], answer["total_tokens"], answer["count"]) == ([], 0, 0)


@pytest.mark.parametrize("path", ["/calculate", "/batch-calculate"])
async def test_an_unknown_model_is_a_404_with_names_near_it(gateway: RunningGateway, path: str) -> None:
    body = {"model_name": "gpt-4oo", **({"text": "x"} if path == "/calculate" else {"texts": ["x"]})}
    response, answer = await gateway.post(path, body, key=None)
    assert response.status == 404
    assert answer["error"]["code"] == "model_not_found"
    assert answer["error"]["param"] == "model"
    assert "gpt-4o" in answer["error"]["nearest"]


async def test_special_text_and_surrogates_are_counted(gateway: RunningGateway) -> None:
    body = b'{"model_name": "gpt-4", "text": "<|endoftext|>\\ud800"}'
    response, answer = await gateway.post("/calculate", body, key=None)
    assert response.status == 200
    assert answer["token_count"] > 5


async def test_models_lists_every_family_with_what_bills_have_shown(gateway: RunningGateway) -> None:
    chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
    for _ in range(3):
        await gateway.post("/v1/chat/completions", chat)
    response, answer = await gateway.get("/models", key=None)
    assert response.status == 200
    rows = {row["id"]: row for row in answer["data"]}
    assert rows["gpt-4o"]["encoding"] == "o200k_base"
    assert rows["gpt-4o"]["available"] is True
    assert rows["gpt-4o"]["engine"] in ("fastokens", "splintr", "tokenizers")
    assert rows["gemma2"]["engine"] is None or rows["gemma2"]["available"]
    assert rows["gpt-4o"]["observed"] == {"n": 3, "exact_share": 1.0, "mean_drift": 0.0, "learned": []}
    assert set(rows["gpt-4o"]) >= {"id", "family", "encoding", "accuracy", "available", "description", "observed"}
