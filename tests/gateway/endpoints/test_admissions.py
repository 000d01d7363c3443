from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from tests.conftest import KEY, RunningGateway, StartGateway, config_for, digest
from tests.fakes import FakeUpstream, chat, chat_events, stream

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


async def test_an_end_told_again_answers_the_same_and_charges_nothing(gateway: RunningGateway) -> None:
    _, admitted = await admit(gateway)
    path = f"/v1/admissions/{admitted['id']}"
    first = await gateway.post(f"{path}/settle", {"usage": {"input_tokens": 5, "output_tokens": 2}}, key=None)
    again = await gateway.post(f"{path}/settle", {"usage": {"input_tokens": 50, "output_tokens": 20}}, key=None)
    assert (first[0].status, again[0].status) == (200, 200)
    assert again[1] == first[1]
    assert (await gateway.budget())["used"] == 7
    assert (await gateway.post(f"{path}/release", key=None))[0].status == 404
    _, admitted = await admit(gateway)
    path = f"/v1/admissions/{admitted['id']}/release"
    assert [(await gateway.post(path, key=None))[0].status for _ in range(2)] == [200, 200]
    assert (await gateway.budget())["used"] == 7


async def test_an_unknown_admission_is_a_404(gateway: RunningGateway) -> None:
    for path, body in (("settle", {"usage": {"input_tokens": 1}}), ("release", None), ("answer", b"{}")):
        response, told = await gateway.post(f"/v1/admissions/{'0' * 24}/{path}", body, key=None)
        assert (response.status, told["error"]["code"]) == (404, "admission_not_open")


async def test_a_caller_ends_only_its_own_admissions(start_gateway: StartGateway) -> None:
    keys = [{"id": "alice", "digest": digest(KEY)}, {"id": "bob", "digest": digest("sk-bob")}]
    gateway = await start_gateway(config_for(keys=keys))
    _, admitted = await admit(gateway)
    path = f"/v1/admissions/{admitted['id']}"
    usage = {"usage": {"input_tokens": 5}}
    assert (await gateway.post(f"{path}/settle", usage, key="sk-bob"))[0].status == 404
    assert (await gateway.post(f"{path}/settle", {**usage, "key": "sk-bob"}, key=None))[0].status == 404
    assert (await gateway.post(f"{path}/release", key="sk-bob"))[0].status == 404
    assert (await gateway.post(f"{path}/answer", b"{}", key="sk-bob"))[0].status == 404
    assert (await gateway.post(f"{path}/release", key="sk-nobody"))[0].status == 401
    assert (await gateway.budget())["held"] > 0
    assert (await gateway.post(f"{path}/settle", usage, key=KEY))[0].status == 200
    assert (await gateway.post(f"{path}/settle", usage, key="sk-bob"))[0].status == 404


async def test_the_hold_of_a_request_that_passes_through_is_no_admission(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    gateway = await start_gateway(config_for(upstreams=[{"name": "fake", "url": upstream.url}]))
    go_on = asyncio.Event()

    async def wait(_: int) -> None:
        await go_on.wait()

    upstream.enqueue(stream(*chat_events("Hi", usage={"prompt_tokens": 9, "completion_tokens": 1}), between=wait))
    running = asyncio.create_task(gateway.post("/v1/chat/completions", {**CHAT, "stream": True}))
    while not (holds := await gateway.runtime.engine.store.holds()):
        await asyncio.sleep(0.01)
    response, _ = await gateway.post(f"/v1/admissions/{holds[0].id}/release", key=KEY)
    assert response.status == 404
    go_on.set()
    await running
    assert (await gateway.budget())["used"] == 10


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {"prompt_tokens": 10, "completion_tokens": 8, "prompt_tokens_details": {"cached_tokens": 6},
             "completion_tokens_details": {"reasoning_tokens": 3}},
            (10, 8, 6, 3),
        ),
        (
            {"input_tokens": 10, "output_tokens": 8, "input_tokens_details": {"cached_tokens": 6},
             "output_tokens_details": {"reasoning_tokens": 3}},
            (10, 8, 6, 3),
        ),
        (
            {"input_tokens": 4, "output_tokens": 8, "cache_read_input_tokens": 6, "cache_creation_input_tokens": None},
            (10, 8, 6, 0),
        ),
        ({"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 3, "cachedContentTokenCount": 6},
         (10, 8, 6, 3)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 18}, (10, 8, 0, 0)),
        ({"input_tokens": 10, "output_tokens": 8, "cached_tokens": 6, "reasoning_tokens": 3}, (10, 8, 6, 3)),
    ],
)  # fmt: skip
async def test_cached_and_reasoning_tokens_reach_the_ledger(
    gateway: RunningGateway, usage: dict[str, Any], expected: tuple[int, ...]
) -> None:
    _, admitted = await admit(gateway)
    await gateway.post(f"/v1/admissions/{admitted['id']}/settle", {"usage": usage}, key=None)
    (line,) = await gateway.runtime.engine.store.latest(limit=10)
    told = (line.input_tokens, line.output_tokens, line.cached_tokens, line.reasoning_tokens)
    assert (line.request_id, told) == (admitted["id"], expected)


ANSWER = chat("Hello you", prompt_tokens=9, completion_tokens=4)
EVENTS = chat_events("Hello", " you", usage={"prompt_tokens": 9, "completion_tokens": 4})


@pytest.mark.parametrize(
    ("sent", "content_type", "used", "source"),
    [
        (orjson.dumps(ANSWER), "application/json", 13, "reported"),
        (b"".join(EVENTS), "text/event-stream", 13, "reported"),
        (b"".join(EVENTS[:2]), "text/event-stream", 8 + 2, "counted"),
        (b"".join(EVENTS[:1]), "text/event-stream", 8 + 1, "counted"),
        (b"", "text/event-stream", 8, "counted"),
    ],
    ids=["whole", "streamed", "cut", "cut sooner", "cut before anything"],
)
async def test_an_answer_settles_by_what_it_reports_or_says(
    gateway: RunningGateway, sent: bytes, content_type: str, used: int, source: str
) -> None:
    stream = content_type == "text/event-stream"
    _, admitted = await admit(gateway, request={**CHAT, "stream": stream})
    assert admitted["input_tokens"] == 8
    response, told = await gateway.post(admitted["answer_to"], sent, key=None, headers={"Content-Type": content_type})
    assert (response.status, told["settled"], told["usage"]["source"]) == (200, True, source)
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (used, 0)
    again, _ = await gateway.post(admitted["answer_to"], sent, key=None, headers={"Content-Type": content_type})
    assert (again.status, (await gateway.budget())["used"]) == (200, used)


async def test_an_answer_that_declines_releases(gateway: RunningGateway) -> None:
    _, admitted = await admit(gateway)
    response, told = await gateway.post(admitted["answer_to"] + "&status=500", b"oh no", key=None)
    assert (response.status, told["released"]) == (200, True)
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (0, 0)


async def test_an_answer_with_facts_of_its_own_is_a_400_and_ends_nothing(gateway: RunningGateway) -> None:
    _, admitted = await admit(gateway)
    path = f"/v1/admissions/{admitted['id']}/answer"
    for query, param in (("format=smoke", "format"), ("status=soon", "status"), ("input_tokens=-1", "input_tokens")):
        response, told = await gateway.post(f"{path}?{query}", b"{}", key=None)
        assert (response.status, told["error"]["param"]) == (400, param)
    assert (await gateway.budget())["held"] > 0


async def test_an_admission_nobody_ends_is_charged_as_held(start_gateway: StartGateway, clock: Any) -> None:
    gateway = await start_gateway()
    _, admitted = await admit(gateway)
    clock.advance(601)
    abandoned = await gateway.runtime.engine.sweep(now=clock())
    assert [each.id for each in abandoned] == [admitted["id"]]
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (admitted["input_tokens"] + 50, 0)
