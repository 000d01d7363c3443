"""The anthropic package."""

from __future__ import annotations

from typing import Any

import anthropic
from reporting import HELLO, LONG, PIECES, PIXEL, SCHEMA, WEATHER, expect, raises, run

MODEL = "claude-sonnet-4-5"


def client(url: str, key: str) -> anthropic.Anthropic:
    # Programs with keys of their own are told whose request this is beside them.
    return anthropic.Anthropic(base_url=url, api_key=key, default_headers={"x-tollgate-key": key})


def create(url: str, key: str, content: Any, **options: Any) -> Any:
    return client(url, key).messages.create(
        model=MODEL, max_tokens=200, messages=[{"role": "user", "content": content}], **options
    )


def chat(url: str, key: str) -> None:
    answer = create(url, key, HELLO)
    expect(answer.content[0].text == HELLO, answer)


def streaming(url: str, key: str) -> None:
    with client(url, key).messages.stream(
        model=MODEL, max_tokens=200, messages=[{"role": "user", "content": HELLO}]
    ) as stream:
        expect("".join(stream.text_stream) == HELLO)


def tools(url: str, key: str) -> None:
    answer = create(url, key, WEATHER, tools=[{"name": "get_weather", "input_schema": SCHEMA}])
    expect(answer.stop_reason == "tool_use", answer)
    expect(set(answer.content[0].input) == set(SCHEMA["required"]), answer)


def images(url: str, key: str) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    answer = create(url, key, [{"type": "image", "source": source}, {"type": "text", "text": HELLO}])
    expect(answer.content[0].text == HELLO, answer)


def errors(url: str, key: str) -> None:
    error = raises(anthropic.RateLimitError, lambda: create(url, key, HELLO))
    expect("Budget 'main'" in str(error), error)


def cancellation(url: str, key: str) -> dict[str, str]:
    pieces = []
    stream = create(url, key, LONG, stream=True)
    for event in stream:
        if event.type == "content_block_delta":
            pieces.append(event.delta.text)
            if len(pieces) == PIECES:
                break
    stream.close()
    return {"text": "".join(pieces)}


run(chat=chat, streaming=streaming, tools=tools, images=images, errors=errors, cancellation=cancellation)
