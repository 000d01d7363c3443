"""Anthropic's message, block, tool and schema objects read into the neutral prompt."""

from __future__ import annotations

from typing import Any, Literal

from gateway.formats.fields import Fields, name_type
from tokenizers_offline.prompt import (
    ChatPrompt,
    Dialect,
    MediaPart,
    Message,
    OpaquePart,
    OutputSchema,
    Part,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
    ToolSpec,
)

_CHOICES: dict[str, Literal["auto", "none", "required", "named"]] = {
    "auto": "auto",
    "none": "none",
    "any": "required",
    "tool": "named",
}


def read_prompt(body: Fields) -> ChatPrompt:
    """The prompt of a messages or count_tokens body. Raises `BadRequest` naming the field."""
    unknowable: list[str] = []
    messages = []
    if body.has("system"):
        parts, as_list = _read_content(body, "system", unknowable)
        messages.append(Message("system", parts, as_list=as_list))
    if not body.has("messages"):
        raise body.wrong("messages", "is missing.", code="missing_required_parameter")
    for entry in body.children("messages"):
        role = entry.required_text("role")
        if not entry.has("content"):
            raise entry.wrong("content", "is missing.", code="missing_required_parameter")
        parts, as_list = _read_content(entry, "content", unknowable)
        messages.append(Message(role, parts, as_list=as_list))
    tools, server_tools = _read_tools(body)
    for name, label in (("mcp_servers", "mcp_servers"), ("container", "container")):
        if body.raw.get(name):
            unknowable.append(label)
    thinking = body.mapping("thinking")
    return ChatPrompt(
        Dialect.ANTHROPIC,
        tuple(messages),
        tools=tools,
        tool_choice=_read_choice(body),
        output_schema=_read_schema(body),
        thinking=thinking if thinking and thinking.get("type") != "disabled" else None,
        server_tools=server_tools,
        unknowable=tuple(dict.fromkeys(unknowable)),
    )


def _read_content(owner: Fields, name: str, unknowable: list[str]) -> tuple[tuple[Part, ...], bool]:
    value = owner.raw.get(name)
    if value is None:
        return (), False
    if type(value) is str:
        return (TextPart(value),), False
    if type(value) is not list:
        raise owner.wrong(name, f"must be a string or an array of blocks, not {name_type(value)}.", code="invalid_type")
    parts: list[Part] = []
    for block in owner.children(name):
        parts.extend(_read_block(block, unknowable))
    return tuple(parts), True


def _read_block(block: Fields, unknowable: list[str]) -> list[Part]:
    kind = block.text("type", default="text")
    match kind:
        case "text":
            return [TextPart(block.required_text("text"))]
        case "image":
            return [_read_media(block, "image", unknowable)]
        case "document":
            return _read_document(block, unknowable)
        case "tool_use" | "server_tool_use" | "mcp_tool_use":
            arguments = block.mapping("input") or {}
            return [ToolCallPart(block.required_text("name"), arguments, call_id=block.text("id"))]
        case "tool_result":
            parts, _ = _read_content(block, "content", unknowable)
            is_error = block.boolean("is_error")
            return [ToolResultPart(parts, call_id=block.text("tool_use_id"), is_error=is_error)]
        case "thinking":
            return [ThinkingPart(block.text("thinking"), block.text("signature"))]
        case "redacted_thinking":
            return [ThinkingPart(opaque=block.text("data"))]
        case "search_result":
            parts, _ = _read_content(block, "content", unknowable)
            return [TextPart(block.text("title")), TextPart(block.text("source")), *parts]
        case _:
            unknowable.append(kind)
            return [OpaquePart(kind, block.raw)]


def _read_media(block: Fields, kind: Literal["image", "document"], unknowable: list[str]) -> MediaPart:
    source = block.required_child("source")
    media_type = source.text("media_type")
    name = block.text("title")
    match source.text("type"):
        case "base64":
            return MediaPart(kind, media_type, data=source.required_text("data"), name=name)
        case "url":
            unknowable.append(f"remote_{kind}")
            return MediaPart(kind, media_type, url=source.required_text("url"), name=name)
        case "file":
            unknowable.append("file")
            return MediaPart(kind, media_type, file_id=source.required_text("file_id"), name=name)
        case "text" if kind == "document":
            return MediaPart(kind, media_type or "text/plain", text=source.required_text("data"), name=name)
        case other:
            raise source.wrong("type", f"is not a source this API knows: {other!r}.", code="invalid_value")


def _read_document(block: Fields, unknowable: list[str]) -> list[Part]:
    """A document with its context; its title is the part's name."""
    source = block.required_child("source")
    context: list[Part] = [TextPart(block.text("context"))] if block.has("context") else []
    if source.text("type") != "content":
        return [_read_media(block, "document", unknowable), *context]
    parts, _ = _read_content(source, "content", unknowable)
    return [TextPart(block.text("title")), *context, *parts]


def _read_tools(body: Fields) -> tuple[tuple[ToolSpec, ...], tuple[str, ...]]:
    """The caller's own tools, and the types of those that the API defines itself."""
    own: list[ToolSpec] = []
    built_in: list[str] = []
    for tool in body.children("tools"):
        kind = tool.text("type", default="custom")
        if kind != "custom":
            built_in.append(kind)
            continue
        strict = tool.boolean("strict") if tool.has("strict") else None
        own.append(
            ToolSpec(
                tool.required_text("name"),
                tool.optional_text("description"),
                tool.mapping("input_schema"),
                strict=strict,
                raw=tool.raw,
            )
        )
    return tuple(own), tuple(built_in)


def _read_choice(body: Fields) -> ToolChoice | None:
    choice = body.child("tool_choice")
    if choice is None:
        return None
    kind = choice.required_text("type")
    mode = _CHOICES.get(kind)
    if mode is None:
        raise choice.wrong("type", f"must be one of auto, any, tool, none, not {kind!r}.", code="invalid_value")
    return ToolChoice(mode, choice.required_text("name") if mode == "named" else "")


def _read_schema(body: Fields) -> OutputSchema | None:
    config = body.child("output_config")
    wanted = (config.child("format") if config else None) or body.child("output_format")
    if wanted is None:
        return None
    schema: dict[str, Any] | None = wanted.mapping("schema")
    return OutputSchema(schema) if schema is not None else None
