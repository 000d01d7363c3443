"""What is wrong with a configuration, each with its place and its remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. `place` is ``file:line:column`` or what else the value came from (``environment PORT``)."""

    place: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}; {self.remedy}"


class ConfigError(Exception):
    """The configuration cannot be used; `problems` holds every mistake found, in the file's order."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Name the nearest of the known names as a remedy, or else list them all."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    if near:
        return f"did you mean `{near[0]}`?"
    return "write one of " + ", ".join(f"`{each}`" for each in names)
