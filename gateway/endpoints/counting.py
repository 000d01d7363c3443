"""Direct counting: ``/calculate``, ``/batch-calculate`` and the list of models."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StrictStr

from gateway.endpoints.answers import answer, read_as, read_json
from gateway.errors import BadRequest, GatewayError
from gateway.exchange import EXCHANGE
from gateway.formats import FORMATS
from gateway.formats.fields import write_object
from gateway.runtime import RUNTIME, Runtime
from tokenizers_offline.prompt import Prompt, TextPrompt

MAX_TEXTS = 100_000
"""Texts in one batch; more would hold a worker's counting threads for too long."""

_MODEL_NAMES = AliasChoices("model_name", "model")
_CHAT = next(fmt for fmt in FORMATS if fmt.name == "openai_chat")
_CHAT_ROUTE = _CHAT.routes[0]


class CalculateRequest(BaseModel):
    """A text or a conversation to count. A conversation may bring everything a chat request may (tools, ...)."""

    model_config = ConfigDict(extra="allow")

    model_name: StrictStr = Field(validation_alias=_MODEL_NAMES, min_length=1, max_length=512)
    text: StrictStr | None = None
    messages: list[Any] | None = None


class BatchCalculateRequest(BaseModel):
    """Texts to count, each by itself."""

    model_config = ConfigDict(extra="forbid")

    model_name: StrictStr = Field(validation_alias=_MODEL_NAMES, min_length=1, max_length=512)
    texts: list[StrictStr] = Field(max_length=MAX_TEXTS)


async def calculate(request: web.Request) -> web.Response:
    """Count one text, or one conversation in OpenAI's chat form."""
    runtime = request.app[RUNTIME].current
    body = await read_json(request)
    asked = read_as(CalculateRequest, body)
    if (asked.text is None) == (asked.messages is None):
        raise BadRequest("Give either 'text' or 'messages'.", param="text", code="missing_required_parameter")
    prompt: Prompt
    if asked.text is not None:
        prompt = TextPrompt((asked.text,))
        characters = len(asked.text)
    else:
        sent = {key: value for key, value in body.items() if key != "model_name"} | {"model": asked.model_name}
        prompt = _CHAT.parse(_CHAT_ROUTE, {}, write_object(sent)).prompt
        characters = len(_texts_of(asked.messages))
    exchange = request[EXCHANGE]
    exchange.model = asked.model_name
    count = exchange.count = await runtime.counting.count(asked.model_name, prompt)
    return answer(
        {
            "model_name": asked.model_name,
            "token_count": count.input_tokens,
            "encoding": count.encoding,
            "accuracy": count.accuracy,
            "upper_bound": count.upper,
            "characters": characters,
            "notes": list(count.notes),
        }
    )


async def batch_calculate(request: web.Request) -> web.Response:
    """Count many texts with one model's tokenizer."""
    runtime = request.app[RUNTIME].current
    asked = read_as(BatchCalculateRequest, await read_json(request))
    request[EXCHANGE].model = asked.model_name
    first = await runtime.counting.count(asked.model_name, TextPrompt(("",)))
    counts = await runtime.counting.count_texts(asked.model_name, asked.texts)
    return answer(
        {
            "model_name": asked.model_name,
            "encoding": first.encoding,
            "accuracy": first.accuracy,
            "token_counts": counts,
            "total_tokens": sum(counts),
            "count": len(counts),
        }
    )


async def list_models(request: web.Request) -> web.Response:
    """Every model family that can be counted, whether its tokenizer is installed, and what bills have shown."""
    runtime = request.app[RUNTIME].current
    installed = frozenset(await asyncio.to_thread(runtime.counting.counter.store.installed))
    return answer({"object": "list", "data": describe_models(runtime, installed)})


def describe_models(runtime: Runtime, installed: frozenset[str]) -> list[dict[str, Any]]:
    """The rows of ``GET /models``; `installed` names the encodings that can be counted with.

    `engine` is the library that counts, null until the tokenizer has been loaded.
    """
    observed = _observed_by_family(runtime)
    engines = {encoder.name: encoder.engine for encoder in runtime.counting.counter.encoders.loaded()}
    return [
        {
            "id": spec.family,
            "object": "model",
            "family": spec.family,
            "encoding": spec.encoding,
            "accuracy": spec.accuracy,
            "available": spec.encoding in installed,
            "engine": engines.get(spec.encoding),
            "description": spec.description,
            "notes": list(spec.notes),
            "observed": observed.get(spec.family, {"n": 0}),
        }
        for spec in runtime.counting.counter.catalog.models()
    ]


def _observed_by_family(runtime: Runtime) -> dict[str, dict[str, Any]]:
    sums: dict[str, dict[str, Any]] = {}
    for seen in runtime.counting.learner.observed():
        try:
            family = runtime.counting.resolve(seen.situation.model).family
        except GatewayError:
            continue
        row = sums.setdefault(family, {"n": 0, "exact": 0.0, "drift": 0.0, "learned": []})
        row["n"] += seen.n
        row["exact"] += seen.exact_share * seen.n
        row["drift"] += seen.mean_drift * seen.n
        if seen.correction is not None:
            row["learned"].append(
                {
                    "upstream": seen.situation.upstream,
                    "model": seen.situation.model,
                    "features": list(seen.situation.features),
                    "kind": seen.correction.kind,
                    "factor": round(seen.correction.factor, 4),
                    "tokens": seen.correction.constant,
                }
            )
    return {
        family: {
            "n": row["n"],
            "exact_share": round(row["exact"] / row["n"], 4),
            "mean_drift": round(row["drift"] / row["n"], 2),
            "learned": row["learned"],
        }
        for family, row in sums.items()
    }


def _texts_of(messages: list[Any] | None) -> str:
    """All the text that a conversation's messages carry."""
    texts: list[str] = []
    for message in messages or ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list):
            texts.extend(
                part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
            )
    return "".join(texts)
