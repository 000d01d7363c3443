"""Holds looked at and given back, never at the price of a lost token count."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from policies.engine import BudgetEngine
from tests.conftest import KEY, RunningGateway, StartGateway, config_for, digest
from tests.fakes import FakeUpstream, chat, plain

ADMIN = "sk-test-admin"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}


@pytest.fixture
async def gateway(store_url: str, start_gateway: StartGateway, upstream: FakeUpstream) -> RunningGateway:
    upstreams = [{"name": "up", "url": upstream.url}]
    config = config_for(admin={"digest": digest(ADMIN)}, store={"url": store_url}, upstreams=upstreams)
    return await start_gateway(
        config, clock=time.time
    )  # Redis has a clock of its own, which a fake one would part from


async def holds(gateway: RunningGateway) -> list[dict[str, Any]]:
    return list((await gateway.get("/admin/holds", key=ADMIN))[1]["data"])


async def test_an_admission_nobody_ends_is_listed_and_given_back(gateway: RunningGateway) -> None:
    await gateway.post("/v1/admissions", {"key": KEY, "request": CHAT}, key=None)
    (hold,) = await holds(gateway)
    assert (hold["key_id"], hold["model"], hold["upstream"], hold["owner"]) == ("alice", "gpt-4o", "up", "")
    assert (hold["output_tokens"], hold["charges"][0]["amount"]) == (50, hold["input_tokens"] + 50)
    assert hold["age_s"] >= 0
    response, _ = await gateway.post(f"/admin/holds/{hold['id']}/release", key=ADMIN)
    assert (response.status, await holds(gateway)) == (200, [])
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (0, 0)
    response, answer = await gateway.post(f"/admin/holds/{hold['id']}/release", key=ADMIN)
    assert (response.status, answer["error"]["code"]) == (404, "hold_not_open")


async def test_the_hold_of_a_running_request_is_given_back_only_by_force_and_charged_when_it_ends(
    gateway: RunningGateway, upstream: FakeUpstream
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def wait(connection: Any, received: Any) -> None:
        asked.set()
        await go_on.wait()
        await plain(chat(prompt_tokens=8, completion_tokens=70))(connection, received)

    upstream.enqueue(wait)
    request = asyncio.create_task(gateway.post("/v1/chat/completions", CHAT))
    await asked.wait()
    await gateway.runtime.engine.sweep(now=gateway.runtime.clock())  # the worker's sign of life
    (hold,) = await holds(gateway)
    path = f"/admin/holds/{hold['id']}/release"
    response, answer = await gateway.post(path, key=ADMIN)
    assert (response.status, answer["error"]["code"]) == (409, "hold_in_use")
    assert (await gateway.budget())["held"] > 0
    response, _ = await gateway.post(path, {"force": True}, key=ADMIN)
    assert (response.status, (await gateway.budget())["held"]) == (200, 0)
    go_on.set()
    assert (await request)[0].status == 200
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (78, 0)


async def test_what_a_sweep_charged_is_not_charged_twice(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    """The worker was taken for dead while its request ran on: charged as held by another, then what was beyond."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def wait(connection: Any, received: Any) -> None:
        asked.set()
        await go_on.wait()
        await plain(chat(prompt_tokens=8, completion_tokens=70))(connection, received)

    upstream.enqueue(wait)
    request = asyncio.create_task(gateway.post("/v1/chat/completions", CHAT))
    await asked.wait()
    runtime = gateway.runtime
    other = BudgetEngine(runtime.policy, runtime.engine.store, owner="another")
    abandoned = await other.sweep(now=runtime.clock(), dead_owners=[runtime.engine.owner])
    assert len(abandoned) == 1
    assert (await gateway.budget())["used"] == abandoned[0].held_input + 50
    go_on.set()
    await request
    assert (await gateway.budget())["used"] == 78
