"""Image sizes -> tokens by the formulas of OpenAI's vision guide: tiles for older models, patches for newer ones."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tiles:
    """`base` + `tile` for each 512-pixel square after fitting into 2048 x 2048 and a short side of 768."""

    base: int
    tile: int

    def count(self, width: int, height: int, *, detail: str) -> int:
        if detail == "low":
            return self.base
        fit = min(1.0, 2048 / max(width, height))
        fit *= min(1.0, 768 / (min(width, height) * fit))
        across, down = (max(1, math.ceil(round(side * fit, 4) / 512)) for side in (width, height))
        return self.base + self.tile * across * down

    @property
    def most(self) -> int:
        """What the largest image can cost: 2048 x 768 is 4 x 2 tiles."""
        return self.base + 8 * self.tile


@dataclass(frozen=True, slots=True)
class Patches:
    """`factor` for each patch of 32 x 32 pixels, at most `limit` of them, plus `extra`."""

    factor: float
    extra: int
    limit: int = 1536

    def count(self, width: int, height: int, *, detail: str) -> int:
        across, down = math.ceil(width / 32), math.ceil(height / 32)
        if across * down > self.limit:
            shrink = math.sqrt(self.limit * 32 * 32 / (width * height))
            columns, rows = width * shrink / 32, height * shrink / 32
            shrink *= min(math.floor(columns) / columns, math.floor(rows) / rows)
            across, down = math.ceil(round(width * shrink / 32, 6)), math.ceil(round(height * shrink / 32, 6))
        return math.ceil(min(across * down, self.limit) * self.factor) + self.extra

    @property
    def most(self) -> int:
        return math.ceil(self.limit * self.factor) + self.extra


_RULES: tuple[tuple[re.Pattern[str], Tiles | Patches], ...] = (
    (re.compile(r"gpt-4o-mini"), Tiles(2833, 5667)),
    (re.compile(r"gpt-4\.1-mini"), Patches(1.62, 1)),
    (re.compile(r"gpt-4\.1-nano"), Patches(2.46, 1)),
    (re.compile(r"o4-mini"), Patches(1.72, 1)),
    (re.compile(r"gpt-5\.(?:[4-9]|\d\d)|gpt-(?:[6-9]|\d\d)"), Patches(1.2, 2)),
    (re.compile(r"gpt-5(?:\.\d+)?-mini|gpt-5\.1-codex-mini"), Patches(1.2, 2)),
    (re.compile(r"gpt-5(?:\.\d+)?-nano"), Patches(1.5, 3)),
    (re.compile(r"gpt-5"), Tiles(70, 140)),
    (re.compile(r"o\d"), Tiles(75, 150)),
)
_GPT_4 = Tiles(85, 170)


def find_image_rule(model: str) -> Tiles | Patches:
    """The formula of a bare lower-case model name; GPT-4o's where no other is known."""
    for pattern, rule in _RULES:
        if pattern.match(model):
            return rule
    return _GPT_4
