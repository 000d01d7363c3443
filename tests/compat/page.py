"""docs/compatibility.md, from what a run has shown."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from datetime import datetime

from tests.compat.cells import COLUMNS, Row
from tests.compat.scripts import VENV, Result

INTRODUCTION = """# Compatibility

`make compat` runs real clients, unmodified but for their base URL, through Tollgate to a provider that records what it
bills, and writes this page. Each cell has a key and a budget of its own; it passes if the client got the right answer
**and** the budget shows exactly what the provider billed, with nothing left on hold.

- **errors**: the key's month is spent. The client raises its own rate-limit error, nothing reaches the provider, and
  nobody keeps trying; the number is how many requests the client made in all (the OpenAI and Anthropic SDKs heed
  `x-should-retry: false`; others try again a fixed number of times).
- **cancellation**: the client closes a stream after a few pieces. The provider is hung up on, and charged is the
  prompt and what was relayed: no less than the client read, no more than the provider had sent.
- **failure**: the provider answers 500: nothing is charged.
"""


def write_page(rows: Sequence[tuple[Row, dict[str, Result]]], *, at: datetime, took_s: float) -> str:
    """The whole page."""
    lines = [INTRODUCTION]
    for title, through in (("Clients", False), ("Programs in between", True)):
        chosen = [(row, cells) for row, cells in rows if bool(row.through) is through]
        if not chosen:
            continue
        lines.append(f"## {title}\n")
        lines.append("| | version | " + " | ".join(COLUMNS) + " |")
        lines.append("|---|---|" + "---|" * len(COLUMNS))
        for row, cells in chosen:
            shown = [_show(cells.get(column)) for column in COLUMNS]
            lines.append(f"| {row.name} | {', '.join(versions(row))} | " + " | ".join(shown) + " |")
        lines.append("")
    failed = sum(bool(result.error) for _, cells in rows for result in cells.values())
    tried = sum(len(cells) for _, cells in rows)
    lines.append(
        f"{at:%-d %B %Y}: {tried - failed} of {tried} cells passed in {took_s:.0f} s. A dash is what a client or its "
        "API has no word for, and what [Envoy](plugins/envoy.md) does not tell its filters."
    )
    return "\n".join(lines) + "\n"


def versions(row: Row) -> list[str]:
    """The versions of a row's packages, or what its command says of itself."""
    if row.is_node:
        found = [json.loads((VENV / "node_modules" / name / "package.json").read_text()) for name in row.packages]
        return [package["version"] for package in found]
    if not row.packages:
        command = "nginx -v 2>&1 | cut -d/ -f2" if row.through == "nginx" else "curl --version | cut -d' ' -f2"
        return [subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout.split()[0]]
    code = "import importlib.metadata as m, sys; print(*(m.version(name) for name in sys.argv[1:]))"
    command = [str(VENV / "bin/python"), "-c", code, *row.packages]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def installed() -> list[str]:
    """Every package in the clients' environment, as a requirement."""
    code = "import importlib.metadata as m; print(*sorted({f'{d.name}=={d.version}' for d in m.distributions()}))"
    command = [str(VENV / "bin/python"), "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def _show(result: Result | None) -> str:
    if result is None:
        return "–"
    return "**failed**" if result.error else " ".join(("yes", f"({result.note})" if result.note else "")).strip()
