"""Cohere's own API, versions 1 and 2: chat, generate and embed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from gateway.errors import GatewayError, NotFound
from gateway.formats.base import Call, Route, UsageReader, retry_headers
from gateway.formats.cohere_answer import CohereReader
from gateway.formats.early_end import EarlyEnd
from gateway.formats.fields import Fields, read_object, write_object
from gateway.formats.line_early_end import CohereEarlyEnd
from gateway.formats.listening import is_event_stream
from gateway.formats.openai_caps import lower_caps, read_cap
from gateway.formats.openai_errors import read_credential
from gateway.formats.openai_parts import read_parts, read_tool
from tokenizers_offline.prompt import (
    ChatPrompt,
    Dialect,
    MediaPart,
    Message,
    OutputSchema,
    Part,
    TextPart,
    TextPrompt,
    ThinkingPart,
    TokenCount,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
    ToolSpec,
)

_V1_ROLES = {"CHATBOT": "assistant", "USER": "user", "SYSTEM": "system", "TOOL": "tool"}


class Cohere:
    """`RequestFormat` of ``/v2/chat``, ``/v1/chat``, ``/v1/generate`` and ``/embed``."""

    name = "cohere"
    routes: tuple[Route, ...] = (
        Route("POST", re.compile(r"/v2/chat$"), "generate"),
        Route("POST", re.compile(r"/(?P<v1>v1)/chat$"), "generate"),
        Route("POST", re.compile(r"/v1/(?P<prompt>generate)$"), "generate"),
        Route("POST", re.compile(r"/v[12]/embed$"), "embed"),
    )

    def credential(self, headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
        return read_credential(headers)

    def parse(self, route: Route, path: Mapping[str, str], body: bytes) -> Call:
        fields = Fields(read_object(body))
        model = fields.required_text("model")
        if route.kind == "embed":
            return Call(self.name, route.kind, model, _read_inputs(fields), body=fields.raw)
        if "prompt" in path:
            prompt: ChatPrompt | TextPrompt = TextPrompt((fields.required_text("prompt"),), purpose="completion")
        else:
            prompt = _read_v1(fields) if "v1" in path else _read_v2(fields)
        return Call(
            format=self.name,
            kind=route.kind,
            model=model,
            prompt=prompt,
            output_cap=read_cap(fields, "max_tokens"),
            choices=fields.integer("num_generations", minimum=1) or 1,
            stream=fields.boolean("stream"),
            body=fields.raw,
        )

    def usage_reader(self, call: Call, *, status: int, content_type: str) -> UsageReader:
        lines = "stream+json" in content_type.lower() or "ndjson" in content_type.lower()
        events = not lines and is_event_stream(content_type=content_type, stream=call.stream)
        return CohereReader(lines=lines, events=events, failed=status >= 400)

    def render_error(self, error: GatewayError) -> tuple[int, dict[str, str], bytes]:
        facts = {"message": error.message, "type": error.type, "code": error.code, "param": error.param}
        body = write_object({**error.details, **{name: value for name, value in facts.items() if value}})
        return error.status, {"Content-Type": "application/json", **retry_headers(error)}, body

    def render_count(self, call: Call, count: TokenCount) -> bytes:
        raise NotFound("Cohere's chat has no count endpoint; use POST /calculate.")

    def with_output_cap(self, call: Call, cap: int) -> bytes:
        return lower_caps(call, cap, names=["max_tokens"])

    def early_end(self, call: Call, *, content_type: str) -> EarlyEnd | None:
        lines = "stream+json" in content_type.lower() or "ndjson" in content_type.lower()
        if not lines and not is_event_stream(content_type=content_type, stream=call.stream):
            return None
        return CohereEarlyEnd(lines=lines)

    def with_usage_requested(self, call: Call) -> bytes | None:
        return None


def _read_inputs(fields: Fields) -> TextPrompt:
    texts = [text for name in ("texts",) for text in fields.array(name) or ()]
    for text in texts:
        if type(text) is not str:
            raise fields.wrong("texts", "must hold strings only.", code="invalid_type")
    images = bool(fields.array("images"))
    for item in fields.children("inputs"):
        parts, _ = read_parts(item, "content")
        texts.append("".join(part.text for part in parts if isinstance(part, TextPart)))
        images = images or any(isinstance(part, MediaPart) for part in parts)
    return TextPrompt(tuple(texts), purpose="embedding", unknowable=("image",) if images else ())


def _read_v2(fields: Fields) -> ChatPrompt:
    if not fields.array("messages"):
        raise fields.wrong("messages", "must hold at least one message.", code="invalid_value")
    tools = [read_tool(tool.required_child("function"), tool.raw) for tool in fields.children("tools")]
    choice = fields.text("tool_choice").lower()
    return ChatPrompt(
        dialect=Dialect.COHERE,
        messages=(*map(_read_message, fields.children("messages")), *_read_documents(fields)),
        tools=tuple(tools),
        tool_choice=ToolChoice("required" if choice == "required" else "none") if choice else None,
        output_schema=_read_format(fields),
        thinking=fields.mapping("thinking"),
    )


def _read_message(message: Fields) -> Message:
    role = message.required_text("role")
    parts, as_list = _read_content(message)
    if role == "tool":
        return Message(role, (ToolResultPart(parts, call_id=message.text("tool_call_id")),), as_list=as_list)
    found: list[Part] = list(parts)
    if message.has("tool_plan"):
        found.insert(0, TextPart(message.text("tool_plan")))
    for call in message.children("tool_calls"):
        function = call.required_child("function")
        found.append(ToolCallPart(function.text("name"), function.text("arguments"), call_id=call.text("id")))
    return Message(role, tuple(found), as_list=as_list)


def _read_content(message: Fields) -> tuple[tuple[Part, ...], bool]:
    """A content of text, images, thinking and (in tools' results) documents."""
    parts, as_list = read_parts(message, "content")
    if not as_list:
        return parts, as_list
    found: list[Part] = []
    for element, part in zip(message.raw["content"], parts, strict=True):
        kind = element.get("type") if type(element) is dict else "text"
        if kind == "thinking":
            found.append(ThinkingPart(str(element.get("thinking") or "")))
        elif kind == "document":
            found.append(TextPart(_document_text(element.get("document"))))
        else:
            found.append(part)
    return tuple(found), as_list


def _read_v1(fields: Fields) -> ChatPrompt:
    messages = []
    preamble = fields.text("preamble")
    if preamble:
        messages.append(Message("system", (TextPart(preamble),)))
    for turn in fields.children("chat_history"):
        role = _V1_ROLES.get(turn.required_text("role").upper(), "user")
        parts: list[Part] = [TextPart(turn.text("message"))] if turn.has("message") else []
        calls = turn.children("tool_calls")
        parts += [ToolCallPart(call.text("name"), call.mapping("parameters") or {}) for call in calls]
        parts += _read_results(turn)
        messages.append(Message(role, tuple(parts)))
    results = tuple(_read_results(fields))
    if results:
        messages.append(Message("tool", results))
    if fields.text("message"):
        messages.append(Message("user", (TextPart(fields.text("message")),)))
    connectors = tuple(connector.text("id", default="connector") for connector in fields.children("connectors"))
    return ChatPrompt(
        dialect=Dialect.COHERE,
        messages=(*messages, *_read_documents(fields)),
        tools=tuple(_read_v1_tool(tool) for tool in fields.children("tools")),
        output_schema=_read_format(fields),
        server_tools=connectors,
        unknowable=("conversation",) if fields.has("conversation_id") else (),
    )


def _read_v1_tool(tool: Fields) -> ToolSpec:
    """Version 1 lists a tool's parameters as ``{name: {description, type, required}}``."""
    parameters = {"type": "object", "properties": fields} if (fields := tool.mapping("parameter_definitions")) else None
    return ToolSpec(tool.required_text("name"), tool.optional_text("description"), parameters, raw=tool.raw)


def _read_results(fields: Fields) -> Iterator[ToolResultPart]:
    for result in fields.children("tool_results"):
        call = result.child("call")
        text = "\n".join(_document_text(output) for output in result.array("outputs") or ())
        yield ToolResultPart((TextPart(text),), name=call.text("name") if call is not None else "")


def _read_documents(fields: Fields) -> Iterator[Message]:
    """Documents to answer from are shown to the model as results of a search."""
    texts = [_document_text(document) for document in fields.array("documents") or ()]
    if texts:
        yield Message("tool", tuple(ToolResultPart((TextPart(text),), name="search") for text in texts))


def _document_text(document: object) -> str:
    if type(document) is dict:
        data = document.get("data")
        return write_object(data if type(data) is dict else document).decode()
    return document if type(document) is str else ""


def _read_format(fields: Fields) -> OutputSchema | None:
    form = fields.child("response_format")
    if form is None or form.text("type") != "json_object":
        return None
    return OutputSchema(schema=form.mapping("json_schema") or form.mapping("schema"))
