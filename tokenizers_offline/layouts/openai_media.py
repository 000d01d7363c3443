"""Images, sounds and documents in OpenAI's prompts."""

from __future__ import annotations

import math

from tokenizers_offline.images import measure
from tokenizers_offline.layouts.openai_images import Tiles, find_image_rule
from tokenizers_offline.layouts.openai_tally import Tally
from tokenizers_offline.prompt import Accuracy, MediaPart

_TOKENS_PER_SECOND = 10
_AUDIO_EXTRA = 4
_TOKENS_PER_PAGE = 1200
"""A page is sent as its text and as an image; no rule is known. Pages seen in recorded calls cost 200 to 1,600."""
_UNKNOWN_PAGES = 5
_UNKNOWN_SECONDS = 60


def add_media(tally: Tally, part: MediaPart, model: str) -> None:
    """Count one medium for a bare lower-case model name; what cannot be measured is bounded by the most it can cost."""
    part = measure(part)
    match part.kind:
        case "image":
            _add_image(tally, part, model)
        case "audio":
            _add_audio(tally, part)
        case _:
            _add_document(tally, part)


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


def _add_document(tally: Tally, part: MediaPart) -> None:
    tally.add_feature("file")
    tally.add_text(part.text or "")
    tally.add_tokens((part.pages or _UNKNOWN_PAGES) * _TOKENS_PER_PAGE)
    tally.doubt(
        "No rule is known for documents: a typical page is assumed.",
        factor=1.5,
        extra=500 if part.pages else 20_000,
        accuracy=Accuracy.ESTIMATE,
    )
