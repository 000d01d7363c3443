"""Many requests at once against a budget that fits few of them."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import KEY, StartGateway, config_for
from tests.fakes import FakeUpstream, chat, plain

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 10}


@pytest.mark.parametrize("store", ["memory:", "sqlite:///{}/tollgate.db"])
async def test_exactly_as_many_pass_as_fit(
    start_gateway: StartGateway, upstream: FakeUpstream, tmp_path: Path, store: str
) -> None:
    upstream.default = plain(chat(prompt_tokens=9, completion_tokens=10))
    budgets = [{"name": "main", "limits": [{"tokens": 19 * 100 + 18, "per": "day"}]}]
    config = config_for(
        upstreams=[{"name": "up", "url": upstream.url}], budgets=budgets, store={"url": store.format(tmp_path)}
    )
    # Two gateways stand for two workers: with SQLite they share one budget, in memory each has its own.
    gateways = [await start_gateway(config) for _ in range(2 if "sqlite" in store else 1)]

    async def ask(number: int) -> int:
        gateway = gateways[number % len(gateways)]
        headers = {"Authorization": f"Bearer {KEY}"}
        async with client.post(gateway.url + "/v1/chat/completions", json=CHAT, headers=headers) as response:
            await response.read()
            return response.status

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=500)) as client:
        statuses = await asyncio.gather(*(ask(number) for number in range(500)))
    assert sorted(set(statuses)) == [200, 429]
    assert statuses.count(200) == len(upstream.requests) == 100
    for gateway in gateways:
        budget = await gateway.budget()
        assert (budget["used"], budget["held"]) == (19 * 100, 0)


async def test_requests_that_end_anyhow_leave_no_hold(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    """Callers leave at random moments; in the end nothing is held, and as much is used as was settled."""
    luck = random.Random(7)
    gateway = await start_gateway(config_for(upstreams=[{"name": "echo", "url": "echo:"}]))
    body = {**CHAT, "messages": [{"role": "user", "content": "word " * 300}], "stream": True, "max_tokens": 300}

    async def ask(delay_s: float) -> None:
        async with aiohttp.ClientSession() as client:
            headers = {"Authorization": f"Bearer {KEY}"}
            try:
                async with asyncio.timeout(delay_s):
                    async with client.post(
                        gateway.url + "/v1/chat/completions", json=body, headers=headers
                    ) as response:
                        await response.read()
            except TimeoutError:
                pass

    await asyncio.gather(*(ask(luck.uniform(0.001, 0.2)) for _ in range(60)))
    for _ in range(300):
        budget = await gateway.budget()
        if not budget["held"]:
            break
        await asyncio.sleep(0.01)
    assert budget["held"] == 0
    assert gateway.runtime.engine.in_flight == 0
    assert gateway.runtime.watchdog.watches == set()
    charged = [entry async for entry in gateway.runtime.engine.store.entries()]
    assert sum(entry.input_tokens + entry.output_tokens for entry in charged) == budget["used"] > 0
