"""What the official SDKs do about a refusal: wait out a full minute by themselves, give up at once on a spent month."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types

from tests.conftest import KEY, RunningGateway, StartGateway, config_for

# google-genai subclasses aiohttp's session, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

HELLO = [{"role": "user", "content": "Hello there"}]
WAIT_S = 0.8
RETRIES = 3

Ask = Callable[[], Awaitable[Any]]
"""Sends one request that answers in a word."""


class Sdk:
    """One SDK, its clients made so that they may retry; all of them are closed in the end."""

    def __init__(self) -> None:
        self._closing: list[Callable[[], Awaitable[None]]] = []

    async def ask(self, name: str, gateway: RunningGateway) -> Ask:
        if name.startswith("openai"):
            # Making a client reads certificates from disk.
            client = await asyncio.to_thread(
                openai.AsyncOpenAI, base_url=gateway.url + "/v1", api_key=KEY, max_retries=RETRIES
            )
            self._closing.append(client.close)
            if name == "openai responses":
                return lambda: client.responses.create(model="gpt-4o", input="Hello there", max_output_tokens=16)
            return lambda: client.chat.completions.create(model="gpt-4o", messages=HELLO, max_tokens=5)
        if name == "anthropic":
            messages = await asyncio.to_thread(
                anthropic.AsyncAnthropic, base_url=gateway.url, api_key=KEY, max_retries=RETRIES
            )
            self._closing.append(messages.close)
            return lambda: messages.messages.create(model="claude-sonnet-4-6", max_tokens=5, messages=HELLO)
        # This one never retries unless it is told to, and then waits as long as it is told.
        retrying = genai_types.HttpRetryOptions(attempts=RETRIES + 1, initial_delay=WAIT_S, jitter=0.1)
        options = genai_types.HttpOptions(
            base_url=gateway.url, retry_options=retrying if name == "google-genai retrying" else None
        )
        google = await asyncio.to_thread(genai.Client, api_key=KEY, http_options=options)
        self._closing.append(google.aio.aclose)
        config = genai_types.GenerateContentConfig(max_output_tokens=5)
        return lambda: google.aio.models.generate_content(
            model="gemini-2.5-flash", contents="Hello there", config=config
        )

    async def close(self) -> None:
        for close in self._closing:
            await close()


@pytest.fixture
async def sdk() -> AsyncIterator[Sdk]:
    opened = Sdk()
    yield opened
    await opened.close()


def arrived(gateway: RunningGateway) -> dict[str, int]:
    """How many requests came in, by status."""
    found: dict[str, int] = {}
    for line in gateway.runtime.metrics.render().decode().splitlines():
        if line.startswith("tollgate_requests_total"):
            status = line.partition('status="')[2].partition('"')[0]
            found[status] = found.get(status, 0) + int(float(line.rpartition(" ")[2]))
    return found


@pytest.mark.parametrize("name", ["openai", "openai responses", "anthropic", "google-genai retrying"])
async def test_a_full_minute_is_waited_out_and_then_it_passes(start_gateway: StartGateway, sdk: Sdk, name: str) -> None:
    """The minute ends soon: one refusal tells how long, and the very next try passes."""
    started = asyncio.Event()
    begun = 0.0

    def clock() -> float:
        # Stands still shortly before the minute's end until the second request is sent.
        return 1_800_000_060.0 - WAIT_S + (time.perf_counter() - begun if started.is_set() else 0.0)

    budgets = [{"name": "minute", "each": "key", "limits": [{"requests": 1, "per": "minute"}]}]
    gateway = await start_gateway(config_for(budgets=budgets), clock=clock)
    ask = await sdk.ask(name, gateway)
    await ask()
    begun = time.perf_counter()
    started.set()
    await ask()
    waited_s = time.perf_counter() - begun
    assert arrived(gateway) == {"200": 2, "429": 1}
    assert WAIT_S <= waited_s < WAIT_S + 1.5


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("openai", openai.RateLimitError),
        ("openai responses", openai.RateLimitError),
        ("anthropic", anthropic.RateLimitError),
        ("google-genai", genai_errors.ClientError),
    ],
)
async def test_a_spent_month_fails_at_once_with_a_single_request(
    start_gateway: StartGateway, sdk: Sdk, name: str, error: type[Exception]
) -> None:
    budgets = [{"name": "month", "each": "key", "limits": [{"requests": 1, "per": "month"}]}]
    gateway = await start_gateway(config_for(budgets=budgets))
    ask = await sdk.ask(name, gateway)
    await ask()
    begun = time.perf_counter()
    with pytest.raises(error) as caught:
        await ask()
    assert time.perf_counter() - begun < 0.4
    assert arrived(gateway) == {"200": 1, "429": 1}
    assert "month" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("openai", openai.APIStatusError),
        ("anthropic", anthropic.APIStatusError),
        ("google-genai retrying", genai_errors.ClientError),
    ],
)
async def test_a_request_that_can_never_fit_is_sent_once(
    start_gateway: StartGateway, sdk: Sdk, name: str, error: type[Exception]
) -> None:
    budgets = [{"name": "tiny", "each": "key", "limits": [{"tokens": 3, "per": "minute"}]}]
    gateway = await start_gateway(config_for(budgets=budgets))
    ask = await sdk.ask(name, gateway)
    with pytest.raises(error):
        await ask()
    assert arrived(gateway) == {"413": 1}
