"""The steps from a file to settings: parse, override, validate each field, then what stands between fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gateway.config.build import build_settings
from gateway.config.document import Document, read_document
from gateway.config.problems import ConfigError, Problem
from gateway.config.rules import check_rules
from gateway.config.schema import ConfigFile
from gateway.config.sources import apply_sources
from gateway.config.wording import word_errors
from gateway.settings import Settings

EXTENSION = "x-"
"""Top-level fields that begin so are the file's own (anchors) and are not read."""


def load(path: Path, *, env: Mapping[str, str], overrides: Mapping[str, Any]) -> Settings:
    """Load settings; `gateway.config.load_settings` is the public name."""
    document = read_document(path, env=env)
    if document.data is None and document.problems:
        raise ConfigError(_sorted(document.problems))
    if document.data is None:
        document.data = {}
    if not isinstance(document.data, dict):
        problem = Problem(document.place(()), "the file is not a mapping", "begin with a section such as `server:`")
        raise ConfigError((problem,))
    document.data = {name: value for name, value in document.data.items() if not name.startswith(EXTENSION)}
    apply_sources(document, env=env, overrides=overrides)
    document.data = _without_empty_sections(document.data)
    problems = [] if document.damaged else check_rules(document)
    try:
        config = ConfigFile.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError(_merged(document, [*word_errors(error, document), *problems])) from None
    if problems or document.problems:
        raise ConfigError(_merged(document, problems))
    try:
        return build_settings(config, source=path, version=document.version)
    except ValueError as error:  # a rule of the policy's own that the file's checks do not know
        raise ConfigError((Problem(f"{document.name}:1:1", str(error), "change the file"),)) from None


def _without_empty_sections(data: dict[str, Any]) -> dict[str, Any]:
    """Drop sections with nothing under them: all their options may be commented out."""
    return {name: value for name, value in data.items() if value is not None}


def _merged(document: Document, found: list[Problem]) -> tuple[Problem, ...]:
    """Problems of both stages; what expansion already said about a place is not said again."""
    places = {problem.place for problem in document.problems}
    return _sorted([*document.problems, *(problem for problem in found if problem.place not in places)])


def _sorted(problems: list[Problem]) -> tuple[Problem, ...]:
    def order(problem: Problem) -> tuple[int, int]:
        match = re.search(r":(\d+):(\d+)$", problem.place)
        return (int(match[1]), int(match[2])) if match else (0, 0)

    return tuple(sorted(problems, key=order))
