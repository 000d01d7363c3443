"""OpenAI's chat completions, as spoken by OpenAI, Azure and the many servers compatible with them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.errors import BadRequest, GatewayError, NotFound
from gateway.formats.base import Call, Route, UsageReader
from gateway.formats.early_end import EarlyEnd
from gateway.formats.fields import Fields, name_type, read_object, write_object
from gateway.formats.listening import is_event_stream
from gateway.formats.openai_caps import lower_completion_caps, read_cap
from gateway.formats.openai_early_end import ChoicesEarlyEnd
from gateway.formats.openai_errors import read_credential, render_openai_error
from gateway.formats.openai_parts import read_parts, read_schema, read_tool, read_tool_choice
from gateway.formats.openai_usage import ChatAnswerReader
from tokenizers_offline.prompt import (
    ChatPrompt,
    Dialect,
    Message,
    OpaquePart,
    OutputSchema,
    Part,
    Prompt,
    TextPart,
    ThinkingPart,
    TokenCount,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
    ToolSpec,
)

_OPTIONS = (
    "chat_template_kwargs",
    "clear_thinking",
    "enable_thinking",
    "modalities",
    "parallel_tool_calls",
    "prediction",
    "reasoning",
    "reasoning_effort",
    "reasoning_format",
    "safe_prompt",
    "verbosity",
)
_PROMPT_FIELDS = frozenset(_OPTIONS) | {
    "function_call",
    "functions",
    "plugins",
    "preset",
    "response_format",
    "thinking",
    "tool_choice",
    "tools",
    "web_search_options",
}
"""What a prompt is made of besides its messages."""
_MESSAGE_FIELDS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "function_call", "refusal"})
_RESULT_ROLES = ("tool", "function")
_COMPLETION_CAP_MODELS = re.compile(r"(?:^|/)(?:o\d|gpt-5|codex)")
"""Models that refuse ``max_tokens`` and want ``max_completion_tokens``."""


class OpenAIChat:
    """`RequestFormat` of ``/chat/completions``. An Azure deployment named in the path is the model, since it is
    what answers, whatever the body says."""

    name = "openai_chat"
    routes: tuple[Route, ...] = (
        Route(
            "POST",
            re.compile(r"(?:/(?:deployments|engines)/(?P<model>[^/]+))?(?<!/deployments)/chat/completions$"),
            "generate",
        ),
    )

    def credential(self, headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
        return read_credential(headers)

    def parse(self, route: Route, path: Mapping[str, str], body: bytes) -> Call:
        fields = Fields(read_object(body))
        stream = fields.boolean("stream")
        return Call(
            format=self.name,
            kind=route.kind,
            model=path.get("model") or fields.required_text("model"),
            prompt=_read_prompt(fields),
            output_cap=read_cap(fields, "max_tokens", "max_completion_tokens"),
            choices=fields.integer("n", minimum=1) or 1,
            stream=stream,
            body=fields.raw,
            wants_usage=not stream or asks_usage(fields),
        )

    def usage_reader(self, call: Call, *, status: int, content_type: str) -> UsageReader:
        return read_choices(call, status=status, content_type=content_type)

    def render_error(self, error: GatewayError) -> tuple[int, dict[str, str], bytes]:
        return render_openai_error(error)

    def render_count(self, call: Call, count: TokenCount) -> bytes:
        raise NotFound("Chat completions have no count endpoint; use POST /calculate.")

    def with_output_cap(self, call: Call, cap: int) -> bytes:
        preferred = "max_completion_tokens" if _COMPLETION_CAP_MODELS.search(call.model) else "max_tokens"
        return lower_completion_caps(call, cap, unnamed=preferred)

    def early_end(self, call: Call, *, content_type: str) -> EarlyEnd | None:
        if not is_event_stream(content_type=content_type, stream=call.stream):
            return None
        return ChoicesEarlyEnd(call, kind="chat.completion.chunk", empty={"delta": {}})

    def with_usage_requested(self, call: Call) -> bytes | None:
        return request_usage(call)


def asks_usage(fields: Fields) -> bool:
    """Whether a streaming caller asked for the usage chunk itself."""
    options = fields.child("stream_options")
    return options is not None and options.boolean("include_usage")


def read_choices(call: Call, *, status: int, content_type: str) -> UsageReader:
    """A reader for any answer made of ``choices``, hiding the usage chunk from a caller who did not ask for it."""
    return ChatAnswerReader(
        events=is_event_stream(content_type=content_type, stream=call.stream),
        failed=status >= 400,
        hide_usage=not call.wants_usage,
    )


def request_usage(call: Call) -> bytes | None:
    """The body with ``stream_options.include_usage``; None when nothing needs to be asked."""
    if call.wants_usage:
        return None
    options = call.body.get("stream_options") or {}
    return write_object({**call.body, "stream_options": {**options, "include_usage": True}})


def _read_prompt(body: Fields) -> Prompt:
    if not body.array("messages"):
        if body.has("messages"):
            raise body.wrong("messages", "must hold at least one message.", code="invalid_value")
        raise body.wrong("messages", "is missing.", code="missing_required_parameter")
    messages = tuple(_read_message(message) for message in body.children("messages"))
    if body.raw.keys().isdisjoint(_PROMPT_FIELDS):  # most requests are nothing but messages
        return ChatPrompt(Dialect.OPENAI_CHAT, messages)
    tools: list[ToolSpec] = []
    server_tools: list[str] = ["web_search"] if body.has("web_search_options") else []
    for tool in body.children("tools"):
        function = tool.child("function") or (tool.child("custom") if tool.raw.get("type") == "custom" else None)
        if function is not None:
            tools.append(read_tool(function, tool.raw))
        else:
            server_tools.append(tool.text("type", default="tool"))
    tools += [read_tool(function, function.raw) for function in body.children("functions")]
    server_tools += [plugin.text("id", default="plugin") for plugin in body.children("plugins")]
    return ChatPrompt(
        dialect=Dialect.OPENAI_CHAT,
        messages=messages,
        tools=tuple(tools),
        tool_choice=read_tool_choice(body, "tool_choice") or _read_function_choice(body),
        output_schema=_read_output_schema(body),
        thinking=body.raw.get("thinking") if type(body.raw.get("thinking")) is dict else None,
        server_tools=tuple(server_tools),
        unknowable=("preset",) if body.has("preset") else (),  # OpenRouter: a prompt stored on its side
        options={name: body.raw[name] for name in _OPTIONS if body.raw.get(name) is not None},
    )


def _read_function_choice(body: Fields) -> ToolChoice | None:
    """The old ``function_call``: "auto", "none" or ``{"name": ...}``."""
    return read_tool_choice(body, "function_call")


def _read_output_schema(body: Fields) -> OutputSchema | None:
    response_format = body.child("response_format")
    match response_format.text("type") if response_format is not None else "":
        case "json_schema":
            assert response_format is not None
            return read_schema(response_format.required_child("json_schema"))
        case "json_object":
            return OutputSchema(schema=None)
        case _:
            return None


def _read_message(message: Fields) -> Message:
    raw = message.raw
    role, content = raw.get("role"), raw.get("content")
    if len(raw) == 2 and type(role) is str and type(content) is str and role not in _RESULT_ROLES:  # nearly all are
        return Message(role, (TextPart(content),) if content else ())
    role = message.required_text("role")
    parts, as_list = read_parts(message, "content")
    if role in _RESULT_ROLES:
        result = ToolResultPart(parts, call_id=message.text("tool_call_id"), name=message.text("name"))
        return Message(role, (result,), as_list=as_list)
    return Message(
        role,
        (*_read_thinking(message), *parts, *_read_refusal(message), *_read_calls(message)),
        name=message.text("name"),
        as_list=as_list,
        extra={name: value for name, value in message.raw.items() if name not in _MESSAGE_FIELDS},
    )


def _read_refusal(message: Fields) -> Iterator[Part]:
    if message.has("refusal"):
        yield TextPart(message.text("refusal"))


def _read_thinking(message: Fields) -> Iterator[Part]:
    """Reasoning sent back: ``reasoning_content`` (DeepSeek and others), ``reasoning`` and its
    details (OpenRouter)."""
    text = message.raw.get("reasoning_content") or message.raw.get("reasoning")
    details = [detail for detail in _list(message.raw.get("reasoning_details")) if type(detail) is dict]
    opaque = "".join(str(detail.get("data") or detail.get("signature") or "") for detail in details)
    if not text:
        text = "".join(str(detail.get("text") or detail.get("summary") or "") for detail in details)
    if text or opaque:
        yield ThinkingPart(text if type(text) is str else write_object({"": text}).decode(), opaque)


def _read_calls(message: Fields) -> Iterator[Part]:
    for call in message.children("tool_calls"):
        function = call.child("function")
        custom = call.child("custom") if function is None else None
        if function is not None:
            yield ToolCallPart(function.text("name"), _read_arguments(function), call_id=call.text("id"))
        elif custom is not None:
            yield ToolCallPart(custom.text("name"), custom.text("input"), call_id=call.text("id"))
        else:
            yield OpaquePart(call.text("type", default="tool_call"), call.raw)
    legacy = message.child("function_call")
    if legacy is not None:
        yield ToolCallPart(legacy.text("name"), _read_arguments(legacy))


def _read_arguments(function: Fields) -> str | Mapping[str, Any]:
    """JSON text; several compatible servers also take the object itself."""
    value = function.raw.get("arguments")
    if value is None:
        return ""
    if type(value) is str or type(value) is dict:
        return value
    path = function.path_of("arguments")
    raise BadRequest(f"'{path}' must be a string, not {name_type(value)}.", param=path, code="invalid_type")


def _list(value: Any) -> list[Any]:
    return value if type(value) is list else []
