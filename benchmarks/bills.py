"""The promises about counts, held against recorded bills: which share is exact, near, and held in full."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.recorded import count_cases, name_feature
from benchmarks.report import Figure, Report

NEAR = 0.05


@dataclass(frozen=True, slots=True)
class Bill:
    """A recorded call: what the provider billed, what the gateway counts (None: it does not answer) and would hold."""

    kind: str
    group: str
    label: str
    billed: int
    counted: int | None
    held: int

    @property
    def error(self) -> float:
        """Share of the bill that the count is off by."""
        return abs((self.counted or 0) - self.billed) / max(self.billed, 1)


def measure_bills(cases: Path | None) -> Report:
    """Issue 3's figures over a file of recorded calls."""
    if cases is None:
        raise ValueError("There are no recorded calls without a file of them.")
    bills = list(read_bills(cases))
    exact_labels = [bill for bill in bills if bill.label == "exact" and bill.kind != "C"]
    figures = [*_class_a(bills), *_class_b(bills), *_bounds(bills)]
    figures.append(Figure("counts labelled exact that are", _share(exact_labels, _is_exact), "%"))
    return Report("recorded", tuple(figures), (f"{len(bills)} recorded calls.",))


def read_bills(cases: Path) -> Iterable[Bill]:
    """Count a file's calls."""
    for case, found in count_cases(cases):
        yield Bill(
            kind=case["class"],
            group=_group(case),
            label=found.accuracy.value if found is not None else "",
            billed=case["prompt_tokens"],
            counted=found.input_tokens if found is not None else None,
            held=found.upper if found is not None else 0,
        )


def _group(case: dict[str, Any]) -> str:
    """What a promise speaks of: whose model, through which API, using what."""
    feature = name_feature(case)
    model, endpoint = case["model"].lower(), case["endpoint"]
    if "claude" in model:
        return f"Claude {feature}"
    if "gemini" in model:
        return f"Gemini {feature}"
    if endpoint == "embeddings":
        return "embeddings"
    if case["class"] == "A" and case["provider"] in ("openai", "azure", "openrouter"):
        return f"{'OpenAI responses' if endpoint.startswith('responses') else 'OpenAI chat'} {feature}"
    return "open, own host" if case.get("tier") == "direct" else "other"


def _class_a(bills: list[Bill]) -> list[Figure]:
    ours = [bill for bill in bills if bill.kind == "A"]
    goals = {
        "OpenAI chat text": 98,
        "OpenAI chat tools": 82,
        "OpenAI chat tools+calls": 85,
        "OpenAI chat json_schema": 60,
        "OpenAI responses text": 95,
        "OpenAI responses tools": 84,
        "embeddings": 99,
        "Gemini text": 86,
    }
    return [
        Figure("A: exact", _share(ours, _is_exact), "%", 88, least=True),
        Figure("A: within 5 %", _share(ours, _is_near), "%", 96, least=True),
        *(
            Figure(f"A: {name}, exact", _share(found, _is_exact), "%", goal, least=True)
            for name, goal in goals.items()
            if (found := [bill for bill in ours if bill.group == name])
        ),
    ]


def _class_b(bills: list[Bill]) -> list[Figure]:
    ours = [bill for bill in bills if bill.kind == "B"]
    answered = [bill for bill in ours if bill.counted is not None]
    goals = {"Claude text": 68, "Claude tools": 85, "open, own host": 60}
    return [
        Figure("B: answered", 100 * len(answered) / max(1, len(ours)), "%", 97, least=True),
        Figure("B: mean absolute error", 100 * statistics.fmean([bill.error for bill in answered] or [0]), "%", 15),
        Figure("B: within 5 %", _share(answered, _is_near), "%", 62, least=True),
        *(
            Figure(f"B: {name}, within 5 %", _share(found, _is_near), "%", goal, least=True)
            for name, goal in goals.items()
            if (found := [bill for bill in answered if bill.group == name])
        ),
    ]


def _bounds(bills: list[Bill]) -> list[Figure]:
    figures = []
    for kind, most_short, most_slack in (("A", 1.5, 10.0), ("B", 4.0, 45.0)):
        ours = [bill for bill in bills if bill.kind == kind and bill.counted is not None]
        slack = [(bill.held - bill.billed) / max(bill.billed, 1) for bill in ours]
        figures.append(Figure(f"{kind}: held too little", _share(ours, _is_short), "%", most_short))
        figures.append(Figure(f"{kind}: held too much, median", 100 * statistics.median(slack or [0]), "%", most_slack))
    return figures


def _share(bills: list[Bill], holds: Callable[[Bill], bool]) -> float:
    return 100 * sum(map(holds, bills)) / max(1, len(bills))


def _is_exact(bill: Bill) -> bool:
    return bill.counted == bill.billed


def _is_near(bill: Bill) -> bool:
    return bill.counted is not None and bill.error <= NEAR


def _is_short(bill: Bill) -> bool:
    return bill.held < bill.billed
