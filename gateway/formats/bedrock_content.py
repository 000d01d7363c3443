"""Bedrock's Converse blocks and the bodies of InvokeModel read into the neutral prompt."""

from __future__ import annotations

from typing import Literal

from gateway.formats import anthropic_content
from gateway.formats.fields import Fields, write_object
from tokenizers_offline.prompt import (
    ChatPrompt,
    Dialect,
    MediaPart,
    Message,
    OpaquePart,
    OutputSchema,
    Part,
    Prompt,
    TextPart,
    TextPrompt,
    ThinkingPart,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
    ToolSpec,
)

_MARKS = ("cachePoint",)
"""Blocks that steer the service and say nothing to the model."""


def read_converse(body: Fields) -> ChatPrompt:
    """The prompt of a Converse body. Raises `BadRequest` naming the field."""
    unknowable: list[str] = []
    system = [part for block in body.children("system") for part in _read_block(block, unknowable)]
    messages = [Message("system", tuple(system), as_list=True)] if system else []
    for entry in body.children("messages"):
        parts = [part for block in entry.children("content") for part in _read_block(block, unknowable)]
        messages.append(Message(entry.required_text("role"), tuple(parts), as_list=True))
    config = body.child("toolConfig")
    extra = body.mapping("additionalModelRequestFields") or {}
    thinking = extra.get("thinking") or extra.get("reasoning_config") or extra.get("reasoningConfig")
    if type(thinking) is not dict or thinking.get("type") == "disabled":
        thinking = None
    return ChatPrompt(
        Dialect.BEDROCK,
        tuple(messages),
        tools=_read_tools(config) if config else (),
        tool_choice=_read_choice(config) if config else None,
        output_schema=_read_schema(body),
        thinking=thinking,
        server_tools=_read_system_tools(config) if config else (),
        unknowable=tuple(dict.fromkeys(unknowable)),
    )


def read_invoke(body: Fields) -> Prompt:
    """The prompt of an InvokeModel body, which is whatever the model family speaks.

    A body of a family that is not known here is counted as its JSON text and labelled.
    """
    raw = body.raw
    if "anthropic_version" in raw:
        return anthropic_content.read_prompt(body)
    if "schemaVersion" in raw or ("messages" in raw and "inferenceConfig" in raw):
        return read_converse(body)
    for name in ("inputText", "prompt"):
        if type(raw.get(name)) is str:
            return TextPrompt((raw[name],), purpose="embedding" if name == "inputText" else "completion")
    texts = raw.get("texts")
    if type(texts) is list and all(type(text) is str for text in texts):
        return TextPrompt(tuple(texts), purpose="embedding")
    if body.has("messages"):
        return _read_plain_chat(body)
    return TextPrompt((write_object(raw).decode("utf-8", "replace"),), unknowable=("request_shape",))


def _read_plain_chat(body: Fields) -> ChatPrompt:
    """Messages with string contents or text parts, as the open models' families take them."""
    unknowable: list[str] = []
    messages = []
    for entry in body.children("messages"):
        parts: list[Part] = []
        content = entry.raw.get("content")
        if type(content) is str:
            parts.append(TextPart(content))
        else:
            for block in entry.children("content"):
                if block.text("type", default="text") == "text":
                    parts.append(TextPart(block.required_text("text")))
                else:
                    unknowable.append(block.text("type"))
        for call in entry.children("tool_calls"):
            function = call.required_child("function")
            parts.append(ToolCallPart(function.required_text("name"), function.text("arguments"), call.text("id")))
        role = entry.required_text("role")
        if role == "tool":
            parts = [ToolResultPart(tuple(parts), call_id=entry.text("tool_call_id"))]
        messages.append(Message(role, tuple(parts)))
    functions = [tool.child("function") or tool for tool in body.children("tools")]
    tools = [
        ToolSpec(
            function.required_text("name"),
            function.optional_text("description"),
            function.mapping("parameters"),
            raw=function.raw,
        )
        for function in functions
    ]
    unknown = tuple(dict.fromkeys(unknowable))
    return ChatPrompt(Dialect.OPENAI_CHAT, tuple(messages), tools=tuple(tools), unknowable=unknown)


def _read_block(block: Fields, unknowable: list[str]) -> list[Part]:
    if block.has("text"):
        return [TextPart(block.text("text"))]
    if block.has("json"):
        return [TextPart(write_object(block.raw)[8:-1].decode("utf-8", "replace"))]
    for kind in ("image", "document", "video", "audio"):
        media = block.child(kind)
        if media is not None:
            return [_read_media(media, kind, unknowable)]
    call = block.child("toolUse")
    if call is not None:
        return [ToolCallPart(call.required_text("name"), call.mapping("input") or {}, call_id=call.text("toolUseId"))]
    result = block.child("toolResult")
    if result is not None:
        parts = [part for inner in result.children("content") for part in _read_block(inner, unknowable)]
        failed = result.text("status") == "error"
        return [ToolResultPart(tuple(parts), call_id=result.text("toolUseId"), is_error=failed)]
    reasoning = block.child("reasoningContent")
    if reasoning is not None:
        shown = reasoning.child("reasoningText")
        if shown is None:
            return [ThinkingPart(opaque=reasoning.text("redactedContent"))]
        return [ThinkingPart(shown.text("text"), shown.text("signature"))]
    guarded = block.child("guardContent")
    if guarded is not None:
        inner = guarded.child("text")
        return [TextPart(inner.text("text"))] if inner else _read_block(guarded, unknowable)
    found = block.child("searchResult")
    if found is not None:
        texts = [TextPart(inner.text("text")) for inner in found.children("content")]
        return [TextPart(found.text("title")), TextPart(found.text("source")), *texts]
    kind = next(iter(block.raw), "empty")
    if kind in (*_MARKS, "empty"):
        return []
    unknowable.append(kind)
    return [OpaquePart(kind, block.raw)]


def _read_media(
    media: Fields, kind: Literal["image", "document", "video", "audio"], unknowable: list[str]
) -> MediaPart:
    layout = media.text("format")
    name = media.text("name")
    source = media.required_child("source")
    media_type = {"pdf": "application/pdf"}.get(layout, f"{'text' if kind == 'document' else kind}/{layout}")
    if source.has("text"):
        return MediaPart(kind, "text/plain", text=source.text("text"), name=name)
    if source.has("content"):
        texts = "".join(inner.text("text") for inner in source.children("content"))
        return MediaPart(kind, "text/plain", text=texts, name=name)
    if source.has("bytes"):
        return MediaPart(kind, media_type, data=source.text("bytes"), name=name)
    unknowable.append("file")
    stored = source.child("s3Location")
    return MediaPart(kind, media_type, file_id=stored.text("uri") if stored else "", name=name)


def _read_tools(config: Fields) -> tuple[ToolSpec, ...]:
    tools = []
    for tool in config.children("tools"):
        spec = tool.child("toolSpec")
        if spec is None:
            continue
        schema = spec.child("inputSchema")
        parameters = schema.mapping("json") if schema else None
        strict = spec.boolean("strict") if spec.has("strict") else None
        described = spec.optional_text("description")
        tools.append(ToolSpec(spec.required_text("name"), described, parameters, strict=strict, raw=spec.raw))
    return tuple(tools)


def _read_system_tools(config: Fields) -> tuple[str, ...]:
    found = (tool.child("systemTool") for tool in config.children("tools"))
    return tuple(tool.text("name") for tool in found if tool is not None)


def _read_choice(config: Fields) -> ToolChoice | None:
    choice = config.child("toolChoice")
    if choice is None:
        return None
    named = choice.child("tool")
    if named is not None:
        return ToolChoice("named", named.required_text("name"))
    return ToolChoice("required" if choice.has("any") else "auto")


def _read_schema(body: Fields) -> OutputSchema | None:
    found: Fields | None = body
    for name in ("outputConfig", "textFormat", "structure", "jsonSchema"):
        found = found.child(name) if found else None
    if found is None:
        return None
    # The schema itself is a string of JSON here; as text it is what the model is shown.
    schema = found.raw.get("schema")
    wanted = schema if type(schema) is dict else {"json": found.text("schema")}
    return OutputSchema(wanted, name=found.text("name"), description=found.optional_text("description"))
