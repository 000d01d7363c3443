"""What differs between Claude's generations, as data.

Fitted on recorded calls unless a source is named; `tools_auto` and `tools_forced` are the system prompts that the
API adds when there are tools (Anthropic's tool use guide publishes them for Claude 3: Opus 530 / 281,
Sonnet 159 / 235, Haiku 264 / 340).
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers_offline.layouts.claude_text import CLAUDE_2, CLAUDE_3_TO_4_6, CLAUDE_5, Surplus


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation's constants, in tokens.

    `base` is an empty conversation of one message; `interleaved` is what thinking between tool calls adds, which a
    caller asks for in a header (``anthropic-beta: interleaved-thinking-...``) and so may or may not be billed:
    147 to 150 in 11 recorded calls, 0 without the header. `image_edge_px` and `image_tokens` are what an image is
    scaled down to.
    """

    surplus: Surplus
    tools_auto: int
    tools_forced: int
    base: int = 7
    thinking: int = 29
    adaptive_thinking: int = 0
    interleaved: int = 0
    image_edge_px: int = 1568
    image_tokens: int = 1568


_INTERLEAVED = 150
_CLAUDE_3_HAIKU = Generation(CLAUDE_3_TO_4_6, 264, 358)
_CLAUDE_4_6 = Generation(CLAUDE_3_TO_4_6, 497, 592)
_CLAUDE_5 = Generation(CLAUDE_5, 375, 545, image_edge_px=2576, image_tokens=4784)

GENERATIONS: dict[str, Generation] = {
    "claude-2": Generation(CLAUDE_2, 340, 360, base=9),
    "claude-3": _CLAUDE_3_HAIKU,
    "claude-3-opus": Generation(CLAUDE_3_TO_4_6, 527, 281),
    "claude-3-sonnet": Generation(CLAUDE_3_TO_4_6, 160, 235),
    "claude-3.5": Generation(CLAUDE_3_TO_4_6, 295, 317),
    "claude-3.5-haiku": Generation(CLAUDE_3_TO_4_6, 264, 360),
    "claude-3.7": Generation(CLAUDE_3_TO_4_6, 315, 317),
    "claude-4": Generation(CLAUDE_3_TO_4_6, 315, 317, interleaved=_INTERLEAVED),
    "claude-4.5": Generation(CLAUDE_3_TO_4_6, 496, 593, interleaved=_INTERLEAVED),
    "claude-4.6": _CLAUDE_4_6,
    "claude-4.6-opus": Generation(CLAUDE_3_TO_4_6, 497, 592, adaptive_thinking=17),
    "claude-opus-4.7": _CLAUDE_5,
    "claude-5": _CLAUDE_5,
}


def generation_of(family: str, name: str) -> Generation:
    """The constants for a catalog family, with the tier that the model's own name tells (opus, sonnet, haiku)."""
    lowered = name.lower()
    for tier in ("opus", "sonnet", "haiku"):
        found = GENERATIONS.get(f"{family}-{tier}") if tier in lowered else None
        if found is not None:
            return found
    return GENERATIONS.get(family, _CLAUDE_5)
