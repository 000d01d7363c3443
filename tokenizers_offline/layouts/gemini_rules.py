"""What Gemini counts, by generation and by who serves it, as data."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from tokenizers_offline.layouts.base import ModelSpec
from tokenizers_offline.prompt import ChatPrompt, Dialect, Prompt


@dataclass(frozen=True, slots=True)
class Rules:
    """What one generation counts in one place; amounts are tokens.

    `turn` is added for each content turn, and for a system instruction that carries a role. `signature` is tokens a
    character of a thought signature past its first `signature_free`; `keeps_thoughts` says that earlier turns'
    signatures count too. `schema` says whether a ``responseSchema`` counts. `per_type` and `per_tool` stand beside
    the walked fields of a tool. `proven`: at least 99 % of the recorded text calls (and not just a few) were met.
    """

    tools: Literal["fields", "python", "declarations"]
    turn: int = 0
    signature: float = 0.0
    signature_free: int = 140
    keeps_thoughts: bool = False
    schema: bool = False
    json_schema: bool = False
    per_type: int = 1
    per_tool: int = 0
    image: int = 258
    tiled: bool = False
    pdf_page: int = 258
    returned_pdf_page: int = 258
    audio_second: float = 25.0
    video_second: float = 283.0
    proven: bool = True


_AI_STUDIO_3 = Rules(
    "declarations",
    turn=1,
    signature=0.21,
    image=1095,
    pdf_page=526,
    returned_pdf_page=1102,
    video_second=66.0,
)
_VERTEX_3 = Rules(
    "fields",
    json_schema=True,
    per_type=4,
    per_tool=4,
    image=1095,
    pdf_page=526,
    returned_pdf_page=526,
    video_second=90.0,
    proven=False,
)
_RULES = {
    ("ai_studio", "1"): Rules("fields", schema=True, proven=False),
    ("ai_studio", "2.0"): Rules("fields", schema=True, tiled=True, proven=False),
    ("ai_studio", "2.5"): Rules("python", turn=1, audio_second=32.0, video_second=290.0),
    ("ai_studio", "3"): _AI_STUDIO_3,
    ("ai_studio", "3.5"): replace(_AI_STUDIO_3, keeps_thoughts=True),
    ("vertex", "1"): Rules("fields", schema=True, proven=False),
    ("vertex", "2.0"): Rules("fields", schema=True, tiled=True),
    ("vertex", "2.5"): Rules("fields", schema=True, signature=0.17, signature_free=60, pdf_page=1290),
    ("vertex", "3"): _VERTEX_3,
    ("vertex", "3.5"): replace(_VERTEX_3, signature=0.19, signature_free=40, keeps_thoughts=True),
}
_ROUTED = {
    "1": _RULES["vertex", "1"],
    "2.0": _RULES["vertex", "2.0"],
    "2.5": replace(_RULES["vertex", "2.5"], pdf_page=258),
    "3": replace(_VERTEX_3, per_type=1, per_tool=0, json_schema=False),
    "3.5": replace(_VERTEX_3, per_type=1, per_tool=0, json_schema=False),
}
"""Behind OpenRouter and Vercel, who buy from Vertex AI."""
_GENERATIONS = {"gemini-1.5": "1", "gemini-2.0": "2.0", "gemini-2.5": "2.5", "gemini-embedding": "2.5"}
_LATER_THAN_3 = re.compile(r"gemini-(?:3\.[5-9]|[4-9]|\d\d)")


def rules_for(prompt: Prompt, model: ModelSpec, platform: str) -> Rules:
    """The rules for a model where it is served; a Gemini request that says nothing else goes to AI Studio."""
    late = "3.5" if _LATER_THAN_3.search(model.name.lower()) else "3"
    generation = _GENERATIONS.get(model.family, late)
    routed = isinstance(prompt, ChatPrompt) and prompt.dialect is not Dialect.GEMINI
    if routed and platform not in ("", "ai_studio", "gemini", "google"):
        return _ROUTED[generation]
    vertex = platform == "vertex" or (isinstance(prompt, ChatPrompt) and prompt.options.get("vertex"))
    return _RULES["vertex" if vertex else "ai_studio", generation]
