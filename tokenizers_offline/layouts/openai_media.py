"""Images, sounds and documents in OpenAI's prompts."""

from __future__ import annotations

import math

from tokenizers_offline.images import measure
from tokenizers_offline.layouts.openai_images import Tiles, find_image_rule
from tokenizers_offline.layouts.openai_tally import Tally
from tokenizers_offline.payload import Payload
from tokenizers_offline.prompt import Accuracy, MediaPart

_TOKENS_PER_SECOND = 10
_AUDIO_EXTRA = 4
_DOCUMENT_FRAME = 14
_CHAT_PAGE = 200
"""In chat completions each page also goes in as an image (recorded: 200 to 220 a page; in responses, none)."""
_PAGE_TEXT = 500
"""Tokens of a page whose text cannot be read."""
_UNKNOWN_DOCUMENT = 1000
_MAX_TEXT_CHARACTERS = 8 * 1024 * 1024
_TEXT_TYPES = ("text/", "application/json", "application/xml", "application/x-yaml")
_UNKNOWN_SECONDS = 60


def add_media(tally: Tally, part: MediaPart, model: str, *, in_chat: bool) -> None:
    """Count one medium for a bare lower-case model name; what cannot be measured is bounded by the most it can cost."""
    part = measure(part)
    match part.kind:
        case "image":
            _add_image(tally, part, model)
        case "audio":
            _add_audio(tally, part)
        case _:
            _add_document(tally, part, in_chat=in_chat)


def _add_image(tally: Tally, part: MediaPart, model: str) -> None:
    tally.add_feature("image")
    rule = find_image_rule(model)
    if part.width is not None and part.height is not None:
        tally.add_tokens(rule.count(part.width, part.height, detail=part.detail))
        tally.doubt("Images are counted by OpenAI's published formula.", extra=8)
        return
    if part.detail == "low" and isinstance(rule, Tiles):
        tally.add_tokens(rule.base)
        tally.doubt("Images are counted by OpenAI's published formula.", extra=8)
        return
    typical = rule.count(1024, 1024, detail=part.detail)
    tally.add_feature("remote_image")
    tally.add_tokens(typical)
    tally.doubt(
        "An image given by address or file id is never fetched: a 1024 x 1024 one is assumed.",
        extra=max(0, rule.most - typical),
        accuracy=Accuracy.ESTIMATE,
    )


def _add_audio(tally: Tally, part: MediaPart) -> None:
    tally.add_feature("audio")
    if part.seconds is None:
        tally.add_tokens(_UNKNOWN_SECONDS * _TOKENS_PER_SECOND)
        tally.doubt(
            "The length of a recording could not be read: one minute is assumed.",
            factor=2.0,
            extra=600,
            accuracy=Accuracy.ESTIMATE,
        )
        return
    tally.add_tokens(math.floor(_TOKENS_PER_SECOND * part.seconds) + _AUDIO_EXTRA)
    tally.doubt("Audio is counted as 10 tokens a second.", factor=1.1, extra=16, accuracy=Accuracy.ESTIMATE)


def _add_document(tally: Tally, part: MediaPart, *, in_chat: bool) -> None:
    tally.add_feature("file")
    text = _read_text(part)
    if text is not None:
        tally.add_text(text)
        tally.doubt("How a text file is framed is not documented.", factor=1.1, extra=64)
        return
    if part.pages is None:
        tally.add_tokens(_UNKNOWN_DOCUMENT)
        tally.doubt(
            "The length of a document could not be read: a short one is assumed.",
            factor=2.0,
            extra=20_000,
            accuracy=Accuracy.ESTIMATE,
        )
        return
    tally.add_tokens(_DOCUMENT_FRAME + part.pages * (_CHAT_PAGE if in_chat else 0))
    if part.text is None:
        tally.add_tokens(part.pages * _PAGE_TEXT)
    else:
        tally.add_text(part.text)
    tally.doubt(
        "A document is counted by its text and pages; no rule is published.",
        factor=1.1 if part.text is not None else 1.5,
        extra=part.pages * (200 if part.text is not None else 900),
        accuracy=Accuracy.ESTIMATE,
    )


def _read_text(part: MediaPart) -> str | None:
    """A file that is plain text, decoded; None for any other."""
    if part.data is None or not part.media_type.startswith(_TEXT_TYPES) or len(part.data) > _MAX_TEXT_CHARACTERS:
        return None
    return Payload(part.data).read(0, len(part.data)).decode("utf-8", "replace")
