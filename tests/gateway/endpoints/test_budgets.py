from __future__ import annotations

from tests.conftest import StartGateway, config_for


async def test_budgets_tells_the_callers_own(start_gateway: StartGateway) -> None:
    budgets = [
        {"name": "mine", "each": "key", "limits": [{"tokens": 1000, "per": "day"}, {"requests": 9, "per": "total"}]},
        {"name": "others", "match": {"key": "bob"}, "limits": [{"tokens": 5, "per": "day"}]},
    ]
    gateway = await start_gateway(config_for(budgets=budgets))
    chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
    _, answered = await gateway.post("/v1/chat/completions", chat)
    response, answer = await gateway.get("/budgets")
    used = answered["usage"]["total_tokens"]
    assert response.status == 200
    assert answer["key_id"] == "alice"
    assert answer["data"] == [
        {
            "budget": "mine",
            "scope": "key=alice",
            "unit": "tokens",
            "per": "day",
            "sliding": False,
            "mode": "enforce",
            "limit": 1000,
            "used": used,
            "held": 0,
            "granted": 0,
            "remaining": 1000 - used,
            "over": 0,
            "resets_at": "2027-01-16T00:00:00Z",
        },
        {
            "budget": "mine",
            "scope": "key=alice",
            "unit": "requests",
            "per": "total",
            "sliding": False,
            "mode": "enforce",
            "limit": 9,
            "used": 1,
            "held": 0,
            "granted": 0,
            "remaining": 8,
            "over": 0,
            "resets_at": None,
        },
    ]


async def test_budgets_needs_a_key(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    for key in (None, "sk-nobody"):
        response, answer = await gateway.get("/budgets", key=key)
        assert (response.status, answer["error"]["code"]) == (401, "invalid_api_key")


async def test_budgets_reads_the_key_where_any_api_puts_it(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    for headers in ({"x-api-key": "sk-test-alice"}, {"x-goog-api-key": "sk-test-alice"}, {"api-key": "sk-test-alice"}):
        assert (await gateway.get("/budgets", key=None, headers=headers))[0].status == 200
    assert (await gateway.get("/budgets?key=sk-test-alice", key=None))[0].status == 200
