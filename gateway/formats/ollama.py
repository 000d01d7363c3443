"""Ollama's own API: chat, generate and embeddings. Its OpenAI-compatible paths belong to those formats."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.errors import GatewayError, NotFound
from gateway.formats.base import Call, Route, UsageReader, retry_headers
from gateway.formats.early_end import EarlyEnd
from gateway.formats.fields import Fields, read_object, write_object
from gateway.formats.line_early_end import OllamaEarlyEnd
from gateway.formats.listening import figure, objects
from gateway.formats.ndjson import LineReader
from gateway.formats.openai_errors import read_credential
from gateway.formats.openai_parts import read_tool
from policies.usage import Usage
from tokenizers_offline.prompt import (
    ChatPrompt,
    Dialect,
    MediaPart,
    Message,
    OutputSchema,
    Part,
    Prompt,
    TextPart,
    TextPrompt,
    ThinkingPart,
    TokenCount,
    ToolCallPart,
    ToolResultPart,
)


class Ollama:
    """`RequestFormat` of ``/api/chat``, ``/api/generate``, ``/api/embed`` and ``/api/embeddings``.

    Ollama streams unless told otherwise, and always reports usage in its last line.
    """

    name = "ollama"
    routes: tuple[Route, ...] = (
        Route("POST", re.compile(r"/api/chat$"), "generate"),
        Route("POST", re.compile(r"/api/(?P<prompt>generate)$"), "generate"),
        Route("POST", re.compile(r"/api/embed(?:dings)?$"), "embed"),
    )

    def credential(self, headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
        return read_credential(headers)

    def parse(self, route: Route, path: Mapping[str, str], body: bytes) -> Call:
        fields = Fields(read_object(body))
        model = fields.required_text("model")
        if route.kind == "embed":
            return Call(self.name, route.kind, model, _read_inputs(fields), body=fields.raw)
        options = fields.child("options")
        predict = options.integer("num_predict") if options is not None else None
        return Call(
            format=self.name,
            kind=route.kind,
            model=model,
            prompt=_read_generation(fields) if "prompt" in path else _read_chat(fields),
            output_cap=predict if predict is not None and predict > 0 else None,  # -1: endless, -2: fill the context
            stream=fields.boolean("stream", default=True),
            body=fields.raw,
        )

    def usage_reader(self, call: Call, *, status: int, content_type: str) -> UsageReader:
        lines = "ndjson" in content_type.lower() or (call.stream and "application/json" not in content_type.lower())
        return OllamaReader(lines=lines, failed=status >= 400)

    def render_error(self, error: GatewayError) -> tuple[int, dict[str, str], bytes]:
        facts = {"error": error.message, "type": error.type, "code": error.code, "param": error.param}
        body = write_object({**error.details, **{name: value for name, value in facts.items() if value}})
        return error.status, {"Content-Type": "application/json", **retry_headers(error)}, body

    def render_count(self, call: Call, count: TokenCount) -> bytes:
        raise NotFound("Ollama has no count endpoint; use POST /calculate.")

    def with_output_cap(self, call: Call, cap: int) -> bytes:
        options = dict(call.body.get("options") or {})
        named = call.output_cap
        options["num_predict"] = cap if named is None else min(cap, named)
        return write_object({**call.body, "options": options})

    def early_end(self, call: Call, *, content_type: str) -> EarlyEnd | None:
        lines = call.stream and "application/json" not in content_type.lower()
        return OllamaEarlyEnd(call) if lines else None

    def with_usage_requested(self, call: Call) -> bytes | None:
        return None


class OllamaReader(LineReader):
    """Reads a whole answer or its lines; the last one says ``done`` and carries the counts."""

    def _take_document(self, document: dict[str, Any]) -> None:
        self._take_event("", document)
        self._complete = "error" not in document

    def _take_event(self, name: str, document: dict[str, Any]) -> bool:
        self._add_text(document, "response", "thinking")
        message = document.get("message")
        if type(message) is dict:
            self._add_text(message, "content", "thinking")
            for call in objects(message.get("tool_calls")):
                function = call.get("function")
                if type(function) is dict:
                    self._add_text(function, "name")
                    if type(function.get("arguments")) is dict:
                        self._texts.append(write_object(function["arguments"]).decode())
        given = figure(document, "prompt_eval_count")
        output = figure(document, "eval_count")
        if given is not None or output is not None:
            self._usage = Usage(given or 0, output or 0)
        if document.get("done") is True:
            self._complete = True
        return False


def _read_inputs(fields: Fields) -> TextPrompt:
    if fields.has("prompt"):
        return TextPrompt((fields.required_text("prompt"),), purpose="embedding")
    value = fields.raw.get("input")
    if type(value) is str:
        return TextPrompt((value,), purpose="embedding")
    texts = fields.array("input") or []
    for text in texts:
        if type(text) is not str:
            raise fields.wrong("input", "must hold strings only.", code="invalid_type")
    return TextPrompt(tuple(texts), purpose="embedding")


def _read_generation(fields: Fields) -> Prompt:
    """``/api/generate``: one turn of chat, unless ``raw`` leaves the text alone."""
    text = fields.text("prompt")
    unknowable = ("context",) if fields.array("context") else ()
    if fields.boolean("raw") or fields.has("suffix"):
        return TextPrompt((text,), purpose="completion", suffix=fields.text("suffix"), unknowable=unknowable)
    system = fields.text("system")
    messages = [Message("system", (TextPart(system),))] if system else []
    messages.append(Message("user", (TextPart(text), *_read_images(fields))))
    return ChatPrompt(
        dialect=Dialect.OLLAMA,
        messages=tuple(messages),
        output_schema=_read_format(fields),
        unknowable=(*unknowable, *(("template",) if fields.text("template") else ())),
        options=_read_options(fields),
    )


def _read_chat(fields: Fields) -> ChatPrompt:
    if fields.array("messages") is None:
        raise fields.wrong("messages", "is missing.", code="missing_required_parameter")
    return ChatPrompt(
        dialect=Dialect.OLLAMA,
        messages=tuple(_read_message(message) for message in fields.children("messages")),
        tools=tuple(read_tool(tool.required_child("function"), tool.raw) for tool in fields.children("tools")),
        output_schema=_read_format(fields),
        options=_read_options(fields),
    )


def _read_message(message: Fields) -> Message:
    role = message.required_text("role")
    text = message.text("content")
    parts: list[Part] = [TextPart(text)] if text else []
    if role == "tool":
        return Message(role, (ToolResultPart(tuple(parts), name=message.text("tool_name")),))
    if message.has("thinking"):
        parts.insert(0, ThinkingPart(message.text("thinking")))
    parts += _read_images(message)
    for call in message.children("tool_calls"):
        function = call.required_child("function")
        parts.append(ToolCallPart(function.text("name"), function.mapping("arguments") or {}, call_id=call.text("id")))
    return Message(role, tuple(parts))


def _read_images(fields: Fields) -> Iterator[MediaPart]:
    for image in fields.array("images") or ():
        if type(image) is not str:
            raise fields.wrong("images", "must hold base64 strings only.", code="invalid_type")
        yield MediaPart("image", data=image)


def _read_format(fields: Fields) -> OutputSchema | None:
    value = fields.raw.get("format")
    if type(value) is dict:
        return OutputSchema(schema=value)
    return OutputSchema(schema=None) if fields.text("format") else None


def _read_options(fields: Fields) -> dict[str, Any]:
    think = fields.raw.get("think")
    if type(think) is bool:
        return {"enable_thinking": think}
    return {"reasoning_effort": think} if type(think) is str else {}
