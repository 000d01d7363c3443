"""The echo model speaking Anthropic's messages API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.echo.sse import event

if TYPE_CHECKING:
    from gateway.echo.reply import Finish, Reply

_STOP_REASONS: dict[Finish, str] = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def message(reply: Reply) -> dict[str, Any]:
    """A finished ``message`` object."""
    return {
        **_head(reply),
        "content": _blocks(reply),
        "stop_reason": _STOP_REASONS[reply.finish],
        "usage": _usage(reply, output_tokens=reply.output_tokens),
    }


def message_stream(reply: Reply) -> list[bytes]:
    """The events of a streamed message."""
    begun = {**_head(reply), "content": [], "stop_reason": None, "usage": _usage(reply, output_tokens=1)}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}]
    for index, block in enumerate(_blocks(reply)):
        if block["type"] == "text":
            empty = {**block, "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in reply.pieces]
        else:
            empty = {**block, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": reply.tool_calls[index].arguments_json}]
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        if index == 0:
            events.append({"type": "ping"})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events += [
        {
            "type": "message_delta",
            "delta": {"stop_reason": _STOP_REASONS[reply.finish], "stop_sequence": None},
            "usage": {"output_tokens": reply.output_tokens},
        },
        {"type": "message_stop"},
    ]
    return [event(each, name=each["type"]) for each in events]


def _blocks(reply: Reply) -> list[dict[str, Any]]:
    if not reply.tool_calls:
        return [{"type": "text", "text": reply.text}]
    return [
        {"type": "tool_use", "id": call.id.replace("call_", "toolu_"), "name": call.name, "input": call.arguments}
        for call in reply.tool_calls
    ]


def _head(reply: Reply) -> dict[str, Any]:
    return {
        "id": f"msg_{reply.id}",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "stop_sequence": None,
    }


def _usage(reply: Reply, *, output_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": reply.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
    }
