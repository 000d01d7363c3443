"""Which tokenizer and layout serve a model name: `catalog.yaml`, read once, asked by name.

A name is looked up as written, then without the prefixes hosts put before it (``openai/``, ``us.anthropic.``,
``accounts/fireworks/models/``, ``ft:``), and among the families' patterns the longest match wins. What follows
a match must be a separator or the end, so ``gpt-4x`` and ``my-gpt-4o`` are unknown, and an unknown name is an
error, never a default.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from tokenizers_offline.layouts.base import ModelSpec
from tokenizers_offline.prompt import Accuracy, CountingError, UnknownModel

LONGEST_NAME = 256
"""Longer names are refused unread: no maker has one, and each pattern costs time on every character."""

_BOUNDARY = r"(?=$|[-_:@+ ])"
_REMEMBERED_NAMES = 4096


class CatalogError(CountingError):
    """The catalog or an override of it is wrong; the message names the entry."""


@dataclass(frozen=True, slots=True)
class Override:
    """An operator's own model name: counted `like` another, or with an encoding and layout of its own.

    `layout` is a layout's name, or a catalogued family or encoding whose layout and template are meant.
    """

    like: str | None = None
    encoding: str | None = None
    layout: str | None = None
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """One entry of ``catalog.yaml``, with its patterns compiled."""

    name: str
    encoding: str
    layout: str
    match: tuple[str, ...] = ()
    own: str = ""
    template: str = ""
    accuracy: Accuracy = Accuracy.EXACT
    max_output_tokens: int | None = None
    description: str = ""
    notes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    patterns: tuple[re.Pattern[str], ...] = ()

    def match_length(self, bare_name: str) -> int:
        """How many characters of a bare lower-case name the best pattern explains; 0 when none does."""
        return max((m.end() for p in self.patterns if (m := p.match(bare_name))), default=0)

    def spec(self, name: str, bare_name: str, installed: Collection[str]) -> ModelSpec:
        """The answer for a caller's name. The bare name travels in the options for layouts that look at versions."""
        encoding, accuracy, notes = self.encoding, self.accuracy, self.notes
        if self.own and self.own in installed:
            encoding, accuracy, notes = self.own, Accuracy.EXACT, ()
        template = self.template or (encoding if self.layout == "jinja" else "")
        return ModelSpec(
            name=name,
            family=self.name,
            encoding=encoding,
            layout=self.layout,
            accuracy=accuracy,
            description=self.description,
            max_output_tokens=self.max_output_tokens,
            template=template,
            options={**self.options, "bare_name": bare_name},
            notes=notes,
        )


class Catalog:
    """Model names to tokenizers. Immutable once loaded, safe to share between threads."""

    def __init__(
        self,
        families: tuple[Family, ...],
        *,
        dotted_vendors: frozenset[str] = frozenset(),
        dashed_vendors: tuple[str, ...] = (),
        overrides: Mapping[str, Override] | None = None,
        installed: Collection[str] = (),
    ) -> None:
        self._families = families
        self._by_name = {family.name: family for family in families}
        self._dotted = dotted_vendors
        self._dashed = tuple(f"{vendor}-" for vendor in dashed_vendors)
        self._overrides = {name.lower(): override for name, override in (overrides or {}).items()}
        self._installed = frozenset(installed)
        self._resolve = lru_cache(maxsize=_REMEMBERED_NAMES)(self._resolve_uncached)
        for name in self._overrides:
            self._override_spec(name, name)  # a wrong override is told at start, not at the first request

    @classmethod
    def load(cls, overrides: Mapping[str, Override] | None = None, *, installed: Collection[str] = ()) -> Catalog:
        """Read the shipped catalog. `installed` names encodings in the store, so that a family whose own vocabulary
        only the hub has stops being counted by a sibling once it is there. Raises `CatalogError`."""
        text = resources.files("tokenizers_offline").joinpath("catalog.yaml").read_bytes()
        raw = yaml.load(text, Loader=_LOADER)  # noqa: S506 - both loaders below are the safe ones
        families = tuple(_family(entry) for entry in raw["families"])
        vendors = raw["vendors"]
        return cls(
            families,
            dotted_vendors=frozenset(vendors["dotted"]),
            dashed_vendors=tuple(vendors["dashed"]),
            overrides=overrides,
            installed=installed,
        )

    def resolve(self, model: str) -> ModelSpec:
        """The tokenizer and layout of a model name. Raises `UnknownModel` with the nearest names."""
        if len(model) > LONGEST_NAME:
            raise UnknownModel(f"{model[:40]}… ({len(model)} characters)")
        spec = self._resolve(model)
        if spec is None:
            raise UnknownModel(model, self._nearest(model))
        return spec

    def models(self) -> tuple[ModelSpec, ...]:
        """One answer for each family, the operator's own names first."""
        own = tuple(self._override_spec(name, name) for name in self._overrides if not _is_glob(name))
        return own + tuple(family.spec(family.name, family.name, self._installed) for family in self._families)

    def encodings(self) -> tuple[str, ...]:
        """Every encoding some catalogued model needs, in catalog order."""
        return tuple(dict.fromkeys(spec.encoding for spec in self.models()))

    def _resolve_uncached(self, model: str) -> ModelSpec | None:
        name = model.strip().lower()
        for key in self._overrides:
            if key == name or (_is_glob(key) and fnmatch.fnmatchcase(name, key)):
                return self._override_spec(key, model)
        return self._catalogued(model)

    def _catalogued(self, model: str) -> ModelSpec | None:
        for bare in self._bare_names(model.strip().lower()):
            if bare in self._by_name:
                return self._by_name[bare].spec(model, bare, self._installed)
            length, family = max(((f.match_length(bare), f) for f in self._families), key=lambda pair: pair[0])
            if length:
                return family.spec(model, bare, self._installed)
        return None

    def _bare_names(self, name: str) -> list[str]:
        """What a name may be without its host's prefixes, in the order to try."""
        name = name.split("#", 1)[0].rsplit("/", 1)[-1]
        if name.startswith("ft:"):  # OpenAI fine-tunes: ft:BASE:ORGANISATION:NAME:ID
            name = name[3:].split(":", 1)[0]
        name = re.sub(r"(?<=\d)p(?=\d)", ".", name)  # Fireworks writes llama-v3p1 for llama-v3.1
        names = [name]
        while "." in name and name.split(".", 1)[0] in self._dotted:
            name = name.split(".", 1)[1]
            names.append(name)
        for prefix in self._dashed * 2:  # twice: databricks-meta-llama
            if name.startswith(prefix):
                name = name[len(prefix) :]
                names.append(name)
        return names

    def _override_spec(self, key: str, model: str) -> ModelSpec:
        override = self._overrides[key]
        if override.like is not None:
            base = self._catalogued(override.like)
            if base is None:
                nearest = ", ".join(self._nearest(override.like))
                raise CatalogError(
                    f"Model '{key}' is to be counted like '{override.like}', which is unknown. {nearest}"
                )
        elif override.encoding is not None:
            base = self._spec_of_encoding(override.encoding)
        else:
            raise CatalogError(f"Model '{key}' needs 'like' or 'encoding'.")
        if override.layout is not None:
            layout, template = self._layout_of(key, override.layout, base)
            base = replace(base, layout=layout, template=template)
        return replace(
            base,
            name=model,
            family=key,
            encoding=override.encoding or base.encoding,
            description=base.description or f"Configured here with {base.encoding}",
            max_output_tokens=override.max_output_tokens or base.max_output_tokens,
            options={**base.options, "bare_name": base.options.get("bare_name", key)},
        )

    def _spec_of_encoding(self, encoding: str) -> ModelSpec:
        for family in self._families:
            if family.encoding == encoding and family.accuracy is not Accuracy.ESTIMATE:
                return family.spec(family.name, family.name, self._installed)
        # The operator's own vocabulary (`tollgate tokenizers add`): laid out by its own template.
        return ModelSpec(name=encoding, family=encoding, encoding=encoding, layout="jinja", template=encoding)

    def _layout_of(self, key: str, layout: str, base: ModelSpec) -> tuple[str, str]:
        for family in self._families:
            if layout in (family.name, family.encoding):
                spec = family.spec(family.name, family.name, self._installed)
                return spec.layout, spec.template
        if layout in {family.layout for family in self._families}:
            return layout, (base.template or base.encoding) if layout == "jinja" else ""
        raise CatalogError(
            f"Model '{key}' has the layout '{layout}', which is neither a layout, a family nor an encoding."
        )

    def _nearest(self, model: str) -> tuple[str, ...]:
        bare = self._bare_names(model.strip().lower())[-1]
        names = [family.name for family in self._families] + list(self._overrides)
        return tuple(difflib.get_close_matches(bare, names, n=5, cutoff=0.5))


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _is_glob(name: str) -> bool:
    return "*" in name or "?" in name


def _family(entry: dict[str, Any]) -> Family:
    """One YAML entry, checked. Raises `CatalogError` naming it."""
    try:
        patterns = entry.get("match") or [re.escape(entry["name"])]
        values = {
            **entry,
            "match": tuple(patterns),
            "accuracy": Accuracy(entry.get("accuracy", "exact")),
            "notes": tuple(entry.get("notes", ())),
            "patterns": tuple(re.compile(f"(?:{pattern}){_BOUNDARY}") for pattern in patterns),
        }
        return Family(**values)
    except (KeyError, TypeError, ValueError, re.error) as error:
        raise CatalogError(f"catalog.yaml: the entry '{entry.get('name', '?')}' is wrong: {error}") from error
