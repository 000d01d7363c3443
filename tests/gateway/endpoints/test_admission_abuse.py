"""Admissions as strangers and crowds use them: many at once, ended twice, too late, or with nonsense."""

from __future__ import annotations

import asyncio
import io
import json
import time
from typing import Any

import pytest

from tests.conftest import KEY, RunningGateway, StartGateway, config_for, digest
from tests.fakes import chat

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
HELD = 58
USAGE = {"usage": {"prompt_tokens": 9, "completion_tokens": 4}}


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    return await start_gateway()


async def admit(gateway: RunningGateway, **changes: Any) -> tuple[int, Any]:
    response, answer = await gateway.post("/v1/admissions", {"key": KEY, "request": CHAT, **changes}, key=None)
    return response.status, answer


async def admitted(gateway: RunningGateway) -> str:
    status, answer = await admit(gateway)
    assert status == 201
    return f"/v1/admissions/{answer['id']}"


async def test_a_crowd_of_admissions_holds_no_more_than_there_is(start_gateway: StartGateway, store_url: str) -> None:
    room = 7
    budgets = [{"name": "main", "limits": [{"tokens": room * HELD + HELD - 1, "per": "day"}]}]
    gateway = await start_gateway(config_for(store={"url": store_url}, budgets=budgets), clock=time.time)
    answers = await asyncio.gather(*(admit(gateway) for _ in range(40)))
    assert sorted(status for status, _ in answers) == [201] * room + [429] * (40 - room)
    assert (await gateway.budget())["held"] == room * HELD
    # What is given back is there again, once.
    ids = [answer["id"] for status, answer in answers if status == 201]
    await asyncio.gather(*(gateway.post(f"/v1/admissions/{ids[0]}/release", key=None) for _ in range(5)))
    answers = await asyncio.gather(*(admit(gateway) for _ in range(5)))
    assert [status for status, _ in answers].count(201) == 1


async def test_of_all_ends_told_at_once_one_counts(start_gateway: StartGateway, store_url: str) -> None:
    gateway = await start_gateway(config_for(store={"url": store_url}), clock=time.time)
    for _ in range(5):
        _, answer = await admit(gateway)
        path = f"/v1/admissions/{answer['id']}"
        ends = await asyncio.gather(
            *(gateway.post(f"{path}/settle", USAGE, key=None) for _ in range(3)),
            *(gateway.post(f"{path}/release", key=None) for _ in range(3)),
            *(gateway.post(answer["answer_to"], chat(), key=None) for _ in range(3)),
        )
        assert {response.status for response, _ in ends} <= {200, 404}
    lines = await gateway.runtime.engine.store.latest(limit=50)
    assert len({line.request_id for line in lines}) == len(lines) == 5
    charged = sum(line.input_tokens + line.output_tokens for line in lines if line.outcome != "released")
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (charged, 0)


async def test_an_end_told_too_late_changes_nothing(gateway: RunningGateway, clock: Any) -> None:
    _, answer = await admit(gateway)
    path = f"/v1/admissions/{answer['id']}"
    clock.advance(601)
    await gateway.runtime.engine.sweep(now=clock())
    for end, body in (("settle", USAGE), ("release", None)):
        response, told = await gateway.post(f"{path}/{end}", body, key=None)
        assert (response.status, told["error"]["code"]) == (404, "admission_not_open")
    response, told = await gateway.post(answer["answer_to"], chat(), key=None)
    assert (response.status, told["error"]["code"]) == (404, "admission_not_open")
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (HELD, 0)
    (line,) = await gateway.runtime.engine.store.latest(limit=10)
    assert line.outcome == "abandoned"


async def test_a_hold_is_still_open_just_before_its_time_is_over(gateway: RunningGateway, clock: Any) -> None:
    path = await admitted(gateway)
    clock.advance(599)
    assert await gateway.runtime.engine.sweep(now=clock()) == []
    response, _ = await gateway.post(f"{path}/settle", USAGE, key=None)
    assert response.status == 200
    assert (await gateway.budget())["used"] == 13


async def test_usage_beyond_the_hold_becomes_a_debt(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(config_for(budgets=[{"name": "main", "limits": [{"tokens": 100, "per": "day"}]}]))
    path = await admitted(gateway)
    response, told = await gateway.post(
        f"{path}/settle", {"usage": {"input_tokens": 8, "output_tokens": 900}}, key=None
    )
    assert (response.status, told["budgets"][0]["used"]) == (200, 908)
    assert (await admit(gateway))[0] == 429


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b'"text"',
        b'{"request": ',
        b"\xff\xfe",
        b'{"key": "sk-test-alice", "request": []}',
        b'{"key": "sk-test-alice", "request": {}}',
        b'{"key": "sk-test-alice", "request": {"model": 5, "messages": []}}',
        b'{"key": "sk-test-alice", "request": {"model": "gpt-4o", "messages": "Hi"}}',
        b'{"key": "sk-test-alice", "request": {"model": "gpt-4o", "messages": [], "max_tokens": -5}}',
        b'{"key": "sk-test-alice", "request": {"model": "gpt-4o", "messages": [], "max_tokens": 1e400}}',
        b'{"key": "sk-test-alice", "request": {"model": "gpt-4o", "input": "a", "messages": []}, "format": "smoke"}',
        b'{"key": "sk-test-alice", "request": {"model": "gpt-4o", "messages": []}, "upstream": "elsewhere"}',
        b'{"key": "sk-test-alice", "request": {"model": "gpt-4o", "messages": []}, "held": 0}',
        b'{"key": 5, "request": {"model": "gpt-4o", "messages": []}}',
        b'{"key": "sk-test-alice", "request": ' + b'{"a":' * 2000 + b"1" + b"}" * 2000 + b"}",
    ],
)
async def test_a_malformed_admission_is_a_400_and_holds_nothing(gateway: RunningGateway, body: bytes) -> None:
    response, told = await gateway.post("/v1/admissions", body, key=None, headers={"Content-Type": "application/json"})
    assert response.status == 400, told
    assert told["error"]["message"]
    assert await gateway.runtime.engine.store.holds() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"usage": null}',
        b'{"usage": {"input_tokens": 5}, "more": 1}',
        b'{"usage": {"input_tokens": 1e3}}',
        b'{"usage": {"input_tokens": 1000000000001}}',
        b'{"usage": {"prompt_tokens": 5, "completion_tokens": -1}}',
        b'{"usage": {"prompt_tokens": NaN}}',
        b'{"usage": {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": "all"}}, "key": 1}',
    ],
)
async def test_a_malformed_settlement_is_a_400_and_ends_nothing(gateway: RunningGateway, body: bytes) -> None:
    path = await admitted(gateway)
    response, told = await gateway.post(f"{path}/settle", body, key=None, headers={"Content-Type": "application/json"})
    assert response.status == 400, told
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (0, HELD)


async def test_a_body_beyond_the_limit_is_a_413_and_changes_nothing(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(config_for(server={"host": "127.0.0.1", "max_body": "1MiB"}))
    path = await admitted(gateway)
    large = json.dumps({"key": KEY, "request": {**CHAT, "metadata": "x" * 2_000_000}}).encode()
    for where in ("/v1/admissions", f"{path}/settle", f"{path}/answer?format=openai_chat", "/v1/ext_authz/v1/messages"):
        headers = {"Content-Type": "application/json", "x-api-key": KEY}
        response, _ = await gateway.post(where, io.BytesIO(large), key=None, headers=headers)
        assert response.status == 413, where
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (0, HELD)


@pytest.mark.parametrize("name", ["...", "%00", "'; drop table holds; --", "🔑", "x" * 5000])
async def test_an_odd_id_is_a_404(gateway: RunningGateway, name: str) -> None:
    for path, body in (("settle", USAGE), ("release", None), ("answer", b"{}")):
        response, _ = await gateway.post(f"/v1/admissions/{name}/{path}", body, key=None)
        assert response.status == 404, name


@pytest.mark.parametrize(
    ("sent", "content_type", "used"),
    [
        (b"<html>bad gateway</html>", "text/html", 8),
        (b"{", "application/json", 8),
        (b'{"usage": {"prompt_tokens": -5, "completion_tokens": "many"}}', "application/json", 8),
        (b"data: {\n\ndata: [DONE]\n\n", "text/event-stream", 8),
        (b"\xff" * 100, "application/json", 8),
    ],
)
async def test_an_answer_of_nonsense_is_charged_at_least_the_prompt(
    gateway: RunningGateway, sent: bytes, content_type: str, used: int
) -> None:
    _, answer = await admit(gateway)
    headers = {"Content-Type": content_type}
    response, told = await gateway.post(answer["answer_to"], sent, key=None, headers=headers)
    assert (response.status, told["settled"]) == (200, True)
    budget = await gateway.budget()
    assert budget["held"] == 0
    assert used <= budget["used"] <= HELD + len(sent)


async def test_facts_in_an_answers_path_make_nothing_cheaper(gateway: RunningGateway) -> None:
    """Whoever can tell an end is trusted with it; a garbled query must still not turn into a refund."""
    _, answer = await admit(gateway)
    cheaper = answer["answer_to"].replace("input_tokens=8", "input_tokens=99999999")
    response, _ = await gateway.post(cheaper, b"", key=None, headers={"Content-Type": "text/event-stream"})
    assert response.status == 200
    assert (await gateway.budget())["used"] == 8


async def test_a_disabled_key_cannot_end_what_it_began_but_the_hold_can_be_ended(start_gateway: StartGateway) -> None:
    keys = [
        {"id": "alice", "digest": digest(KEY)},
        {"id": "gone", "digest": digest("sk-gone"), "disabled": True},
    ]
    gateway = await start_gateway(config_for(keys=keys))
    path = await admitted(gateway)
    assert (await gateway.post(f"{path}/release", key="sk-gone"))[0].status in (401, 403)
    assert (await gateway.budget())["held"] == HELD
    assert (await gateway.post(f"{path}/release", key=None))[0].status == 200
