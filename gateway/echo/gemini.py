"""The echo model speaking Gemini's generateContent family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.echo.sse import event
from gateway.echo.vectors import dimensions_of, embed
from gateway.formats.fields import write_object

if TYPE_CHECKING:
    from gateway.echo.reply import Finish, Reply
    from gateway.formats.base import Call

_FINISH_REASONS: dict[Finish, str] = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP"}


def generated(reply: Reply) -> dict[str, Any]:
    """A ``GenerateContentResponse``."""
    return _chunk(reply, _parts(reply), last=True)


def generated_stream(reply: Reply, *, as_events: bool) -> list[bytes]:
    """A streamed answer: events with ``alt=sse``, otherwise one JSON array written element by element."""
    if reply.tool_calls:
        chunks = [generated(reply)]
    else:
        pieces = reply.pieces or [""]
        chunks = [
            _chunk(reply, [{"text": piece}], last=number == len(pieces) - 1) for number, piece in enumerate(pieces)
        ]
    if as_events:
        return [event(chunk) for chunk in chunks]
    written = [(b"[" if number == 0 else b",\r\n") + write_object(chunk) for number, chunk in enumerate(chunks)]
    return [*written, b"]"]


def embedded(call: Call, items: tuple[str | tuple[int, ...], ...], input_tokens: int) -> dict[str, Any]:
    """An ``EmbedContentResponse``, or the batch's."""
    batch = call.body.get("requests")
    requests = batch if isinstance(batch, list) else [call.body]
    vectors = []
    for item, request in zip(items, requests, strict=False):
        dimensions = dimensions_of(call.model, request.get("outputDimensionality"))
        vectors.append({"values": embed(item if isinstance(item, str) else str(item), dimensions=dimensions)})
    usage = {"promptTokenCount": input_tokens, "totalTokenCount": input_tokens}
    if batch is not None:
        return {"embeddings": vectors, "usageMetadata": usage}
    return {"embedding": vectors[0] if vectors else {"values": []}, "usageMetadata": usage}


def _chunk(reply: Reply, parts: list[dict[str, Any]], *, last: bool) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}}
    if last:
        candidate["finishReason"] = _FINISH_REASONS[reply.finish]
    output_tokens = reply.output_tokens if last else 0
    return {
        "candidates": [{**candidate, "index": index} for index in range(reply.choices)],
        "usageMetadata": {
            "promptTokenCount": reply.input_tokens,
            "candidatesTokenCount": output_tokens,
            "totalTokenCount": reply.input_tokens + output_tokens,
        },
        "modelVersion": reply.model,
        "responseId": reply.id,
    }


def _parts(reply: Reply) -> list[dict[str, Any]]:
    if not reply.tool_calls:
        return [{"text": reply.text}]
    return [{"functionCall": {"id": call.id, "name": call.name, "args": call.arguments}} for call in reply.tool_calls]
