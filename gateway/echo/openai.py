"""The echo model speaking OpenAI's chat completions, completions and embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.echo.sse import DONE, event
from gateway.echo.vectors import as_base64, dimensions_of, embed

if TYPE_CHECKING:
    from gateway.echo.reply import Reply
    from gateway.formats.base import Call


def chat(reply: Reply) -> dict[str, Any]:
    """A ``chat.completion`` object."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if reply.tool_calls:
        message["tool_calls"] = _tool_calls(reply)
    return {
        "id": f"chatcmpl-{reply.id}",
        "object": "chat.completion",
        "created": reply.created_at,
        "model": reply.model,
        "choices": [
            {"index": index, "message": message, "logprobs": None, "finish_reason": reply.finish}
            for index in range(reply.choices)
        ],
        "usage": _usage(reply),
    }


def chat_stream(reply: Reply, *, with_usage: bool) -> list[bytes]:
    """The events of a streamed chat completion."""
    head = {
        "id": f"chatcmpl-{reply.id}",
        "object": "chat.completion.chunk",
        "created": reply.created_at,
        "model": reply.model,
    }
    if with_usage:
        head["usage"] = None
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None if reply.tool_calls else ""}]
    for index, call in enumerate(_tool_calls(reply)):
        function = call["function"]
        named = {**call, "index": index, "function": {"name": function["name"], "arguments": ""}}
        deltas.append({"tool_calls": [named]})
        deltas.append({"tool_calls": [{"index": index, "function": {"arguments": function["arguments"]}}]})
    deltas += [{"content": piece} for piece in reply.pieces]
    events = [
        event({**head, "choices": [{"index": index, "delta": delta, "finish_reason": None}]})
        for index in range(reply.choices)
        for delta in deltas
    ]
    events += [
        event({**head, "choices": [{"index": index, "delta": {}, "finish_reason": reply.finish}]})
        for index in range(reply.choices)
    ]
    if with_usage:
        events.append(event({**head, "choices": [], "usage": _usage(reply)}))
    return [*events, DONE]


def completion(reply: Reply) -> dict[str, Any]:
    """A ``text_completion`` object."""
    return {
        "id": f"cmpl-{reply.id}",
        "object": "text_completion",
        "created": reply.created_at,
        "model": reply.model,
        "choices": [
            {"index": index, "text": reply.text, "logprobs": None, "finish_reason": reply.finish}
            for index in range(reply.choices)
        ],
        "usage": _usage(reply),
    }


def completion_stream(reply: Reply, *, with_usage: bool) -> list[bytes]:
    """The events of a streamed completion."""
    head = {
        "id": f"cmpl-{reply.id}",
        "object": "text_completion",
        "created": reply.created_at,
        "model": reply.model,
    }
    events = [
        event({**head, "choices": [{"index": index, "text": piece, "logprobs": None, "finish_reason": finish}]})
        for index in range(reply.choices)
        for piece, finish in [*((piece, None) for piece in reply.pieces), ("", reply.finish)]
    ]
    if with_usage:
        events.append(event({**head, "choices": [], "usage": _usage(reply)}))
    return [*events, DONE]


def embeddings(call: Call, items: tuple[str | tuple[int, ...], ...], input_tokens: int) -> dict[str, Any]:
    """A list of embeddings, one for each item of the input."""
    dimensions = dimensions_of(call.model, call.body.get("dimensions"))
    vectors = [embed(item if isinstance(item, str) else str(item), dimensions=dimensions) for item in items]
    in_base64 = call.body.get("encoding_format") == "base64"
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": as_base64(vector) if in_base64 else vector}
            for index, vector in enumerate(vectors)
        ],
        "model": call.model,
        "usage": {"prompt_tokens": input_tokens, "total_tokens": input_tokens},
    }


def _tool_calls(reply: Reply) -> list[dict[str, Any]]:
    return [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}
        for call in reply.tool_calls
    ]


def _usage(reply: Reply) -> dict[str, Any]:
    return {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": reply.output_tokens,
        "total_tokens": reply.input_tokens + reply.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }
