"""Tokens hosts add in secret: what is known from recorded bills (`overheads.yaml`) and what an operator configures.

What is learned while running lives elsewhere (`tokenizers_offline.learning`) and builds on these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from tokenizers_offline.prompt import CountingError

FEATURES = frozenset(
    {
        "tools",
        "named_tool",
        "calls",
        "schema",
        "thinking",
        "image",
        "audio",
        "video",
        "document",
        "text",
        "completion",
        "embedding",
    }
)
"""What a rule may name besides its base `tokens`."""


class OverheadError(CountingError):
    """A rule is wrong; the message names it."""


@dataclass(frozen=True, slots=True)
class OverheadRule:
    """Tokens for the models that match any glob of `models` on `platform` ("" is any): `tokens` always, and those of
    `by_feature` for each feature a prompt has. Negative where a host adds less than the model's own template.

    `may_add` is what only some of a router's hosts add: held, but not counted."""

    models: tuple[str, ...]
    platform: str = ""
    tokens: int = 0
    may_add: int = 0
    by_feature: Mapping[str, int] = field(default_factory=dict)

    def matches(self, platform: str, model: str) -> bool:
        """Whether the rule speaks of this model on this platform."""
        return self.platform in ("", platform) and any(fnmatchcase(model, pattern) for pattern in self.models)

    def total(self, features: Iterable[str]) -> int:
        """What the rule adds to a prompt with these features."""
        return self.tokens + sum(self.by_feature.get(feature, 0) for feature in features)


class Overheads:
    """An ordered list of rules; the first that matches applies. Safe to share between threads."""

    def __init__(self, rules: Iterable[OverheadRule] = ()) -> None:
        self._rules = tuple(rules)
        self._rule = lru_cache(maxsize=4096)(self._find)

    @classmethod
    def load(cls, configured: Iterable[OverheadRule] = ()) -> Overheads:
        """The shipped rules, behind the operator's own. Raises `OverheadError`."""
        text = resources.files("tokenizers_offline").joinpath("overheads.yaml").read_text("utf-8")
        return cls((*configured, *(read_rule(raw) for raw in yaml.safe_load(text)["rules"])))

    @property
    def rules(self) -> tuple[OverheadRule, ...]:
        """Every rule in the order they are tried."""
        return self._rules

    def tokens(self, platform: str, model: str, features: Iterable[str]) -> int:
        """Hidden tokens for a bare model name. An unnamed platform adds nothing: it may be the bare model."""
        if not platform:
            return 0
        rule = self._rule(platform, model.lower())
        return rule.total(features) if rule is not None else 0

    def may_add(self, platform: str, model: str) -> int:
        """Tokens that the host a router picks may add besides; 0 where none is known to."""
        rule = self._rule(platform, model.lower()) if platform else None
        return rule.may_add if rule is not None else 0

    def _find(self, platform: str, model: str) -> OverheadRule | None:
        return next((rule for rule in self._rules if rule.matches(platform, model)), None)


def read_rule(raw: Mapping[str, Any]) -> OverheadRule:
    """One rule as YAML writes it: ``{platform, models, tokens, tools, ...}``. Raises `OverheadError` naming it."""
    unknown = set(raw) - FEATURES - {"platform", "models", "tokens", "may_add"}
    figures = {name: value for name, value in raw.items() if name not in ("platform", "models")}
    wrong = [name for name, value in figures.items() if type(value) is not int]
    models = raw.get("models")
    if unknown or wrong or not isinstance(models, list) or not models:
        reason = f"unknown {sorted(unknown)}" if unknown else f"not whole numbers: {wrong}" if wrong else "no models"
        raise OverheadError(f"The overhead rule {dict(raw)} is wrong: {reason}.")
    return OverheadRule(
        models=tuple(str(pattern).lower() for pattern in models),
        platform=str(raw.get("platform", "")),
        tokens=figures.pop("tokens", 0),
        may_add=figures.pop("may_add", 0),
        by_feature=figures,
    )
