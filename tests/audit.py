"""``make audit``, and the end of ``make check``: known vulnerabilities of the packages that Tollgate runs with.

Exits with 1 when the advisory service knows of any. Where no advisories can be had (no network, or a mirror that serves
packages without them), says so and exits with 0: a check must not depend on somebody else's network. Development's own
packages are not looked at.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

PROBE = {"django": "2.0"}
"""Known to be vulnerable for years: a service that does not say so has no advisories."""
PROBE_S, MOST_S = 30.0, 120.0
CONNECT_S = 5


def run_time_packages(root: str = "tollgate") -> dict[str, str]:
    """What is installed of everything that the package needs, and that needs in turn, by name and version."""
    found: dict[str, str] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(root, frozenset())]
    while waiting:
        name, extras = waiting.pop()
        for line in requires(name) or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in (extras or {""})):
                continue
            key = requirement.name.lower().replace("_", "-")
            try:
                installed = version(key)
            except PackageNotFoundError:
                continue
            if key not in found:
                found[key] = installed
                waiting.append((key, frozenset(requirement.extras)))
    return found


def audit(packages: dict[str, str], *, probe_s: float = PROBE_S) -> tuple[int, str]:
    """The exit code and what to say of it."""
    try:
        if not known_holes(ask(PROBE, most_s=probe_s)):
            return 0, "audit: SKIPPED, the package index in use has no advisories."
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return 0, f"audit: SKIPPED, no advisories can be had ({type(error).__name__})."
    try:
        holes = known_holes(ask(packages, most_s=MOST_S))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return 1, f"audit: the advisory service answers, and pip-audit failed: {error}"
    if holes:
        return 1, "audit: known vulnerabilities of what Tollgate runs with:\n  " + "\n  ".join(holes)
    return 0, f"audit: {len(packages)} packages, none with a known vulnerability."


def ask(packages: dict[str, str], *, most_s: float) -> dict[str, Any]:
    """pip-audit's report. Raises `ValueError` with its last words when it made none."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "requirements.txt"
        listed.write_text("".join(f"{name}=={number}\n" for name, number in sorted(packages.items())))
        command = [sys.executable, "-m", "pip_audit", "-r", str(listed), "--no-deps", "--disable-pip", "-f", "json"]
        command += ["--progress-spinner", "off", "--timeout", str(CONNECT_S)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=most_s)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise ValueError((done.stderr.strip().splitlines() or ["no output"])[-1][:300]) from None
    return report


def known_holes(report: dict[str, Any]) -> list[str]:
    """A line for each vulnerability in a report."""
    return [
        f"{each['name']} {each['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'none yet'}"
        for each in report["dependencies"]
        for hole in each.get("vulns", ())
    ]


if __name__ == "__main__":
    code, said = audit(run_time_packages())
    print(said)
    sys.exit(code)
