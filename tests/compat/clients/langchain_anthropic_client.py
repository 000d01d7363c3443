"""LangChain with langchain-anthropic."""

from __future__ import annotations

import anthropic
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage
from reporting import HELLO, LONG, PIECES, SCHEMA, SEES, WEATHER, expect, raises, run


def model(url: str, key: str) -> ChatAnthropic:
    return ChatAnthropic(model="claude-sonnet-4-5", base_url=url, api_key=key, max_tokens=200)


def chat(url: str, key: str) -> None:
    answer = model(url, key).invoke(HELLO)
    expect(answer.content == HELLO, answer)


def streaming(url: str, key: str) -> None:
    text = "".join(str(chunk.text) for chunk in model(url, key).stream(HELLO))
    expect(text == HELLO, text)


def tools(url: str, key: str) -> None:
    tool = {"name": "get_weather", "description": "The weather", "input_schema": SCHEMA}
    answer = model(url, key).bind_tools([tool]).invoke(WEATHER)
    expect(set(answer.tool_calls[0]["args"]) == set(SCHEMA["required"]), answer)


def images(url: str, key: str) -> None:
    expect(model(url, key).invoke([HumanMessage(content=SEES)]).content == HELLO)


def errors(url: str, key: str) -> None:
    raises(anthropic.RateLimitError, lambda: model(url, key).invoke(HELLO))


def cancellation(url: str, key: str) -> dict[str, str]:
    pieces: list[str] = []
    stream = model(url, key).stream(LONG)
    for chunk in stream:
        pieces += [str(chunk.text)] if chunk.text else []
        if len(pieces) == PIECES:
            break
    stream.close()
    return {"text": "".join(pieces)}


run(chat=chat, streaming=streaming, tools=tools, images=images, errors=errors, cancellation=cancellation)
