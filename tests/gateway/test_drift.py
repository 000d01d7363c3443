"""A host that hides a prompt is found out by its bills, and its next requests are held in full."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import RunningGateway, StartGateway, config_for
from tests.fakes import Connection, FakeUpstream, Received, Script, chat, plain

HIDDEN = 199
ANSWER = 3
TEXTS = [f"Tell me about the number {n}." + " Please." * n for n in range(40)]


def request(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], "max_tokens": 10, **more}


def billing(counts: dict[str, int], extra: int) -> Script:
    """Answer and bill the prompt's true tokens and `extra` more."""

    async def script(connection: Connection, received: Received) -> None:
        text = received.json["messages"][0]["content"]
        await plain(chat(prompt_tokens=counts[text] + extra, completion_tokens=ANSWER))(connection, received)

    return script


@pytest.fixture
async def counts(counter: Any) -> dict[str, int]:
    """The plain count of every text."""
    from gateway.formats import match
    from gateway.formats.fields import write_object

    found = match("POST", "/v1/chat/completions")
    assert found is not None
    fmt, route, groups = found
    prompts = {text: fmt.parse(route, groups, write_object(request(text))).prompt for text in TEXTS}
    return await asyncio.to_thread(
        lambda: {text: counter.count("gpt-4o", prompt).input_tokens for text, prompt in prompts.items()}
    )


@pytest.fixture
async def gateway(start_gateway: StartGateway, upstream: FakeUpstream) -> RunningGateway:
    # The platform is left open, so that no overhead is known beforehand.
    host = {"name": "host", "url": upstream.url + "/v1", "api_key": "sk-up"}
    return await start_gateway(config_for(upstreams=[host]))


async def ask(gateway: RunningGateway, text: str, **more: Any) -> Any:
    response, _ = await gateway.post("/v1/chat/completions", request(text, **more))
    assert response.status == 200
    return response


async def held_for(gateway: RunningGateway, upstream: FakeUpstream, text: str) -> int:
    """Tokens held while a request is on its way."""
    arrived, answered = asyncio.Event(), asyncio.Event()

    async def wait(connection: Connection, received: Received) -> None:
        arrived.set()
        await answered.wait()
        await plain(chat(prompt_tokens=1, completion_tokens=1), status=500)(connection, received)

    upstream.enqueue(wait)
    sent = asyncio.create_task(gateway.post("/v1/chat/completions", request(text)))
    await arrived.wait()
    held = (await gateway.budget())["held"]
    answered.set()
    await sent
    return int(held)


async def observed(gateway: RunningGateway) -> dict[str, Any]:
    _, models = await gateway.get("/models", key=None)
    return next(row for row in models["data"] if row["id"] == "gpt-4o")["observed"]


async def test_a_hidden_prompt_is_held_within_twenty_requests(
    gateway: RunningGateway, upstream: FakeUpstream, counts: dict[str, int]
) -> None:
    upstream.default = billing(counts, HIDDEN)
    assert await held_for(gateway, upstream, TEXTS[0]) == counts[TEXTS[0]] + 10
    for text in TEXTS[:20]:
        await ask(gateway, text)
    for text in TEXTS[20:24]:
        response = await ask(gateway, text)
        assert int(response.headers["x-tollgate-input-tokens"]) == counts[text] + HIDDEN
        assert response.headers["x-tollgate-accuracy"] == "bounded"
    assert await held_for(gateway, upstream, TEXTS[30]) == counts[TEXTS[30]] + HIDDEN + 10


async def test_learning_never_changes_what_was_charged(
    gateway: RunningGateway, upstream: FakeUpstream, counts: dict[str, int]
) -> None:
    upstream.default = billing(counts, HIDDEN)
    used = 0
    for text in TEXTS[:30]:
        await ask(gateway, text)
        used += counts[text] + HIDDEN + ANSWER
        assert (await gateway.budget())["used"] == used  # the bill, before, while and after it is learned
    assert (await gateway.budget())["held"] == 0


async def test_one_poisoned_bill_changes_nothing(
    gateway: RunningGateway, upstream: FakeUpstream, counts: dict[str, int]
) -> None:
    upstream.default = billing(counts, 0)
    for text in TEXTS[:12]:
        await ask(gateway, text)
    upstream.enqueue(billing(counts, 15_000))
    await ask(gateway, TEXTS[12])
    response = await ask(gateway, TEXTS[13])
    assert int(response.headers["x-tollgate-input-tokens"]) == counts[TEXTS[13]]
    assert response.headers["x-tollgate-accuracy"] == "exact"
    assert await held_for(gateway, upstream, TEXTS[14]) == counts[TEXTS[14]] + 10


async def test_one_poisoned_bill_does_not_unlearn_a_hidden_prompt(
    gateway: RunningGateway, upstream: FakeUpstream, counts: dict[str, int]
) -> None:
    upstream.default = billing(counts, HIDDEN)
    for text in TEXTS[:20]:
        await ask(gateway, text)
    upstream.enqueue(billing(counts, 15_000))
    await ask(gateway, TEXTS[20])
    response = await ask(gateway, TEXTS[21])
    assert int(response.headers["x-tollgate-input-tokens"]) == counts[TEXTS[21]] + HIDDEN


async def test_models_shows_what_bills_have_taught(
    gateway: RunningGateway, upstream: FakeUpstream, counts: dict[str, int]
) -> None:
    upstream.default = billing(counts, 0)
    for text in TEXTS[:5]:
        await ask(gateway, text)
    upstream.default = billing(counts, HIDDEN)
    for text in TEXTS[5:25]:
        await ask(gateway, text)
    found = await observed(gateway)
    assert (found["n"], found["exact_share"], found["mean_drift"]) == (25, 0.2, round(20 * HIDDEN / 25, 2))
    assert found["learned"] == [
        {
            "upstream": "host",
            "model": "gpt-4o",
            "features": ["text"],
            "kind": "overhead",
            "factor": 1.0,
            "tokens": HIDDEN,
        }
    ]


async def test_what_is_learned_of_tools_is_not_applied_to_text(
    gateway: RunningGateway, upstream: FakeUpstream, counts: dict[str, int]
) -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
    first = await ask(gateway, TEXTS[0], tools=tools)
    shown = int(first.headers["x-tollgate-input-tokens"]) - counts[TEXTS[0]]
    upstream.default = billing(counts, shown + HIDDEN)
    for text in TEXTS[:20]:
        await ask(gateway, text, tools=tools)
    with_tools = await ask(gateway, TEXTS[21], tools=tools)
    without = await ask(gateway, TEXTS[21])
    assert int(with_tools.headers["x-tollgate-input-tokens"]) == counts[TEXTS[21]] + shown + HIDDEN
    assert int(without.headers["x-tollgate-input-tokens"]) == counts[TEXTS[21]]
