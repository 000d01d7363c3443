"""The google-genai package."""

from __future__ import annotations

import base64
from typing import Any

from google import genai
from google.genai import errors as genai_errors
from google.genai import types
from reporting import HELLO, LONG, PIECES, PIXEL, SCHEMA, WEATHER, expect, raises, run

MODEL = "gemini-2.5-flash"


def client(url: str, key: str) -> genai.Client:
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url))


def generate(url: str, key: str, contents: Any, **config: Any) -> Any:
    options = types.GenerateContentConfig(max_output_tokens=100, **config)
    sdk = client(url, key)
    return sdk.models.generate_content(model=MODEL, contents=contents, config=options)


def chat(url: str, key: str) -> None:
    answer = generate(url, key, HELLO)
    expect(answer.text == HELLO, answer)


def streaming(url: str, key: str) -> None:
    sdk = client(url, key)
    text = "".join(chunk.text for chunk in sdk.models.generate_content_stream(model=MODEL, contents=HELLO))
    expect(text == HELLO, text)


def tools(url: str, key: str) -> None:
    declaration = types.FunctionDeclaration(name="get_weather", parameters_json_schema=SCHEMA)
    answer = generate(url, key, WEATHER, tools=[types.Tool(function_declarations=[declaration])])
    expect(set(answer.function_calls[0].args) == set(SCHEMA["required"]), answer)


def images(url: str, key: str) -> None:
    image = types.Part.from_bytes(data=base64.b64decode(PIXEL), mime_type="image/png")
    expect(generate(url, key, [image, HELLO]).text == HELLO)


def embeddings(url: str, key: str) -> None:
    sdk = client(url, key)
    answer = sdk.models.embed_content(model="gemini-embedding-001", contents=[HELLO, "Other"])
    expect(len(answer.embeddings) == 2)


def errors(url: str, key: str) -> None:
    error = raises(genai_errors.ClientError, lambda: generate(url, key, HELLO))
    expect((error.code, error.status) == (429, "RESOURCE_EXHAUSTED"), error)


def cancellation(url: str, key: str) -> dict[str, str]:
    sdk = client(url, key)
    stream = sdk.models.generate_content_stream(model=MODEL, contents=LONG)
    pieces = []
    for chunk in stream:
        pieces.append(chunk.text or "")
        if len(pieces) == PIECES:
            break
    stream.close()
    sdk.close()
    return {"text": "".join(pieces)}


run(
    chat=chat,
    streaming=streaming,
    tools=tools,
    images=images,
    embeddings=embeddings,
    errors=errors,
    cancellation=cancellation,
)
