"""LangChain with langchain-openai."""

from __future__ import annotations

from typing import Any

import openai
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from reporting import CHAT_TOOL, HELLO, LONG, PIECES, SCHEMA, SEES, WEATHER, expect, raises, run


def model(url: str, key: str, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-4o", base_url=url + "/v1", api_key=key, **options)


def chat(url: str, key: str) -> None:
    answer = model(url, key).invoke(HELLO)
    expect(answer.content == HELLO, answer)
    expect(answer.usage_metadata["output_tokens"] == 7, answer)


def streaming(url: str, key: str) -> None:
    expect("".join(chunk.content for chunk in model(url, key).stream(HELLO)) == HELLO)


def tools(url: str, key: str) -> None:
    answer = model(url, key).bind_tools([CHAT_TOOL]).invoke(WEATHER)
    expect(set(answer.tool_calls[0]["args"]) == set(SCHEMA["required"]), answer)


def images(url: str, key: str) -> None:
    expect(model(url, key).invoke([HumanMessage(content=SEES)]).content == HELLO)


def embeddings(url: str, key: str) -> None:
    # Without this it fetches a tokenizer from the internet to cut texts.
    maker = OpenAIEmbeddings(
        model="text-embedding-3-small", base_url=url + "/v1", api_key=key, check_embedding_ctx_length=False
    )
    expect([len(each) for each in maker.embed_documents([HELLO, "Other"])] == [1536, 1536])


def responses(url: str, key: str) -> None:
    answer = model(url, key, use_responses_api=True).invoke(HELLO)
    expect(answer.text == HELLO, answer)


def errors(url: str, key: str) -> None:
    raises(openai.RateLimitError, lambda: model(url, key).invoke(HELLO))


def cancellation(url: str, key: str) -> dict[str, str]:
    pieces = []
    stream = model(url, key).stream(LONG)
    for chunk in stream:
        pieces.append(chunk.content)
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
)
