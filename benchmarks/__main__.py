"""The benchmarks behind the README's figures: ``make bench``.

    python -m benchmarks [SECTION ...] [--cases CASES.jsonl.gz] [--json]

Runs the sections named, or all that can run here. A section that cannot says what it lacks; asked for by name,
that is an error.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.bills import measure_bills
from benchmarks.counting import measure_counting
from benchmarks.replay import measure_replay
from benchmarks.report import Report


@dataclass(frozen=True, slots=True)
class Section:
    """One benchmark. `lacks` says what keeps it from running here, or "" when nothing does."""

    name: str
    about: str
    run: Callable[[Path | None], Report]
    lacks: Callable[[Path | None], str]


def main() -> None:
    """Run sections and print them; exit with 1 when one that was named cannot run or fails."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Tollgate's benchmarks.",
        epilog="\n".join(f"  {section.name:<10} {section.about}" for section in SECTIONS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="default: all that can run here")
    parser.add_argument("--cases", type=Path, default=_from_environment(), help="recorded calls (or CASES=...)")
    parser.add_argument("--json", action="store_true", help="figures for programs")
    chosen = parser.parse_args()
    known = {section.name: section for section in SECTIONS}
    unknown = [name for name in chosen.sections if name not in known]
    if unknown:
        parser.error(f"no such section: {', '.join(unknown)}. There are: {', '.join(known)}.")
    screen = Console(stderr=chosen.json, width=max(100, Console().width))
    reports: list[Report] = []
    failed = False
    for section in [known[name] for name in chosen.sections] or SECTIONS:
        lacking = section.lacks(chosen.cases)
        if lacking:
            screen.print(f"{section.name}: left out; {lacking}")
            failed = failed or bool(chosen.sections)
            continue
        screen.print(f"{section.name}: {section.about} ...")
        report = section.run(chosen.cases)
        failed = failed or report.failed
        reports.append(report)
        if not chosen.json:
            _show(report, screen)
    if chosen.json:
        print(json.dumps({**_where(), "reports": [report.as_json() for report in reports]}, indent=2))
    else:
        screen.print(", ".join(f"{name} {value}" for name, value in _where().items()))
    sys.exit(1 if failed else 0)


def _show(report: Report, screen: Console) -> None:
    if report.figures:  # a program of its own has printed its table already
        screen.print(report.as_table(), *report.notes, sep="\n")


def _printing(module: str, *options: str) -> Callable[[Path | None], Report]:
    """A section that is a program of its own and prints its own table."""

    def run(cases: Path | None) -> Report:
        said: list[str] = []
        with subprocess.Popen([sys.executable, "-m", module, *options], stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None
            for line in program.stdout:  # shown as it comes: some take minutes
                said.append(line.rstrip("\n"))
                print(said[-1], file=sys.stderr, flush=True)
        return Report(module.rpartition(".")[2], notes=tuple(said), failed=program.returncode != 0)

    return run


def _lacks_tokenizers(cases: Path | None) -> str:
    folder = Path(os.environ.get("MODELS_DIR", "models"))
    return "" if any((folder / "encodings").glob("*.json")) else f"no tokenizers in {folder} (make tokenizers)"


def _lacks_cases(cases: Path | None) -> str:
    if cases is None:
        return "recorded calls are not part of this project (--cases FILE or CASES=FILE)"
    return _lacks_tokenizers(cases) if cases.is_file() else f"there is no file {cases}"


def _from_environment() -> Path | None:
    return Path(os.environ["CASES"]) if os.environ.get("CASES") else None


def _where() -> dict[str, str]:
    """When and on what machine; a figure means little without it."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": platform.machine(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
    }


SECTIONS = (
    Section("counting", "how fast prompts are counted", lambda _: measure_counting(), _lacks_tokenizers),
    Section("recorded", "counts beside the providers' bills", measure_bills, _lacks_cases),
    Section("replay", "a million past requests under two configurations", lambda _: measure_replay(), lambda _: ""),
    Section("budgets", "what a reserve and its settle cost", _printing("benchmarks.budgets"), lambda _: ""),
    Section(
        "proxy",
        "the whole gateway beside other proxies (minutes)",
        _printing("benchmarks.proxy", "--full"),
        _lacks_tokenizers,
    ),
)


if __name__ == "__main__":
    main()
