"""Content parts as OpenAI's dialects write them, read into the neutral prompt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from gateway.errors import BadRequest
from gateway.formats.fields import Fields, name_type
from tokenizers_offline.prompt import MediaPart, OpaquePart, OutputSchema, Part, TextPart, ToolChoice, ToolSpec

MediaKind = Literal["image", "audio", "video", "document"]

_DATA_URL = re.compile(r"data:(?P<type>[^;,]*)(?:;[^,]*)?,", re.IGNORECASE)
_AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg", "flac": "audio/flac", "opus": "audio/opus"}


def read_media(kind: MediaKind, address: str, *, detail: str = "auto", name: str = "") -> MediaPart:
    """Media given by address: a data URL keeps its base64 text, anything else is a remote address."""
    match = _DATA_URL.match(address[:256])
    if match is None:
        return MediaPart(kind, url=address, detail=detail, name=name)
    return MediaPart(kind, media_type=match["type"].lower(), data=address[match.end() :], detail=detail, name=name)


def read_parts(fields: Fields, name: str) -> tuple[tuple[Part, ...], bool]:
    """A content field: its parts, and whether it came as a list. Absent, null and "" read as no parts."""
    value = fields.raw.get(name)
    if type(value) is str:
        return ((TextPart(value),) if value else ()), False
    if value is None:
        return (), False
    if type(value) is not list:
        raise fields.wrong(name, f"must be a string or an array of parts, not {name_type(value)}.", code="invalid_type")
    return tuple(_read_elements(fields, name, value)), True


def _read_elements(fields: Fields, name: str, values: list[Any]) -> Iterator[Part]:
    for index, value in enumerate(values):
        if type(value) is str:  # not documented, but accepted by several compatible servers
            yield TextPart(value)
        elif type(value) is dict:
            yield _read_part(Fields(value, parent=fields, key=f"{name}[{index}]"))
        else:
            path = fields.path_of(f"{name}[{index}]")
            raise BadRequest(f"'{path}' must be an object, not {name_type(value)}.", param=path, code="invalid_type")


def _read_part(part: Fields) -> Part:
    kind = part.text("type", default="text" if "text" in part.raw else "")
    match kind:
        case "text" | "input_text" | "output_text" | "summary_text" | "reasoning_text":
            return TextPart(part.text("text"))
        case "refusal":
            return TextPart(part.text("refusal"))
        case "image_url" | "input_image":
            return _read_image(part)
        case "video_url" | "input_video":
            return read_media("video", _read_address(part, "video_url"))
        case "input_audio":
            return _read_audio(part)
        case "file" | "input_file":
            return _read_file(part.child("file") or part)
        case "document_url":  # Mistral
            return read_media("document", _read_address(part, "document_url"))
        case _:
            return OpaquePart(kind or "part", part.raw)


def _read_address(part: Fields, name: str) -> str:
    """``{"url": ...}`` (chat) or the bare string (responses); "" when absent."""
    if type(part.raw.get(name)) is dict:
        return part.required_child(name).text("url")
    return part.text(name)


def _read_image(part: Fields) -> Part:
    holder = part.required_child("image_url") if type(part.raw.get("image_url")) is dict else part
    detail = holder.text("detail", default="auto")
    file_id = part.optional_text("file_id")
    if file_id is not None:
        return MediaPart("image", file_id=file_id, detail=detail)
    return read_media("image", _read_address(part, "image_url"), detail=detail)


def _read_audio(part: Fields) -> Part:
    audio = part.required_child("input_audio")
    form = audio.text("format").lower()
    data = audio.text("data")
    if data.startswith("data:"):
        return read_media("audio", data)
    return MediaPart("audio", media_type=_AUDIO_TYPES.get(form, f"audio/{form}"), data=data)


def _read_file(file: Fields) -> Part:
    name = file.text("filename")
    data = file.optional_text("file_data")
    if data is not None:
        part = read_media("document", data, name=name)
        return part if part.url is None else MediaPart("document", media_type="", data=data, name=name)
    url = file.optional_text("file_url")
    if url is not None:
        return read_media("document", url, name=name)
    return MediaPart("document", file_id=file.text("file_id"), name=name)


def read_tool(function: Fields, raw: Mapping[str, Any]) -> ToolSpec:
    """A function's declaration; `raw` is the tool as the caller wrote it."""
    return ToolSpec(
        name=function.required_text("name"),
        description=function.optional_text("description"),
        parameters=function.mapping("parameters"),
        strict=function.boolean("strict") if function.has("strict") else None,
        raw=raw,
    )


def read_tool_choice(body: Fields, name: str) -> ToolChoice | None:
    """``auto`` | ``none`` | ``required`` | a named tool, in either dialect; None when absent."""
    value = body.raw.get(name)
    if type(value) is dict:
        choice = body.required_child(name)
        kind = choice.text("type")
        inner = choice.child("function") or choice.child("custom") or choice
        if inner.has("name"):
            return ToolChoice("named", inner.text("name"))
        if kind == "allowed_tools":
            mode = (choice.child("allowed_tools") or choice).text("mode")
            return ToolChoice("required" if mode == "required" else "auto")
        return ToolChoice("required")  # a built-in tool by its type
    word = body.optional_text(name)
    match word:
        case None:
            return None
        case "none":
            return ToolChoice("none")
        case "required" | "any":
            return ToolChoice("required")
        case _:
            return ToolChoice("auto")


def read_schema(holder: Fields) -> OutputSchema:
    """A ``json_schema`` format: name, schema, description, strict."""
    return OutputSchema(
        schema=holder.mapping("schema") or {},
        name=holder.text("name"),
        description=holder.optional_text("description"),
        strict=holder.boolean("strict") if holder.has("strict") else None,
    )
