"""The official SDKs, unmodified but for the base URL, through Tollgate against `echo:`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types
from pydantic import BaseModel

from tests.conftest import KEY, RunningGateway, StartGateway, config_for

# google-genai subclasses aiohttp's session, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

HELLO = [{"role": "user", "content": "Hello there, how are you?"}]
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}},
    "required": ["city", "days"],
}
ASKS = [{"role": "user", "content": "What is the weather in Paris?"}]
CHAT_TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather", "parameters": WEATHER},
}
SPENT = [{"name": "month", "each": "key", "limits": [{"tokens": 40, "per": "month"}], "output_hold": 1}]


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    return await start_gateway()


@pytest.fixture
async def spent(start_gateway: StartGateway) -> RunningGateway:
    """A gateway whose caller has used up its month."""
    gateway = await start_gateway(config_for(budgets=SPENT))
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "word " * 12}], "max_tokens": 12}
    response, _ = await gateway.post("/v1/chat/completions", body)
    assert response.status == 200
    return gateway


@pytest.fixture
async def openai_client(gateway: RunningGateway) -> AsyncIterator[openai.AsyncOpenAI]:
    # Making a client reads certificates from disk.
    client = await asyncio.to_thread(openai.AsyncOpenAI, base_url=gateway.url + "/v1", api_key=KEY)
    yield client
    await client.close()


@pytest.fixture
async def anthropic_client(gateway: RunningGateway) -> AsyncIterator[anthropic.AsyncAnthropic]:
    client = await asyncio.to_thread(anthropic.AsyncAnthropic, base_url=gateway.url, api_key=KEY)
    yield client
    await client.close()


async def make_genai(gateway: RunningGateway) -> genai.Client:
    return await asyncio.to_thread(
        genai.Client, api_key=KEY, http_options=genai_types.HttpOptions(base_url=gateway.url)
    )


@pytest.fixture
async def genai_client(gateway: RunningGateway) -> AsyncIterator[genai.Client]:
    client = await make_genai(gateway)
    yield client
    await client.aio.aclose()


async def used(gateway: RunningGateway) -> int:
    budget = await gateway.budget()
    assert budget["held"] == 0
    return int(budget["used"])


async def test_openai_chat(gateway: RunningGateway, openai_client: openai.AsyncOpenAI) -> None:
    raw = await openai_client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)
    answer = raw.parse()
    assert answer.choices[0].message.content == HELLO[0]["content"]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == int(raw.headers["x-tollgate-input-tokens"]) == 14
    assert answer.usage.completion_tokens == 7
    assert await used(gateway) == answer.usage.total_tokens


async def test_openai_chat_with_a_cap_and_choices(gateway: RunningGateway, openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.create(model="gpt-4o", messages=HELLO, max_tokens=3, n=2)
    assert [choice.finish_reason for choice in answer.choices] == ["length", "length"]
    assert answer.choices[0].message.content == "Hello there,"
    assert answer.usage.completion_tokens == 6
    assert await used(gateway) == answer.usage.total_tokens


@pytest.mark.parametrize("with_usage", [True, False])
async def test_openai_streaming_chat(
    gateway: RunningGateway, openai_client: openai.AsyncOpenAI, with_usage: bool
) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if with_usage else {}
    stream = await openai_client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True, **options)
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == HELLO[0]["content"]
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == ([21] if with_usage else [])
    assert await used(gateway) == 21


async def test_openai_tools(gateway: RunningGateway, openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.create(model="gpt-4o", messages=ASKS, tools=[CHAT_TOOL])
    call = answer.choices[0].message.tool_calls[0]
    assert answer.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "city", "days": 2}
    messages = [
        *ASKS,
        answer.choices[0].message.to_dict(),
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 21 degrees"},
    ]
    answer = await openai_client.chat.completions.create(model="gpt-4o", messages=messages, tools=[CHAT_TOOL])
    assert answer.choices[0].message.content == "Sunny, 21 degrees"


async def test_openai_streamed_tools(gateway: RunningGateway, openai_client: openai.AsyncOpenAI) -> None:
    async with openai_client.chat.completions.stream(
        model="gpt-4o", messages=HELLO, tools=[CHAT_TOOL], tool_choice="required"
    ) as stream:
        answer = await stream.get_final_completion()
    assert json.loads(answer.choices[0].message.tool_calls[0].function.arguments) == {"city": "city", "days": 2}
    assert await used(gateway) > 0


class Person(BaseModel):
    name: str
    age: int


async def test_openai_structured_output(gateway: RunningGateway, openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.parse(model="gpt-4o", messages=HELLO, response_format=Person)
    assert answer.choices[0].message.parsed == Person(name="name", age=1)


async def test_openai_embeddings(gateway: RunningGateway, openai_client: openai.AsyncOpenAI) -> None:
    model = "text-embedding-3-small"
    answer = await openai_client.embeddings.create(model=model, input=["Hello there", "Hello there", "Other"])
    assert [len(each.embedding) for each in answer.data] == [1536] * 3
    assert answer.data[0].embedding == answer.data[1].embedding != answer.data[2].embedding
    floats = await openai_client.embeddings.create(
        model=model, input="Hello there", encoding_format="float", dimensions=8
    )
    assert len(floats.data[0].embedding) == 8
    assert answer.usage.prompt_tokens == 5
    assert await used(gateway) == 5 + 2


async def test_openai_completions(gateway: RunningGateway, openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Say this", max_tokens=9)
    assert answer.choices[0].text == "Say this"
    stream = await openai_client.completions.create(
        model="gpt-3.5-turbo-instruct", prompt="Say this", max_tokens=9, stream=True
    )
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "Say this"
    assert await used(gateway) == 8


async def test_openai_responses(gateway: RunningGateway, openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.responses.create(model="gpt-4o", input="Hello there", instructions="Be kind.")
    assert answer.output_text == "Hello there"
    assert await used(gateway) == answer.usage.total_tokens
    counted = await openai_client.responses.input_tokens.count(
        model="gpt-4o", input="Hello there", instructions="Be kind."
    )
    assert counted.input_tokens == answer.usage.input_tokens


async def test_openai_streaming_responses(gateway: RunningGateway, openai_client: openai.AsyncOpenAI) -> None:
    async with openai_client.responses.stream(model="gpt-4o", input="Hello there") as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert kinds[0] == "response.created"
    assert "response.output_text.delta" in kinds
    assert final.output_text == "Hello there"
    assert await used(gateway) == final.usage.total_tokens


async def test_openai_responses_tools(gateway: RunningGateway, openai_client: openai.AsyncOpenAI) -> None:
    tool = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": False}
    answer = await openai_client.responses.create(
        model="gpt-4o", input="Hello", tools=[tool], tool_choice={"type": "function", "name": "get_weather"}
    )
    assert answer.output[0].type == "function_call"
    assert json.loads(answer.output[0].arguments) == {"city": "city", "days": 2}
    async with openai_client.responses.stream(
        model="gpt-4o", input="Hello", tools=[tool], tool_choice="required"
    ) as stream:
        final = await stream.get_final_response()
    assert final.output[0].name == "get_weather"


async def test_openai_models(gateway: RunningGateway, openai_client: openai.AsyncOpenAI) -> None:
    assert "gpt-4o" in {model.id async for model in openai_client.models.list()}


async def test_anthropic_messages(gateway: RunningGateway, anthropic_client: anthropic.AsyncAnthropic) -> None:
    answer = await anthropic_client.messages.create(model="claude-sonnet-4-6", max_tokens=50, messages=HELLO)
    assert answer.content[0].text == HELLO[0]["content"]
    assert answer.stop_reason == "end_turn"
    assert await used(gateway) == answer.usage.input_tokens + answer.usage.output_tokens
    counted = await anthropic_client.messages.count_tokens(model="claude-sonnet-4-6", messages=HELLO)
    assert counted.input_tokens == answer.usage.input_tokens


async def test_anthropic_streaming(gateway: RunningGateway, anthropic_client: anthropic.AsyncAnthropic) -> None:
    async with anthropic_client.messages.stream(model="claude-sonnet-4-6", max_tokens=50, messages=HELLO) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()
    assert text == HELLO[0]["content"]
    assert await used(gateway) == final.usage.input_tokens + final.usage.output_tokens


@pytest.mark.parametrize("streamed", [False, True])
async def test_anthropic_tools(
    gateway: RunningGateway, anthropic_client: anthropic.AsyncAnthropic, streamed: bool
) -> None:
    request: dict[str, Any] = {
        "model": "claude-sonnet-4-6",
        "max_tokens": 50,
        "messages": ASKS,
        "tools": [{"name": "get_weather", "input_schema": WEATHER}],
    }
    if streamed:
        async with anthropic_client.messages.stream(**request) as stream:
            answer = await stream.get_final_message()
    else:
        answer = await anthropic_client.messages.create(**request)
    assert answer.stop_reason == "tool_use"
    assert answer.content[0].input == {"city": "city", "days": 2}
    assert await used(gateway) == answer.usage.input_tokens + answer.usage.output_tokens


async def test_gemini_generate_content(gateway: RunningGateway, genai_client: genai.Client) -> None:
    answer = await genai_client.aio.models.generate_content(model="gemini-2.5-flash", contents="Hello there")
    assert answer.text == "Hello there"
    assert await used(gateway) == answer.usage_metadata.total_token_count
    counted = await genai_client.aio.models.count_tokens(model="gemini-2.5-flash", contents="Hello there")
    assert counted.total_tokens == answer.usage_metadata.prompt_token_count


async def test_gemini_streaming(gateway: RunningGateway, genai_client: genai.Client) -> None:
    stream = await genai_client.aio.models.generate_content_stream(model="gemini-2.5-flash", contents="Hello there")
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.text for chunk in chunks) == "Hello there"
    assert await used(gateway) == chunks[-1].usage_metadata.total_token_count


async def test_gemini_tools(gateway: RunningGateway, genai_client: genai.Client) -> None:
    declaration = genai_types.FunctionDeclaration(name="get_weather", parameters_json_schema=WEATHER)
    config = genai_types.GenerateContentConfig(tools=[genai_types.Tool(function_declarations=[declaration])])
    answer = await genai_client.aio.models.generate_content(
        model="gemini-2.5-flash", contents="What is the weather in Paris?", config=config
    )
    assert answer.function_calls[0].name == "get_weather"
    assert answer.function_calls[0].args == {"city": "city", "days": 2}
    assert await used(gateway) == answer.usage_metadata.total_token_count


async def test_gemini_embeddings(gateway: RunningGateway, genai_client: genai.Client) -> None:
    config = genai_types.EmbedContentConfig(output_dimensionality=16)
    answer = await genai_client.aio.models.embed_content(
        model="gemini-embedding-001", contents=["Hello there", "Other"], config=config
    )
    assert [len(each.values) for each in answer.embeddings] == [16, 16]
    assert await used(gateway) > 0


async def test_openai_raises_its_rate_limit_error_at_once_when_the_month_is_spent(spent: RunningGateway) -> None:
    client = await asyncio.to_thread(openai.AsyncOpenAI, base_url=spent.url + "/v1", api_key=KEY, max_retries=5)
    started = time.perf_counter()
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model="gpt-4o", messages=HELLO, max_tokens=5)
    with pytest.raises(openai.RateLimitError):
        await client.responses.create(model="gpt-4o", input="Hello there", max_output_tokens=16)
    assert time.perf_counter() - started < 0.5
    assert caught.value.code == "insufficient_quota"
    assert refusals(spent) == 2
    await client.close()


async def test_anthropic_raises_its_rate_limit_error_at_once_when_the_month_is_spent(spent: RunningGateway) -> None:
    client = await asyncio.to_thread(anthropic.AsyncAnthropic, base_url=spent.url, api_key=KEY, max_retries=5)
    started = time.perf_counter()
    with pytest.raises(anthropic.RateLimitError) as caught:
        await client.messages.create(model="claude-sonnet-4-6", max_tokens=1, messages=HELLO[:1])
    assert time.perf_counter() - started < 0.5
    assert caught.value.body["error"]["type"] == "rate_limit_error"
    assert refusals(spent) == 1
    await client.close()


async def test_gemini_raises_its_client_error_at_once_when_the_month_is_spent(spent: RunningGateway) -> None:
    client = await make_genai(spent)
    config = genai_types.GenerateContentConfig(max_output_tokens=20)
    started = time.perf_counter()
    with pytest.raises(genai_errors.ClientError) as caught:
        await client.aio.models.generate_content(model="gemini-2.5-flash", contents="Hello there", config=config)
    assert time.perf_counter() - started < 0.5
    assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")
    assert refusals(spent) == 1
    await client.aio.aclose()


async def test_openai_waits_out_a_minute_that_is_full(start_gateway: StartGateway) -> None:
    budgets = [{"name": "minute", "limits": [{"requests": 1, "per": "minute"}]}]
    offset = 1_800_000_059.7 - time.time()
    gateway = await start_gateway(config_for(budgets=budgets), clock=lambda: time.time() + offset)
    client = await asyncio.to_thread(openai.AsyncOpenAI, base_url=gateway.url + "/v1", api_key=KEY, max_retries=2)
    for _ in range(2):
        answer = await client.chat.completions.create(model="gpt-4o", messages=HELLO, max_tokens=5)
        assert answer.usage.completion_tokens == 5
    assert refusals(gateway) <= 2
    await client.close()


def refusals(gateway: RunningGateway) -> int:
    """How many requests the gateway has refused so far: a retry would count again."""
    text = gateway.runtime.metrics.render().decode()
    lines = [line for line in text.splitlines() if line.startswith("tollgate_refusals_total")]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))
