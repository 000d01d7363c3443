"""Budgets looked at, granted more and begun anew while they are in use."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.conftest import RunningGateway, StartGateway, config_for, digest

ADMIN = "sk-test-admin"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
BUDGETS = [
    {"name": "mine", "each": "key", "limits": [{"tokens": 60, "per": "day"}, {"requests": 9, "per": "total"}]},
    {"name": "all", "limits": [{"tokens": 1000, "per": "minute", "sliding": True}, {"concurrent": 5}]},
]


@pytest.fixture
async def gateway(store_url: str, start_gateway: StartGateway) -> RunningGateway:
    config = config_for(admin={"digest": digest(ADMIN)}, store={"url": store_url}, budgets=BUDGETS)
    return await start_gateway(
        config, clock=time.time
    )  # Redis has a clock of its own, which a fake one would part from


async def counters(gateway: RunningGateway, query: str = "") -> dict[tuple[str, str, str], dict[str, Any]]:
    response, answer = await gateway.get(f"/admin/budgets{query}", key=ADMIN)
    assert response.status == 200
    return {(row["budget"], row["scope"], row["unit"]): row for row in answer["data"]}


async def change(gateway: RunningGateway, what: str, name: str = "mine", **body: Any) -> tuple[int, Any]:
    response, answer = await gateway.post(f"/admin/budgets/{name}/{what}", body, key=ADMIN)
    return response.status, answer


async def chat(gateway: RunningGateway) -> tuple[int, Any]:
    response, answer = await gateway.post("/v1/chat/completions", CHAT)
    return response.status, answer


async def test_every_live_counter_is_listed(gateway: RunningGateway) -> None:
    empty = await counters(gateway)
    assert {key[:2] for key in empty} == {("all", "all")}
    _, answer = await chat(gateway)
    used = answer["usage"]["total_tokens"]
    listed = await counters(gateway)
    assert listed["mine", "key=alice", "tokens"]["used"] == used
    assert listed["mine", "key=alice", "tokens"]["remaining"] == 60 - used
    assert listed["mine", "key=alice", "requests"]["used"] == 1
    assert listed["all", "all", "tokens"]["used"] == used
    assert {key[0] for key in await counters(gateway, "?budget=mine")} == {"mine"}
    assert (await counters(gateway, "?budget=mine&scope=key=bob"))["mine", "key=bob", "tokens"]["used"] == 0
    assert (await gateway.get("/admin/budgets?budget=none", key=ADMIN))[0].status == 404


async def test_a_grant_lets_more_pass_and_is_shown_beside_what_was_used(gateway: RunningGateway) -> None:
    _, answer = await chat(gateway)
    used = answer["usage"]["total_tokens"]
    assert (await chat(gateway))[0] == 429
    status, after = await change(gateway, "top-up", scope="key=alice", unit="tokens", amount=100)
    assert (status, after["used"], after["granted"], after["remaining"]) == (200, used, 100, 160 - used)
    assert (await chat(gateway))[0] == 200
    mine = await gateway.budget("mine")
    assert (mine["used"], mine["granted"], mine["limit"], mine["remaining"]) == (2 * used, 100, 60, 160 - 2 * used)
    assert (await counters(gateway))["mine", "key=alice", "tokens"]["used"] == 2 * used


async def test_a_grant_may_take_away_and_counts_once_under_its_id(gateway: RunningGateway) -> None:
    for _ in range(2):
        status, after = await change(gateway, "top-up", scope="key=alice", unit="tokens", amount=-20, id="june")
        assert (status, after["remaining"], after["granted"]) == (200, 40, -20)
    assert (await chat(gateway))[0] == 429


async def test_a_grant_ends_with_its_window(start_gateway: StartGateway, clock: Any) -> None:
    gateway = await start_gateway(config_for(admin={"digest": digest(ADMIN)}, budgets=BUDGETS))
    await change(gateway, "top-up", scope="key=alice", unit="tokens", amount=100)
    assert (await gateway.budget("mine"))["granted"] == 100
    clock.advance(86_400)
    mine = await gateway.budget("mine")
    assert (mine["granted"], mine["remaining"]) == (0, 60)


async def test_a_sliding_window_takes_a_grant(gateway: RunningGateway) -> None:
    status, after = await change(gateway, "top-up", "all", unit="tokens", amount=500)
    assert (status, after["granted"], after["remaining"], after["sliding"]) == (200, 500, 1500, True)


async def test_a_reset_begins_anew_and_takes_grants_back(gateway: RunningGateway) -> None:
    await chat(gateway)
    await change(gateway, "top-up", scope="key=alice", unit="tokens", amount=100)
    status, after = await change(gateway, "reset", scope="key=alice", unit="tokens")
    assert (status, after["used"], after["granted"], after["remaining"]) == (200, 0, 0, 60)
    assert (await counters(gateway))["mine", "key=alice", "requests"]["used"] == 1
    assert (await chat(gateway))[0] == 200


@pytest.mark.parametrize(
    ("name", "body", "says"),
    [
        ("none", {"amount": 5}, "Configured budgets: mine, all"),
        ("mine", {"amount": 5}, "key=..."),
        ("mine", {"scope": "key=alice", "amount": 5}, "tokens per day, requests per total"),
        ("mine", {"scope": "all", "unit": "tokens", "amount": 5}, "no scope 'all'"),
        ("mine", {"scope": "key=alice", "unit": "tokens", "per": "year", "amount": 5}, "No limit"),
    ],
)
async def test_a_counter_that_is_not_there_is_a_404_that_names_those_that_are(
    start_gateway: StartGateway, name: str, body: dict[str, Any], says: str
) -> None:
    gateway = await start_gateway(config_for(admin={"digest": digest(ADMIN)}, budgets=BUDGETS))
    status, answer = await change(gateway, "top-up", name, **body)
    assert (status, answer["error"]["code"]) == (404, "counter_not_found")
    assert says in answer["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"scope": "key=alice", "unit": "tokens"}, "amount"),
        ({"scope": "key=alice", "unit": "tokens", "amount": 0}, "amount"),
        ({"scope": "key=alice", "unit": "tokens", "amount": 2**41}, "amount"),
        ({"scope": "key=alice", "unit": "tokens", "amount": "5"}, "amount"),
        ({"scope": "key=alice", "unit": "words", "amount": 5}, "unit"),
    ],
)
async def test_a_wrong_grant_is_a_400_that_changes_nothing(
    start_gateway: StartGateway, body: dict[str, Any], param: str
) -> None:
    gateway = await start_gateway(config_for(admin={"digest": digest(ADMIN)}, budgets=BUDGETS))
    status, answer = await change(gateway, "top-up", **body)
    assert (status, answer["error"]["param"]) == (400, param)
    assert (await gateway.budget("mine"))["granted"] == 0


async def test_concurrent_requests_cannot_be_granted(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(config_for(admin={"digest": digest(ADMIN)}, budgets=BUDGETS))
    status, answer = await change(gateway, "top-up", "all", unit="concurrent", amount=5)
    assert (status, answer["error"]["param"]) == (400, "amount")
