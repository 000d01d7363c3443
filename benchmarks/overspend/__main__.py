"""``make overspend``: try hard to overspend, on SQLite and on Redis, and print what came of it.

    python -m benchmarks.overspend [--store sqlite|redis] [--callers N] [--seconds S] [--seed N] [--keep FOLDER]

Ends with status 1 when anything contradicts the promises.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import uvloop

from benchmarks.overspend.cases import Scale
from benchmarks.overspend.run import overspend, scaled
from benchmarks.overspend.verdict import Verdict


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overspend", description=__doc__)
    parser.add_argument("--store", choices=["sqlite", "redis"], action="append")
    parser.add_argument("--callers", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--size", type=int, help="tokens that limits are multiples of")
    parser.add_argument("--kill-every", type=float, dest="kill_every_s")
    parser.add_argument("--gateways", type=int, help="how many `tollgate serve`")
    parser.add_argument("--workers", type=int, help="processes of each")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep stores and logs there")
    options = vars(parser.parse_args())
    stores, keep = options.pop("store") or ["sqlite", "redis"], options.pop("keep")
    scale = scaled(Scale(), **options)
    failed = False
    for store in stores:
        if store == "redis" and shutil.which("redis-server") is None:
            sys.exit("redis-server is not installed (apt-get install redis-server), or run with --store sqlite")
        folder = None
        if keep is not None:
            folder = keep / store
            folder.mkdir(parents=True)
        verdict = uvloop.run(overspend(store, scale, folder=folder, say=_say))
        _print(verdict)
        failed = failed or bool(verdict.violations)
    sys.exit(1 if failed else 0)


def _say(what: str) -> None:
    print(f"... {what}", flush=True)


def _print(verdict: Verdict) -> None:
    for name, figure in verdict.figures.items():
        print(f"{name:>52}  {figure}")
    print(f"{'VIOLATIONS':>52}  {len(verdict.violations)}")
    for violation in verdict.violations[:20]:
        print(f"    {violation}")


if __name__ == "__main__":
    main()
