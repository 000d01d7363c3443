"""Gemini's contents, tools and schemas read into the neutral prompt.

The API reads its JSON the protobuf way: a field may be written in camelCase or in snake_case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from gateway.formats.fields import Fields
from tokenizers_offline.prompt import (
    ChatPrompt,
    Dialect,
    MediaPart,
    Message,
    OpaquePart,
    OutputSchema,
    Part,
    TextPart,
    TextPrompt,
    ThinkingPart,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
    ToolSpec,
)

_MODES: dict[str, Literal["auto", "none", "required"]] = {
    "MODE_UNSPECIFIED": "auto",
    "AUTO": "auto",
    "VALIDATED": "auto",
    "NONE": "none",
    "ANY": "required",
}
_SERVER_PARTS = {"executableCode": "code_execution", "codeExecutionResult": "code_execution"}
_CALLED_BY_SERVER = ("toolCall", "toolResponse")


def either(fields: Fields, name: str) -> str:
    """The spelling of a camelCase field that the caller used."""
    if name in fields.raw:
        return name
    snake = "".join(f"_{char.lower()}" if char.isupper() else char for char in name)
    return snake if snake in fields.raw else name


def child(fields: Fields, name: str) -> Fields | None:
    """The object under a field in either spelling."""
    return fields.child(either(fields, name))


def one_or_many(fields: Fields, name: str) -> Iterator[Fields]:
    """The objects of a list; an object in its place counts as a list of one, as the API itself reads it."""
    name = either(fields, name)
    if type(fields.raw.get(name)) is dict:
        yield fields.required_child(name)
    else:
        yield from fields.children(name)


def read_prompt(body: Fields, *, vertex: bool = False) -> ChatPrompt:
    """The prompt of a generateContent or countTokens body. Raises `BadRequest` naming the field.

    The options it may carry: ``vertex``, ``response_json_schema`` (which spelling the schema came in) and
    ``allowed_function_names``; all of them change what the API counts.
    """
    unknowable: list[str] = []
    messages: list[Message] = []
    system = either(body, "systemInstruction")
    if type(body.raw.get(system)) is str:
        messages.append(Message("system", (TextPart(body.text(system)),)))
    elif body.has(system):
        instruction = body.required_child(system)
        turn = _read_turn(instruction, "system", unknowable)
        messages.append(replace(turn, extra={"role": instruction.text("role")} if instruction.has("role") else {}))
    if not body.has("contents"):
        raise body.wrong("contents", "is missing.", code="missing_required_parameter")
    turns = one_or_many(body, "contents")
    messages.extend(_read_turn(turn, turn.text("role", default="user"), unknowable) for turn in turns)
    if body.has(either(body, "cachedContent")):
        unknowable.append("cached_content")
    tools, server_tools = _read_tools(body)
    config = child(body, "generationConfig") or Fields({}, parent=body, key="generationConfig")
    choice, allowed = _read_choice(body)
    json_schema = config.has(either(config, "responseJsonSchema"))
    options = {"vertex": vertex, "response_json_schema": json_schema, "allowed_function_names": allowed}
    return ChatPrompt(
        Dialect.GEMINI,
        tuple(messages),
        tools=tools,
        tool_choice=choice,
        output_schema=_read_schema(config),
        thinking=config.mapping(either(config, "thinkingConfig")),
        server_tools=server_tools,
        unknowable=tuple(dict.fromkeys(unknowable)),
        options={name: value for name, value in options.items() if value},
    )


def read_embedding(body: Fields) -> TextPrompt:
    """The texts of an embedContent or batchEmbedContents body."""
    many = list(body.children("requests")) if body.has("requests") else [body]
    items: list[str] = []
    unknowable: list[str] = []
    for request in many:
        content = request.required_child("content")
        parts = [part for entry in one_or_many(content, "parts") for part in _read_part(entry, unknowable)]
        items.append("".join(part.text for part in parts if isinstance(part, TextPart)))
        unknowable.extend(part.kind for part in parts if isinstance(part, MediaPart))
    return TextPrompt(tuple(items), purpose="embedding", unknowable=tuple(dict.fromkeys(unknowable)))


def _read_turn(turn: Fields, role: str, unknowable: list[str]) -> Message:
    parts = [part for entry in one_or_many(turn, "parts") for part in _read_part(entry, unknowable)]
    return Message(role, tuple(parts), as_list=True)


def _read_part(part: Fields, unknowable: list[str]) -> list[Part]:
    signature = part.text(either(part, "thoughtSignature"))
    signed: list[Part] = [ThinkingPart(opaque=signature)] if signature else []
    if part.has("text"):
        text = part.text("text")
        if part.boolean("thought"):
            return [ThinkingPart(text, signature)]
        return [TextPart(text), *signed]
    media = _read_media(part, unknowable)
    if media is not None:
        return [media, *signed]
    call = child(part, "functionCall")
    if call is not None:
        arguments = call.mapping("args") or {}
        return [ToolCallPart(call.required_text("name"), arguments, call_id=call.text("id")), *signed]
    answer = child(part, "functionResponse")
    if answer is not None:
        return [_read_response(answer, unknowable), *signed]
    for kind in (*_SERVER_PARTS, *_CALLED_BY_SERVER):
        ran = child(part, kind)
        if ran is not None:
            unknowable.append(_SERVER_PARTS.get(kind, "server_tool_call"))
            return [OpaquePart(kind, ran.raw), *signed]
    if part.raw.keys() - {"thoughtSignature", "thought_signature", "thought"}:
        kind = next(iter(part.raw))
        unknowable.append(kind)
        return [OpaquePart(kind, part.raw), *signed]
    return signed


def _read_response(answer: Fields, unknowable: list[str]) -> ToolResultPart:
    media = [found for entry in answer.children("parts") for found in _read_part(entry, unknowable)]
    return ToolResultPart(
        tuple(media),
        call_id=answer.text("id"),
        name=answer.required_text("name"),
        response=answer.mapping("response") or {},
    )


def _read_media(part: Fields, unknowable: list[str]) -> MediaPart | None:
    inline = child(part, "inlineData")
    if inline is not None:
        media_type = inline.text(either(inline, "mimeType"))
        data = inline.text("data")
        return MediaPart(_kind_of(media_type), media_type, data=data, name=inline.text(either(inline, "displayName")))
    stored = child(part, "fileData")
    if stored is None:
        return None
    media_type = stored.text(either(stored, "mimeType"))
    unknowable.append("file")
    return MediaPart(_kind_of(media_type), media_type, file_id=stored.text(either(stored, "fileUri")))


def _kind_of(media_type: str) -> Literal["image", "audio", "video", "document"]:
    match media_type.partition("/")[0].lower():
        case "image":
            return "image"
        case "audio":
            return "audio"
        case "video":
            return "video"
    return "document"


def _read_tools(body: Fields) -> tuple[tuple[ToolSpec, ...], tuple[str, ...]]:
    """The caller's functions, and the names of the tools that the API runs itself."""
    functions: list[ToolSpec] = []
    built_in: list[str] = []
    for tool in one_or_many(body, "tools"):
        declared = either(tool, "functionDeclarations")
        for function in tool.children(declared):
            schema = either(function, "parametersJsonSchema")
            parameters = function.mapping(schema if function.has(schema) else "parameters")
            description = function.optional_text("description")
            functions.append(ToolSpec(function.required_text("name"), description, parameters, raw=function.raw))
        built_in.extend(name for name in tool.raw if name != declared and tool.has(name))
    return tuple(functions), tuple(built_in)


def _read_choice(body: Fields) -> tuple[ToolChoice | None, tuple[str, ...]]:
    tool_config = child(body, "toolConfig")
    config = child(tool_config, "functionCallingConfig") if tool_config else None
    if config is None:
        return None, ()
    mode = config.text("mode", default="AUTO").upper()
    if mode not in _MODES:
        raise config.wrong("mode", f"must be one of AUTO, ANY, NONE, VALIDATED, not {mode!r}.", code="invalid_value")
    names = config.array(either(config, "allowedFunctionNames")) or []
    if not all(type(name) is str for name in names):
        raise config.wrong_type(either(config, "allowedFunctionNames"), "an array of strings")
    if mode == "ANY" and len(names) == 1:
        return ToolChoice("named", names[0]), tuple(names)
    return ToolChoice(_MODES[mode]), tuple(names)


def _read_schema(config: Fields) -> OutputSchema | None:
    for name in ("responseJsonSchema", "responseSchema"):
        schema = config.mapping(either(config, name))
        if schema is not None:
            return OutputSchema(schema)
    wants_json = config.text(either(config, "responseMimeType")) == "application/json"
    return OutputSchema(None) if wants_json else None
