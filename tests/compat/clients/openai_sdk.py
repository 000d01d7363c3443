"""The openai package; also the client of every program that speaks OpenAI's API."""

from __future__ import annotations

import json
import os
from typing import Any

import openai
from reporting import CHAT_TOOL, HELLO, LONG, PIECES, SCHEMA, SEES, WEATHER, expect, raises, run


def client(url: str, key: str, **options: Any) -> openai.OpenAI:
    # Programs with keys of their own are told whose request this is beside them.
    return openai.OpenAI(base_url=url + "/v1", api_key=key, default_headers={"x-tollgate-key": key}, **options)


def extra(key: str) -> dict[str, str]:
    """A LiteLLM proxy hands on a key that stands in the body."""
    return {"api_key": key} if os.environ.get("COMPAT_KEY_IN_BODY") else {}


def ask(text: Any) -> Any:
    return [{"role": "user", "content": text}]


def chat(url: str, key: str) -> None:
    answer = client(url, key).chat.completions.create(model="gpt-4o", messages=ask(HELLO), extra_body=extra(key))
    expect(answer.choices[0].message.content == HELLO, answer)


def streaming(url: str, key: str) -> None:
    stream = client(url, key).chat.completions.create(
        model="gpt-4o", messages=ask(HELLO), stream=True, extra_body=extra(key)
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    expect(text == HELLO, text)


def tools(url: str, key: str) -> None:
    answer = client(url, key).chat.completions.create(
        model="gpt-4o", messages=ask(WEATHER), tools=[CHAT_TOOL], extra_body=extra(key)
    )
    call = answer.choices[0].message.tool_calls[0]
    expect(set(json.loads(call.function.arguments)) == set(SCHEMA["required"]), call)


def images(url: str, key: str) -> None:
    answer = client(url, key).chat.completions.create(model="gpt-4o", messages=ask(SEES), extra_body=extra(key))
    expect(answer.choices[0].message.content == HELLO, answer)


def embeddings(url: str, key: str) -> None:
    answer = client(url, key).embeddings.create(
        model="text-embedding-3-small", input=[HELLO, "Other"], extra_body=extra(key)
    )
    expect([len(each.embedding) for each in answer.data] == [1536, 1536])


def responses(url: str, key: str) -> None:
    sdk = client(url, key)
    expect(sdk.responses.create(model="gpt-4o", input=HELLO, extra_body=extra(key)).output_text == HELLO)
    with sdk.responses.stream(model="gpt-4o", input=HELLO, extra_body=extra(key)) as stream:
        expect([event.type for event in stream][-1] == "response.completed")


def errors(url: str, key: str) -> None:
    error = raises(
        openai.RateLimitError,
        lambda: client(url, key).chat.completions.create(model="gpt-4o", messages=ask(HELLO), extra_body=extra(key)),
    )
    expect("Budget 'main'" in error.message, error)
    if not os.environ.get("COMPAT_ERRORS_REWRITTEN"):
        expect(error.body["type"] == "insufficient_quota", error)


def failure(url: str, key: str) -> None:
    sdk = client(url, key, max_retries=0)
    raises(
        openai.InternalServerError,
        lambda: sdk.chat.completions.create(model="gpt-4o", messages=ask(HELLO), extra_body=extra(key)),
    )


def cancellation(url: str, key: str) -> dict[str, str]:
    stream = client(url, key).chat.completions.create(
        model="gpt-4o", messages=ask(LONG), stream=True, extra_body=extra(key)
    )
    pieces = []
    for chunk in stream:
        pieces.append(chunk.choices[0].delta.content or "")
        if len(pieces) == PIECES:
            break
    stream.close()
    return {"text": "".join(pieces)}


run(
    chat=chat,
    streaming=streaming,
    tools=tools,
    images=images,
    embeddings=embeddings,
    responses=responses,
    errors=errors,
    cancellation=cancellation,
    failure=failure,
)
