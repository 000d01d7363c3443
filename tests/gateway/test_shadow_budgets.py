"""What a budget in ``shadow`` mode would have refused is seen live, everywhere operators look."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import StartGateway, config_for, digest

ADMIN = "sk-admin"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
BUDGETS = [
    {"name": "main", "each": "key", "limits": [{"tokens": 100_000, "per": "day"}]},
    {"name": "trial", "mode": "shadow", "each": "key", "limits": [{"requests": 1, "per": "day"}]},
]


async def test_what_a_shadow_budget_would_refuse_is_told(
    start_gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    gateway = await start_gateway(config_for(budgets=BUDGETS, admin={"digest": digest(ADMIN)}))
    for _ in range(3):
        response, _ = await gateway.post("/v1/chat/completions", CHAT)
        assert response.status == 200
    _, metrics = await gateway.get("/metrics", key=None)
    assert 'tollgate_shadow_refusals_total{budget="trial"} 2.0' in metrics.decode()
    assert "tollgate_refusals_total{" not in metrics.decode()
    row = await gateway.budget("trial", unit="requests")
    assert (row["mode"], row["remaining"], row["over"]) == ("shadow", 0, 2)
    usage: Any = (await gateway.get("/admin/usage?by=shadowed_by", key=ADMIN))[1]
    assert {each["shadowed_by"]: each["requests"] for each in usage["data"]} == {"trial": 2, "": 1}
    assert usage["total"]["would_refuse"] == 2
    assert (await gateway.budget())["over"] == 0
    told = [record.message for record in caplog.records if "would_refuse" in record.message]
    assert len(told) == 2


async def test_a_refused_request_counts_for_no_shadow_budget(start_gateway: StartGateway) -> None:
    budgets = [{**BUDGETS[0], "limits": [{"requests": 1, "per": "day"}]}, BUDGETS[1]]
    gateway = await start_gateway(config_for(budgets=budgets))
    statuses = [(await gateway.post("/v1/chat/completions", CHAT))[0].status for _ in range(2)]
    assert statuses == [200, 429]
    _, metrics = await gateway.get("/metrics", key=None)
    assert "tollgate_shadow_refusals_total{" not in metrics.decode()
