"""The echo model speaking OpenAI's responses API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.echo.sse import event

if TYPE_CHECKING:
    from gateway.echo.reply import Reply


def response(reply: Reply, body: Mapping[str, Any]) -> dict[str, Any]:
    """A finished ``response`` object."""
    cut = reply.finish == "length"
    return {
        **_head(reply, body),
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": [_item(reply, index, done=True) for index in range(_items(reply))],
        "usage": {
            "input_tokens": reply.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": reply.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": reply.input_tokens + reply.output_tokens,
        },
    }


def response_stream(reply: Reply, body: Mapping[str, Any]) -> list[bytes]:
    """The events of a streamed response."""
    begun = {**_head(reply, body), "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index in range(_items(reply)):
        item = _item(reply, index, done=True)
        place = {"item_id": item["id"], "output_index": index}
        events.append(
            {"type": "response.output_item.added", "output_index": index, "item": _item(reply, index, done=False)}
        )
        events += _call_events(reply, index, place) if reply.tool_calls else _text_events(reply, place)
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    finished = response(reply, body)
    events.append({"type": f"response.{finished['status']}", "response": finished})
    return [event({**each, "sequence_number": number}, name=each["type"]) for number, each in enumerate(events)]


def _text_events(reply: Reply, place: Mapping[str, Any]) -> list[dict[str, Any]]:
    inside = {**place, "content_index": 0}
    return [
        {"type": "response.content_part.added", **inside, "part": _text_part("")},
        *({"type": "response.output_text.delta", **inside, "delta": piece, "logprobs": []} for piece in reply.pieces),
        {"type": "response.output_text.done", **inside, "text": reply.text, "logprobs": []},
        {"type": "response.content_part.done", **inside, "part": _text_part(reply.text)},
    ]


def _call_events(reply: Reply, index: int, place: Mapping[str, Any]) -> list[dict[str, Any]]:
    call = reply.tool_calls[index]
    done = {"type": "response.function_call_arguments.done", **place, "name": call.name}
    return [
        {"type": "response.function_call_arguments.delta", **place, "delta": call.arguments_json},
        {**done, "arguments": call.arguments_json},
    ]


def _items(reply: Reply) -> int:
    return len(reply.tool_calls) or 1


def _item(reply: Reply, index: int, *, done: bool) -> dict[str, Any]:
    status = "completed" if done else "in_progress"
    if not reply.tool_calls:
        return {
            "id": f"msg_{reply.id}",
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [_text_part(reply.text)] if done else [],
        }
    call = reply.tool_calls[index]
    return {
        "id": f"fc_{reply.id}_{index}",
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments_json if done else "",
        "status": status,
    }


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _head(reply: Reply, body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": f"resp_{reply.id}",
        "object": "response",
        "created_at": reply.created_at,
        "model": reply.model,
        "error": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": body.get("previous_response_id"),
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p", 1.0),
        "truncation": body.get("truncation", "disabled"),
    }
