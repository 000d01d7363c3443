"""A benchmark's outcome: figures beside what they should be, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement. `goal` is the most (or with `least` the least) it should be; None where there is no goal."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.least else self.value <= self.goal


@dataclass(frozen=True, slots=True)
class Report:
    """A section's figures, and what must be known to read them."""

    section: str
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = field(default=())
    failed: bool = False
    """The section could not be run to its end; a missed goal is a figure, not a failure."""

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        figures = [{**asdict(figure), "met": figure.met} for figure in self.figures]
        return {"section": self.section, "figures": figures, "notes": list(self.notes), "failed": self.failed}

    def as_table(self) -> Table:
        """The same for a terminal."""
        table = Table("figure", "measured", "goal", "", title=self.section, title_justify="left")
        for figure in self.figures:
            sign = ">=" if figure.least else "<="
            goal = "" if figure.goal is None else f"{sign} {figure.goal:g} {figure.unit}"
            verdict = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[figure.met]
            table.add_row(figure.name, f"{figure.value:.4g} {figure.unit}", goal, verdict)
        return table
