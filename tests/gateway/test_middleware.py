"""The log line, the ledger row and the error boundary around every request."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from tests.conftest import KEY, RunningGateway, StartGateway, config_for
from tests.fakes import FakeUpstream, chat, plain

PATH = "/v1/chat/completions"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "secret words"}], "max_tokens": 50}


@pytest.fixture
async def gateway(start_gateway: StartGateway, upstream: FakeUpstream) -> RunningGateway:
    budgets = [{"name": "main", "limits": [{"tokens": 200, "per": "minute"}]}]
    return await start_gateway(config_for(upstreams=[{"name": "up", "url": upstream.url}], budgets=budgets))


async def logged(gateway: RunningGateway, *requests: Any) -> list[dict[str, Any]]:
    with structlog.testing.capture_logs() as lines:
        for path, body, key in requests:
            await gateway.post(path, body, key=key)
    return [line for line in lines if line["event"] == "request"]


async def test_a_request_is_one_log_line(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    upstream.enqueue(plain(chat(prompt_tokens=10, completion_tokens=4)))
    (line,) = await logged(gateway, (PATH, CHAT, KEY))
    assert line["key_id"] == "alice"
    assert line["model"] == "gpt-4o"
    assert line["upstream"] == "up"
    assert line["outcome"] == "ok"
    assert line["accuracy"] == "exact"
    assert (line["used_input"], line["used_output"], line["source"]) == (10, 4, "reported")
    assert line["counted"] + 50 == line["held"]
    assert line["total_ms"] >= line["first_byte_ms"] > 0
    assert "secret" not in str(line)
    assert KEY not in str(line)


async def test_outcomes_are_told_apart(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    upstream.enqueue(plain(b"{}", status=500))
    lines = await logged(
        gateway,
        (PATH, CHAT, KEY),
        (PATH, {**CHAT, "max_tokens": 195}, KEY),
        (PATH, b"{", KEY),
        (PATH, CHAT, "sk-nobody"),
    )
    told = [(line["outcome"], line["status"], line.get("error")) for line in lines]
    assert told == [
        ("declined", 500, None),
        ("refused", 413, "request_exceeds_budget"),
        ("rejected", 400, "invalid_json"),
        ("rejected", 401, "invalid_api_key"),
    ]
    assert lines[1]["refused_by"] == "main"


async def test_health_and_metrics_are_not_logged(gateway: RunningGateway) -> None:
    with structlog.testing.capture_logs() as lines:
        await gateway.get("/health")
        await gateway.get("/metrics")
        await gateway.get("/models")
    assert [line["path"] for line in lines if line["event"] == "request"] == ["/models"]


async def test_the_ledger_has_a_row_for_what_reached_a_budget(gateway: RunningGateway, upstream: FakeUpstream) -> None:
    upstream.enqueue(plain(chat(prompt_tokens=10, completion_tokens=4)), plain(b"{}", status=429))
    await gateway.post(PATH, CHAT)
    await gateway.post(PATH, CHAT)
    await gateway.post(PATH, {**CHAT, "max_tokens": 195})
    await gateway.post(PATH, b"{")
    rows = [entry async for entry in gateway.runtime.engine.store.entries()]
    assert [row.outcome for row in rows] == ["ok", "released", "refused"]
    assert (rows[0].input_tokens, rows[0].output_tokens, rows[0].source) == (10, 4, "reported")
    assert rows[0].drift == 10 - rows[0].counted_tokens
    assert rows[0].tags == {"team": "search"}
    assert rows[0].features
    assert (rows[1].input_tokens, rows[1].output_tokens) == (0, 0)
    assert (rows[2].refused_by, rows[2].refused_for) == ("main", "never_fits")
    assert rows[2].refused_limit == "tokens per minute"


@pytest.mark.parametrize(
    ("headers", "shape"),
    [
        ({}, "param"),
        ({"anthropic-version": "2023-06-01"}, "message"),
        ({"x-goog-api-key": "nobody"}, "status"),
    ],
)
async def test_an_error_on_an_unknown_path_speaks_the_callers_dialect(
    gateway: RunningGateway, headers: dict[str, str], shape: str
) -> None:
    response, answer = await gateway.get("/v1/unheard-of", key=None, headers=headers)
    assert response.status == 401
    assert shape in answer["error"]
    if "anthropic-version" in headers:
        assert answer["type"] == "error"
