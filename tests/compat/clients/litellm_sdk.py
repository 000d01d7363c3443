"""The litellm package as a library."""

from __future__ import annotations

import json
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from reporting import CHAT_TOOL, HELLO, LONG, PIECES, SCHEMA, SEES, WEATHER, expect, raises, run


def complete(url: str, key: str, content: Any, **options: Any) -> Any:
    return litellm.completion(
        model="openai/gpt-4o",
        api_base=url + "/v1",
        api_key=key,
        messages=[{"role": "user", "content": content}],
        **options,
    )


def chat(url: str, key: str) -> None:
    answer = complete(url, key, HELLO)
    expect(answer.choices[0].message.content == HELLO, answer)


def streaming(url: str, key: str) -> None:
    stream = complete(url, key, HELLO, stream=True)
    expect("".join(chunk.choices[0].delta.content or "" for chunk in stream) == HELLO)


def tools(url: str, key: str) -> None:
    call = complete(url, key, WEATHER, tools=[CHAT_TOOL]).choices[0].message.tool_calls[0]
    expect(set(json.loads(call.function.arguments)) == set(SCHEMA["required"]), call)


def images(url: str, key: str) -> None:
    expect(complete(url, key, SEES).choices[0].message.content == HELLO)


def embeddings(url: str, key: str) -> None:
    answer = litellm.embedding(
        model="openai/text-embedding-3-small", api_base=url + "/v1", api_key=key, input=[HELLO, "Other"]
    )
    expect(len(answer.data) == 2)


def responses(url: str, key: str) -> None:
    answer = litellm.responses(model="openai/gpt-4o", api_base=url + "/v1", api_key=key, input=HELLO)
    expect(answer.output[0].content[0].text == HELLO, answer)


def errors(url: str, key: str) -> None:
    raises(litellm.RateLimitError, lambda: complete(url, key, HELLO))


def cancellation(url: str, key: str) -> dict[str, str]:
    stream = complete(url, key, LONG, stream=True)
    pieces = []
    for chunk in stream:
        pieces.append(chunk.choices[0].delta.content or "")
        if len(pieces) == PIECES:
            break
    stream.completion_stream.close()
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
)
