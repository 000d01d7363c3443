"""Reload a gateway's configuration under load, well and badly, and print what came of it.

    python -m benchmarks.reloads [--workers N] [--callers N] [--reloads N] [--bad N] [--keep FOLDER]

Ends with status 1 when anything contradicts the promises.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from benchmarks.reloads.drill import Scale, drill
from benchmarks.report import Figure, Report

GOAL_S = 1.0


def main() -> None:
    """Parse, run, print."""
    usual = Scale()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reloads", description=__doc__)
    for name in ("workers", "callers", "reloads", "bad"):
        parser.add_argument(f"--{name}", type=int, default=getattr(usual, name))
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the store and the log there")
    options = vars(parser.parse_args())
    keep = options.pop("keep")
    if keep is not None:
        keep.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        findings = asyncio.run(drill(Scale(**options), keep or Path(folder)))
    waits_s = sorted(findings.known_after_s)
    _print(
        Report(
            "reloads under load",
            (
                Figure("requests", findings.requests, ""),
                Figure("of them streams", findings.streams, ""),
                Figure("tokens charged", findings.charged, ""),
                Figure("good files", len(waits_s), ""),
                Figure("bad files refused by /admin/reload", findings.refused_files, ""),
                Figure("all workers on the new version, median", waits_s[len(waits_s) // 2], "s", GOAL_S),
                Figure("all workers on the new version, slowest", waits_s[-1], "s", GOAL_S),
                Figure(
                    "violations (failed requests, lost tokens, changes by bad files)", len(findings.violations), "", 0
                ),
            ),
        )
    )
    for violation in findings.violations[:20]:
        print(violation)
    sys.exit(1 if findings.violations else 0)


def _print(report: Report) -> None:
    from rich.console import Console

    Console(width=110).print(report.as_table())


if __name__ == "__main__":
    main()
