"""What was used, and what bills have taught, as /admin tells it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import KEY, RunningGateway, StartGateway, config_for, digest
from tests.fakes import FakeUpstream, chat, plain

ADMIN = "sk-test-admin"
PATH = "/v1/chat/completions"


def body(model: str = "gpt-4o", content: str = "Hi") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 50}


@pytest.fixture
def kept(kept_url: str, upstream: FakeUpstream) -> dict[str, Any]:
    return config_for(
        admin={"digest": digest(ADMIN)},
        store={"url": kept_url},
        upstreams=[{"name": "up", "url": upstream.url}],
        keys=[
            {"id": "alice", "digest": digest(KEY), "tags": {"team": "search"}},
            {"id": "bob", "digest": digest("sk-bob"), "tags": {"team": "ads"}},
        ],
    )


async def usage(gateway: RunningGateway, query: str = "") -> dict[str, Any]:
    response, answer = await gateway.get(f"/admin/usage{query}", key=ADMIN)
    assert response.status == 200, answer
    return dict(answer)


async def test_usage_is_summed_by_what_is_asked(
    start_gateway: StartGateway, kept: dict[str, Any], upstream: FakeUpstream, clock: Any
) -> None:
    gateway = await start_gateway(kept)
    upstream.default = plain(chat(prompt_tokens=10, completion_tokens=4))
    await gateway.post(PATH, body())
    clock.advance(86_400)
    await gateway.post(PATH, body("gpt-4.1"))
    await gateway.post(PATH, body(), key="sk-bob")
    by_key = await usage(gateway)
    assert [(row["key"], row["requests"], row["tokens"]) for row in by_key["data"]] == [
        ("alice", 2, 28),
        ("bob", 1, 14),
    ]
    assert (by_key["total"]["input_tokens"], by_key["total"]["output_tokens"]) == (30, 12)
    by_two = await usage(gateway, "?by=day,model&key=alice")
    assert {(row["day"], row["model"], row["tokens"]) for row in by_two["data"]} == {
        ("2027-01-15", "gpt-4o", 14),
        ("2027-01-16", "gpt-4.1", 14),
    }
    assert [row["team"] for row in (await usage(gateway, "?by=team"))["data"]] == ["search", "ads"]
    assert (await usage(gateway, "?since=1h"))["total"]["requests"] == 2
    assert (await usage(gateway, "?until=2027-01-16"))["total"]["requests"] == 1
    assert (await usage(gateway, "?since=2028-01-01"))["total"]["tokens"] == 0


@pytest.mark.parametrize(("query", "param"), [("since=someday", "since"), ("by=", "by"), ("by=a,b,c,d,e", "by")])
async def test_a_wrong_report_is_a_400(start_gateway: StartGateway, query: str, param: str) -> None:
    gateway = await start_gateway(config_for(admin={"digest": digest(ADMIN)}))
    response, answer = await gateway.get(f"/admin/usage?{query}", key=ADMIN)
    assert (response.status, answer["error"]["param"]) == (400, param)


async def bill(gateway: RunningGateway, upstream: FakeUpstream, *, hidden: int, times: int = 10) -> None:
    """Requests whose upstream bills a hidden prompt."""
    for number in range(times):
        content = "word " * (number + 1)
        _, counted = await gateway.post(
            "/calculate", {"model": "gpt-4o", "messages": [{"role": "user", "content": content}]}
        )
        upstream.enqueue(plain(chat(prompt_tokens=counted["token_count"] + hidden, completion_tokens=2)))
        await gateway.post(PATH, body(content=content))


async def learned(gateway: RunningGateway) -> list[int]:
    _, answer = await gateway.get("/admin/drift", key=ADMIN)
    return [row["learned"]["tokens"] for row in answer["data"] if row["learned"]]


async def test_what_bills_taught_survives_a_restart_until_it_is_reset_everywhere(
    start_gateway: StartGateway, kept: dict[str, Any], upstream: FakeUpstream, clock: Any
) -> None:
    gateway = await start_gateway(kept)
    await bill(gateway, upstream, hidden=100)
    assert await learned(gateway) == [100]
    _, rows = await gateway.get("/admin/drift?model=gpt-4o", key=ADMIN)
    assert (rows["data"][0]["upstream"], rows["data"][0]["n"], rows["data"][0]["mean_drift"]) == ("up", 10, 100.0)
    restarted = await start_gateway(kept)
    await until(restarted, [100])
    response, answer = await gateway.post("/admin/drift/reset", {"model": "gpt-4o"}, key=ADMIN)
    assert (response.status, answer["forgotten"], await learned(gateway)) == (200, 1, [])
    await until(restarted, [])
    clock.advance(10)
    again = await start_gateway(kept)
    await bill(again, upstream, hidden=0, times=1)
    assert (await again.get("/admin/drift", key=ADMIN))[1]["data"][0]["n"] == 1
    assert await learned(again) == []


async def until(gateway: RunningGateway, expected: list[int]) -> None:
    async with asyncio.timeout(2):
        while await learned(gateway) != expected:
            await asyncio.sleep(0.05)
