"""LlamaIndex with its OpenAI-compatible model and embeddings."""

from __future__ import annotations

from typing import Any

import openai
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI, OpenAIResponses
from llama_index.llms.openai_like import OpenAILike
from reporting import HELLO, LONG, PIECES, PIXEL, SCHEMA, WEATHER, expect, raises, run


def model(url: str, key: str) -> Any:
    return OpenAILike(
        model="gpt-4o", api_base=url + "/v1", api_key=key, is_chat_model=True, is_function_calling_model=True
    )


def chat(url: str, key: str) -> None:
    answer = OpenAI(model="gpt-4o", api_base=url + "/v1", api_key=key).chat([ChatMessage(content=HELLO)])
    expect(answer.message.content == HELLO, answer)


def streaming(url: str, key: str) -> None:
    text = "".join(chunk.delta or "" for chunk in model(url, key).stream_chat([ChatMessage(content=HELLO)]))
    expect(text == HELLO, text)


def tools(url: str, key: str) -> None:
    def get_weather(city: str, days: int) -> str:
        return f"{days} days of sun in {city}"

    llm = model(url, key)
    answer = llm.chat_with_tools([FunctionTool.from_defaults(get_weather)], user_msg=WEATHER)
    (call,) = llm.get_tool_calls_from_response(answer)
    expect(set(call.tool_kwargs) == set(SCHEMA["required"]), call)


def images(url: str, key: str) -> None:
    message = ChatMessage(blocks=[TextBlock(text=HELLO), ImageBlock(image=PIXEL.encode(), image_mimetype="image/png")])
    expect(model(url, key).chat([message]).message.content == HELLO)


def embeddings(url: str, key: str) -> None:
    maker = OpenAIEmbedding(model="text-embedding-3-small", api_base=url + "/v1", api_key=key)
    expect(len(maker.get_text_embedding_batch([HELLO, "Other"])) == 2)


def responses(url: str, key: str) -> None:
    llm = OpenAIResponses(model="gpt-4o", api_base=url + "/v1", api_key=key)
    expect(llm.chat([ChatMessage(content=HELLO)]).message.content == HELLO)


def errors(url: str, key: str) -> None:
    raises(openai.RateLimitError, lambda: model(url, key).chat([ChatMessage(content=HELLO)]))


def cancellation(url: str, key: str) -> dict[str, str]:
    pieces = []
    stream = model(url, key).stream_chat([ChatMessage(content=LONG)])
    for chunk in stream:
        pieces.append(chunk.delta or "")
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
