from __future__ import annotations

import asyncio
from pathlib import Path

from policies.model import StoreLost
from tests.conftest import StartGateway, config_for


async def test_health_is_200_while_everything_works(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    response, answer = await gateway.get("/health", key=None)
    assert response.status == 200
    assert answer["status"] == answer["store"]["status"] == answer["config"]["status"] == "ok"
    assert answer["tokenizers"]["installed"] > 0
    assert answer["config"]["upstreams"] == ["echo"]
    assert answer["version"]


class LostStore:
    """A store behind a broken connection."""

    async def ping(self) -> None:
        raise StoreLost("redis at 127.0.0.1:1 does not answer")


async def test_health_is_503_while_the_store_is_lost(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    working, gateway.runtime.engine.store = gateway.runtime.engine.store, LostStore()
    response, answer = await gateway.get("/health", key=None)
    gateway.runtime.engine.store = working
    assert response.status == 503
    assert answer["status"] == "degraded"
    assert "does not answer" in answer["store"]["reason"]
    assert (await gateway.get("/health", key=None))[0].status == 200


async def test_budgets_survive_a_restart(start_gateway: StartGateway, tmp_path: Path) -> None:
    config = config_for(store={"url": f"sqlite:///{tmp_path}/tollgate.db"})
    first = await start_gateway(config)
    chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
    await first.post("/v1/chat/completions", chat)
    second = await start_gateway(config)
    used = (await first.budget())["used"]
    assert used > 0
    assert (await second.budget())["used"] == used


async def test_metrics_tell_requests_tokens_and_refusals(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
    await asyncio.gather(*(gateway.post("/v1/chat/completions", chat) for _ in range(3)))
    await gateway.post("/v1/chat/completions", {**chat, "max_tokens": 10**6})
    await gateway.post("/v1/chat/completions", {**chat, "model": "no-such-model"})
    response, body = await gateway.get("/metrics", key=None)
    text = body.decode()
    assert response.headers["Content-Type"].startswith("text/plain")
    ok = 'tollgate_requests_total{format="openai_chat",outcome="ok",status="200",upstream="echo"} 3.0'
    assert ok in text
    assert 'tollgate_refusals_total{budget="main"} 1.0' in text
    assert 'tollgate_tokens_total{family="gpt-4o",kind="output",source="reported",upstream="echo"} 3.0' in text
    assert "no-such-model" not in text
