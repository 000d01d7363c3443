from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import KEY, RunningGateway, StartGateway, config_for

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    budgets = [{"name": "main", "limits": [{"tokens": 100, "per": "day"}]}]
    return await start_gateway(config_for(budgets=budgets))


async def admit(gateway: RunningGateway, **changes: Any) -> tuple[int, Any]:
    response, answer = await gateway.post("/v1/admissions", {"key": KEY, "request": CHAT, **changes}, key=None)
    return response.status, answer


async def test_an_admission_holds_and_its_settlement_charges(gateway: RunningGateway) -> None:
    status, admitted = await admit(gateway)
    assert (status, admitted["allowed"], admitted["accuracy"]) == (201, True, "exact")
    held = admitted["input_tokens"] + 50
    assert admitted["held"] == {"input_tokens": admitted["input_tokens"], "output_tokens": 50}
    assert admitted["budgets"][0]["held"] == held
    assert (await gateway.budget())["held"] == held
    usage = {"usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}}
    response, settled = await gateway.post(f"/v1/admissions/{admitted['id']}/settle", usage, key=None)
    assert response.status == 200
    assert (settled["budgets"][0]["used"], settled["budgets"][0]["held"]) == (13, 0)


async def test_an_admission_ends_once(gateway: RunningGateway) -> None:
    _, admitted = await admit(gateway)
    path = f"/v1/admissions/{admitted['id']}"
    assert (await gateway.post(f"{path}/release", key=None))[0].status == 200
    response, answer = await gateway.post(f"{path}/settle", {"usage": {"input_tokens": 5}}, key=None)
    assert (response.status, answer["error"]["code"]) == (404, "admission_not_open")
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (0, 0)


@pytest.mark.parametrize(
    ("usage", "used"),
    [
        ({"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 1}, 11),
        ({"promptTokenCount": 5, "candidatesTokenCount": 2, "thoughtsTokenCount": 4, "totalTokenCount": 11}, 11),
        ({"prompt_tokens": 5}, 5),
    ],
)
async def test_usage_is_read_in_every_providers_words(
    gateway: RunningGateway, usage: dict[str, int], used: int
) -> None:
    _, admitted = await admit(gateway)
    await gateway.post(f"/v1/admissions/{admitted['id']}/settle", {"usage": usage}, key=None)
    assert (await gateway.budget())["used"] == used


@pytest.mark.parametrize("usage", [{}, {"input_tokens": -1}, {"input_tokens": "5"}, {"input_tokens": True}, 5])
async def test_a_settlement_without_usage_is_a_400_and_ends_nothing(gateway: RunningGateway, usage: Any) -> None:
    _, admitted = await admit(gateway)
    response, _ = await gateway.post(f"/v1/admissions/{admitted['id']}/settle", {"usage": usage}, key=None)
    assert response.status == 400
    assert (await gateway.budget())["held"] > 0


async def test_a_refused_admission_is_the_refusal(gateway: RunningGateway) -> None:
    await admit(gateway)
    status, answer = await admit(gateway)
    assert (status, answer["error"]["code"]) == (429, "insufficient_quota")
    status, answer = await admit(gateway, request={**CHAT, "max_tokens": 500})
    assert (status, answer["error"]["code"]) == (413, "request_exceeds_budget")


async def test_an_admission_takes_other_formats(gateway: RunningGateway) -> None:
    message = {"model": "claude-sonnet-4-6", "max_tokens": 5, "messages": CHAT["messages"]}
    status, answer = await admit(gateway, request=message, format="anthropic_messages", upstream="echo")
    assert (status, answer["accuracy"]) == (201, "estimate")
    status, answer = await admit(gateway, request={"model": "gpt-4o", "input": "Hi", "max_output_tokens": 5})
    assert status == 201


async def test_an_admission_needs_a_key(gateway: RunningGateway) -> None:
    assert (await admit(gateway, key="sk-nobody"))[0] == 401
    assert (await admit(gateway, key=None))[0] == 401
    response, _ = await gateway.post("/v1/admissions", {"request": CHAT}, key=KEY)
    assert response.status == 201


async def test_an_admission_nobody_ends_is_charged_as_held(start_gateway: StartGateway, clock: Any) -> None:
    gateway = await start_gateway()
    _, admitted = await admit(gateway)
    clock.advance(601)
    abandoned = await gateway.runtime.engine.sweep(now=clock())
    assert [each.id for each in abandoned] == [admitted["id"]]
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (admitted["input_tokens"] + 50, 0)
