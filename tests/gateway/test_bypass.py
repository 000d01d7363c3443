"""Ways around a budget that are known from other gateways, each tried end to end over real sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.conftest import KEY, RunningGateway, StartGateway, config_for
from tests.fakes import FakeClock, FakeUpstream, chat, chat_events, end, plain, stream

CHAT_PATH = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello there"}]
INPUT = 9
"""What HELLO costs gpt-4o: 2 tokens in a frame of 7."""


def ask(**fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": HELLO, **fields}


def budget(*limits: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "main", "each": "key", "limits": list(limits), **fields}


def config(upstream: FakeUpstream, *budgets: dict[str, Any], **sections: Any) -> dict[str, Any]:
    return config_for(upstreams=[{"name": "up", "url": upstream.url}], budgets=list(budgets), **sections)


async def settled(gateway: RunningGateway) -> int:
    """What is used once nothing is held any more."""
    for _ in range(400):
        row = await gateway.budget()
        if not row["held"]:
            return int(row["used"])
        await asyncio.sleep(0.01)
    raise AssertionError(f"a hold is left: {row}")


@pytest.mark.parametrize(
    ("path", "body", "output"),
    [
        (CHAT_PATH, ask(max_tokens=1, max_completion_tokens=5000), 5000),
        (CHAT_PATH, ask(max_tokens=5000, max_completion_tokens=1), 5000),
        (CHAT_PATH, ask(max_tokens=50, n=100), 5000),
        (
            "/v1/completions",
            {"model": "gpt-3.5-turbo-instruct", "prompt": "Hi", "max_tokens": 50, "best_of": 100},
            5000,
        ),
        ("/v1/completions", {"model": "gpt-3.5-turbo-instruct", "prompt": ["Hi"] * 100, "max_tokens": 50}, 5000),
        (
            "/v1/completions",
            {"model": "gpt-3.5-turbo-instruct", "prompt": ["Hi"] * 10, "max_tokens": 50, "n": 2, "best_of": 10},
            5000,
        ),
        ("/v1/responses", {"model": "gpt-4o", "input": "Hi", "max_output_tokens": 5000}, 5000),
        (
            "/v1beta/models/gemini-2.5-flash:generateContent",
            {
                "contents": [{"parts": [{"text": "Hi"}]}],
                "generationConfig": {"maxOutputTokens": 1250, "candidateCount": 4},
            },
            5000,
        ),
    ],
)
async def test_a_small_cap_beside_a_large_one_or_many_choices_slips_by_no_budget(
    start_gateway: StartGateway, upstream: FakeUpstream, path: str, body: dict[str, Any], output: int
) -> None:
    """One token too few in the budget for all that may be written: refused, and nothing reaches the upstream."""
    gateway = await start_gateway(config(upstream, budget({"output_tokens": output - 1, "per": "day"})))
    response, refusal = await gateway.post(path, body)
    assert response.status == 413, refusal
    assert upstream.requests == []
    fits = await start_gateway(config(upstream, budget({"output_tokens": output, "per": "day"})))
    response, answer = await fits.post(path, body)
    assert response.status == 200, answer


@pytest.mark.parametrize(
    "prompt", ["word " * 300, ["word " * 150, "word " * 150], [1820] * 300, [[1820] * 150, [1820] * 150]]
)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings"])
async def test_batches_and_token_id_arrays_are_counted_in_full(
    start_gateway: StartGateway, upstream: FakeUpstream, path: str, prompt: Any
) -> None:
    gateway = await start_gateway(config(upstream, budget({"input_tokens": 299, "per": "day"})))
    if path == "/v1/embeddings":
        body = {"model": "text-embedding-3-small", "input": prompt}
    else:
        body = {"model": "gpt-3.5-turbo-instruct", "prompt": prompt, "max_tokens": 1}
    response, refusal = await gateway.post(path, body)
    assert response.status == 413, refusal
    assert upstream.requests == []


async def test_a_path_that_no_format_knows_costs_a_request_and_what_it_reports(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    usage = {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}
    upstream.default = plain({"object": "something.new", "usage": usage})
    limits = ({"tokens": 150, "per": "day"}, {"requests": 3, "per": "day"})
    gateway = await start_gateway(config(upstream, budget(*limits)))
    # Nobody can know beforehand what it costs: it is charged afterwards, and past the limit nothing else fits.
    assert [(await gateway.post("/v1/something-new", {}))[0].status for _ in range(3)] == [200, 200, 429]
    assert (await gateway.budget())["used"] == 200
    assert (await gateway.budget(unit="requests"))["used"] == 2
    assert (await gateway.post(CHAT_PATH, ask(max_tokens=1)))[0].status == 429
    assert len(upstream.requests) == 2


@pytest.mark.parametrize(
    "path",
    [
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/./chat/completions",
        "/v1/x/../chat/completions",
        "/v1/chat/completions/",
        "/V1/Chat/Completions",
        "/v1%2fchat%2Fcompletions",
        "/v1/chat%252fcompletions",
        "/v1/chat/completions;v=1",
        "/v1;a=b/chat/completions",
        "/v1/chat/completions%20",
        "/v1/chat/completions%00",
        "/v1/chat/completions%0a",
        "/v1%5cchat%5ccompletions",
        "/v1/%63hat/completions",
        "/openai/deployments/gpt-4o/Chat/Completions",
    ],
)
async def test_a_path_written_another_way_meets_the_same_budget(
    start_gateway: StartGateway, upstream: FakeUpstream, path: str
) -> None:
    gateway = await start_gateway(config(upstream, budget({"tokens": 100, "per": "day"})))
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    body = json.dumps(ask(max_tokens=1000)).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    assert int((await reader.readline()).split()[1]) in (400, 404, 413)
    assert upstream.requests == []
    writer.close()
    await writer.wait_closed()


async def test_concurrent_requests_cannot_pass_a_limit_together(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    """Each fits alone while the others are still being answered."""
    go_on = asyncio.Event()

    async def wait(number: int) -> None:
        await go_on.wait()

    usage = {"prompt_tokens": INPUT, "completion_tokens": 11, "total_tokens": 20}
    upstream.default = stream(*chat_events("Hi", usage=usage), between=wait)
    gateway = await start_gateway(config(upstream, budget({"tokens": 100, "per": "minute"})))

    async def one() -> int:
        response, _ = await gateway.post(CHAT_PATH, ask(max_tokens=11, stream=True))
        return int(response.status)

    asked = [asyncio.create_task(one()) for _ in range(40)]
    while sum(task.done() for task in asked) < 35:
        await asyncio.sleep(0.005)
    go_on.set()
    statuses = await asyncio.gather(*asked)
    assert (statuses.count(200), statuses.count(429)) == (5, 35)
    assert len(upstream.requests) == 5
    assert await settled(gateway) == 100


async def test_requests_without_a_cap_are_not_starved_by_their_hold(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    """Less is left than such a request usually holds: it passes with what is left."""
    upstream.default = plain(chat(prompt_tokens=INPUT, completion_tokens=3))
    gateway = await start_gateway(config(upstream, budget({"tokens": 60, "per": "day"}), output_hold_floor=1000))
    statuses = [(await gateway.post(CHAT_PATH, ask()))[0].status for _ in range(6)]
    assert statuses == [200, 200, 200, 200, 200, 429]
    assert await settled(gateway) == 60


@pytest.mark.parametrize("asked_for_usage", [False, True])
async def test_a_stream_that_its_caller_cancels_is_neither_free_nor_held_for_ever(
    start_gateway: StartGateway, upstream: FakeUpstream, asked_for_usage: bool
) -> None:
    gateway = await start_gateway(config(upstream, budget({"tokens": 10_000, "per": "day"})))
    events = chat_events("one two three four five", usage=None)
    upstream.enqueue(stream(events[0], then=end("hang")))
    body = ask(max_tokens=5000, stream=True)
    if asked_for_usage:
        body["stream_options"] = {"include_usage": True}
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as client:
        response = await client.post(gateway.url + CHAT_PATH, json=body)
        await response.content.readline()
        response.close()
    assert await settled(gateway) == INPUT + 5
    assert gateway.runtime.engine.in_flight == 0


async def test_a_caller_that_left_before_the_head_is_still_charged_as_reported_when_draining(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    server = {"host": "127.0.0.1", "on_disconnect": "drain"}
    gateway = await start_gateway(config(upstream, budget({"tokens": 10_000, "per": "day"}), server=server))
    gone = asyncio.Event()
    usage = {"prompt_tokens": INPUT, "completion_tokens": 40, "total_tokens": INPUT + 40}
    answer = stream(*chat_events("one", "two", usage=usage))

    async def late(connection: Any, received: Any) -> None:
        await gone.wait()
        await answer(connection, received)

    upstream.enqueue(late)
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    body = json.dumps(ask(max_tokens=50, stream=True)).encode()
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    while not upstream.requests:
        await asyncio.sleep(0.005)
    writer.transport.abort()
    await asyncio.sleep(0.05)
    gone.set()
    assert await settled(gateway) == INPUT + 40


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_without_usage_refunds_nothing_that_was_used(
    start_gateway: StartGateway, upstream: FakeUpstream, streamed: bool
) -> None:
    gateway = await start_gateway(config(upstream, budget({"tokens": 10_000, "per": "day"})))
    text = " word" * 40
    silent = {key: value for key, value in chat(text).items() if key != "usage"}
    upstream.enqueue(stream(*chat_events(text)) if streamed else plain(silent))
    assert (await gateway.post(CHAT_PATH, ask(max_tokens=500, stream=streamed)))[0].status == 200
    assert await settled(gateway) == INPUT + 40


async def test_a_refund_lands_in_the_window_that_was_held(
    start_gateway: StartGateway, upstream: FakeUpstream, clock: FakeClock
) -> None:
    gateway = await start_gateway(config(upstream, budget({"tokens": 200, "per": "minute"})))
    usage = {"prompt_tokens": INPUT, "completion_tokens": 1, "total_tokens": INPUT + 1}

    async def roll_over(number: int) -> None:
        if number == 1:
            clock.advance(60)

    upstream.enqueue(stream(*chat_events("Hi", usage=usage), between=roll_over))
    assert (await gateway.post(CHAT_PATH, ask(max_tokens=150, stream=True)))[0].status == 200
    # The new minute holds 200 and not one more, though 149 were given back within it.
    upstream.default = plain(chat(prompt_tokens=INPUT, completion_tokens=91))
    statuses = [(await gateway.post(CHAT_PATH, ask(max_tokens=91)))[0].status for _ in range(3)]
    assert statuses == [200, 200, 429]
    counters = {row.slot: row.used for row in await gateway.runtime.engine.store.counters()}
    assert sorted(counters.values()) == [INPUT + 1, 200]


async def test_an_answer_that_outgrows_its_hold_leaves_its_debt_in_the_budget(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    upstream.enqueue(plain(chat(prompt_tokens=INPUT, completion_tokens=500)))
    gateway = await start_gateway(config(upstream, budget({"tokens": 100, "per": "day"}), output_hold=10))
    assert (await gateway.post(CHAT_PATH, ask()))[0].status == 200
    assert await settled(gateway) == INPUT + 500
    assert (await gateway.post(CHAT_PATH, ask(max_tokens=1)))[0].status == 429
    assert len(upstream.requests) == 1


async def test_retry_after_is_what_is_left_of_the_window(
    start_gateway: StartGateway, upstream: FakeUpstream, clock: FakeClock
) -> None:
    clock.now = 1_800_000_000.0 + 53
    gateway = await start_gateway(config(upstream, budget({"requests": 1, "per": "minute"})))
    assert (await gateway.post(CHAT_PATH, ask(max_tokens=1)))[0].status == 200
    response, _ = await gateway.post(CHAT_PATH, ask(max_tokens=1))
    assert response.status == 429
    wait_ms = int(response.headers["retry-after-ms"])
    assert 7_000 <= wait_ms <= 7_010
    assert int(response.headers["retry-after"]) in (7, 8)
    clock.advance(wait_ms / 1000)
    assert (await gateway.post(CHAT_PATH, ask(max_tokens=1)))[0].status == 200


async def test_the_remaining_header_moves_with_every_request(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    upstream.default = plain(chat(prompt_tokens=INPUT, completion_tokens=11))
    gateway = await start_gateway(config(upstream, budget({"tokens": 100, "per": "day"})))
    told = []
    for _ in range(3):
        response, _ = await gateway.post(CHAT_PATH, ask(max_tokens=20))
        told.append(int(response.headers["x-ratelimit-remaining-tokens"]))
    assert told == [80, 60, 40]


async def test_changing_a_limit_keeps_what_was_used(
    start_gateway: StartGateway, upstream: FakeUpstream, tmp_path: Any
) -> None:
    upstream.default = plain(chat(prompt_tokens=INPUT, completion_tokens=11))
    store = {"url": f"sqlite:///{tmp_path}/budgets.db"}
    for amount, statuses in ((60, [200, 200]), (50, [429]), (79, [200]), (80, [200]), (80, [429])):
        gateway = await start_gateway(config(upstream, budget({"tokens": amount, "per": "day"}), store=store))
        for status in statuses:
            assert (await gateway.post(CHAT_PATH, ask(max_tokens=11)))[0].status == status, amount
    assert len(upstream.requests) == 4
