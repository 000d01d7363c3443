"""OpenAI's responses API and its count endpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.errors import GatewayError
from gateway.formats.base import Call, Route, UsageReader
from gateway.formats.early_end import EarlyEnd
from gateway.formats.fields import Fields, name_type, read_object, write_object
from gateway.formats.listening import is_event_stream
from gateway.formats.openai_caps import lower_caps, read_cap
from gateway.formats.openai_early_end import ResponsesEarlyEnd
from gateway.formats.openai_errors import read_credential, render_openai_error
from gateway.formats.openai_parts import read_parts, read_schema, read_tool, read_tool_choice
from gateway.formats.openai_usage import ResponsesAnswerReader
from tokenizers_offline.prompt import (
    ChatPrompt,
    Dialect,
    Message,
    OpaquePart,
    OutputSchema,
    Part,
    TextPart,
    ThinkingPart,
    TokenCount,
    ToolCallPart,
    ToolResultPart,
    ToolSpec,
)

_OPTIONS = ("parallel_tool_calls", "reasoning", "truncation", "context_management", "include", "prompt_cache_options")
_UNKNOWABLE = ("previous_response_id", "conversation", "prompt")
"""Fields that name text stored on OpenAI's side."""


class OpenAIResponses:
    """`RequestFormat` of ``/responses`` and ``/responses/input_tokens``."""

    name = "openai_responses"
    routes: tuple[Route, ...] = (
        Route("POST", re.compile(r"(?:/deployments/(?P<model>[^/]+))?/responses$"), "generate"),
        Route("POST", re.compile(r"/responses/input_tokens$"), "count"),
    )

    def credential(self, headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
        return read_credential(headers)

    def parse(self, route: Route, path: Mapping[str, str], body: bytes) -> Call:
        fields = Fields(read_object(body))
        counting = route.kind == "count"
        return Call(
            format=self.name,
            kind=route.kind,
            model=path.get("model") or fields.required_text("model"),
            prompt=_read_prompt(fields),
            output_cap=0 if counting else read_cap(fields, "max_output_tokens"),
            stream=not counting and fields.boolean("stream"),
            body=fields.raw,
        )

    def usage_reader(self, call: Call, *, status: int, content_type: str) -> UsageReader:
        events = is_event_stream(content_type=content_type, stream=call.stream)
        return ResponsesAnswerReader(events=events, failed=status >= 400)

    def render_error(self, error: GatewayError) -> tuple[int, dict[str, str], bytes]:
        return render_openai_error(error)

    def render_count(self, call: Call, count: TokenCount) -> bytes:
        return write_object({"object": "response.input_tokens", "input_tokens": count.input_tokens})

    def with_output_cap(self, call: Call, cap: int) -> bytes:
        return lower_caps(call, cap, names=["max_output_tokens"])

    def early_end(self, call: Call, *, content_type: str) -> EarlyEnd | None:
        return ResponsesEarlyEnd(call) if is_event_stream(content_type=content_type, stream=call.stream) else None

    def with_usage_requested(self, call: Call) -> bytes | None:
        return None


def _read_prompt(body: Fields) -> ChatPrompt:
    unknowable = tuple(name for name in _UNKNOWABLE if body.has(name))
    if not body.has("input") and not unknowable:
        raise body.wrong("input", "is missing.", code="missing_required_parameter")
    messages: list[Message] = []
    instructions = body.raw.get("instructions")
    if type(instructions) is list:  # accepted by OpenAI though not in its reference
        messages += _read_items(body, "instructions", instructions)
    elif body.text("instructions"):
        messages.append(Message("system", (TextPart(body.text("instructions")),)))
    given = body.raw.get("input")
    if type(given) is str:
        messages.append(Message("user", (TextPart(given),)))
    elif type(given) is list:
        messages += _read_items(body, "input", given)
    elif given is not None:
        raise body.wrong("input", f"must be a string or an array of items, not {name_type(given)}.")
    tools: list[ToolSpec] = []
    server_tools: list[str] = []
    for tool in body.children("tools"):
        if tool.text("type", default="function") in ("function", "custom"):
            # A tool in chat's shape keeps only what stands at its top level: the API ignores its `function`.
            tools.append(read_tool(tool if tool.has("name") else tool.child("function") or tool, tool.raw))
        else:
            server_tools.append(tool.text("type"))
    return ChatPrompt(
        dialect=Dialect.OPENAI_RESPONSES,
        messages=tuple(messages),
        tools=tuple(tools),
        tool_choice=read_tool_choice(body, "tool_choice"),
        output_schema=_read_output_schema(body),
        server_tools=tuple(server_tools),
        unknowable=unknowable,
        options={
            **{name: body.raw[name] for name in _OPTIONS if body.raw.get(name) is not None},
            **({"instructions": ""} if instructions == "" else {}),
        },
    )


def _read_output_schema(body: Fields) -> OutputSchema | None:
    text = body.child("text")
    form = text.child("format") if text is not None else None
    match form.text("type") if form is not None else "":
        case "json_schema":
            assert form is not None
            return read_schema(form.child("json_schema") or form)
        case "json_object":
            return OutputSchema(schema=None)
        case _:
            return None


def _read_items(body: Fields, name: str, values: list[Any]) -> Iterator[Message]:
    for index, value in enumerate(values):
        if type(value) is str:
            yield Message("user", (TextPart(value),))
        elif type(value) is dict:
            yield _read_item(Fields(value, parent=body, key=f"{name}[{index}]"))
        else:
            raise body.wrong(f"{name}[{index}]", f"must be an object, not {name_type(value)}.", code="invalid_type")


def _read_item(item: Fields) -> Message:
    kind = item.text("type", default="message")
    match kind:
        case "message":
            parts, as_list = read_parts(item, "content")
            return Message(item.text("role", default="user"), parts, as_list=as_list)
        case "function_call" | "custom_tool_call":
            call = ToolCallPart(
                item.text("name"),
                item.text("input" if kind == "custom_tool_call" else "arguments"),
                call_id=item.text("call_id"),
                item_id=item.text("id"),
            )
            return Message("assistant", (call,))
        case "function_call_output" | "custom_tool_call_output":
            parts, as_list = _read_output(item)
            return Message("tool", (ToolResultPart(parts, call_id=item.text("call_id")),), as_list=as_list)
        case "reasoning":
            return Message("assistant", (_read_reasoning(item),))
        case _:
            return Message("assistant", (OpaquePart(kind, item.raw),))


def _read_output(item: Fields) -> tuple[tuple[Part, ...], bool]:
    """Text or parts; an object, which some clients send, reads as the JSON it is."""
    value = item.raw.get("output")
    if type(value) is dict:
        return (TextPart(write_object(value).decode()),), False
    return read_parts(item, "output")


def _read_reasoning(item: Fields) -> ThinkingPart:
    texts = [part.text("text") for name in ("summary", "content") for part in item.children(name)]
    return ThinkingPart("".join(texts), opaque=item.text("encrypted_content"))
