"""How long a replay of a large ledger takes, and how much memory.

    python -m benchmarks.replay [--requests N] [--keys N] [--keep FOLDER]

Writes a ledger as a busy gateway would have written it, replays it with ``tollgate replay`` under two configurations
at once (with a report to look at), and prints seconds, CPU seconds, requests a second and the peak of resident memory
of that process and those it starts, all at the same moment. `--keep` leaves the ledger and the configurations, to be
replayed again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from rich.console import Console

from benchmarks.report import Figure, Report
from policies.ledger import LedgerEntry
from policies.stores import open_store

DAYS = 7
MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "gemini-2.5-flash", "qwen3")
UPSTREAMS = {"claude-sonnet-4-5": "anthropic", "gemini-2.5-flash": "gemini"}
CAPS = (None, None, None, 256, 512, 1024, 4096)
GOAL_S = 30.0
GOAL_MB = 300.0


def configuration(keys: int, *, scale: float, folder: Path) -> str:
    """Six budgets with eleven limits, of which a request meets nine or so."""

    def of(amount: float) -> int:
        return max(1, int(amount * scale))

    budgets = [
        {"name": "each-key", "each": "key", "limits": [
            {"tokens": of(1_500_000), "per": "day"}, {"requests": of(60), "per": "minute"}, {"concurrent": 50}]},
        {"name": "each-team", "each": "team", "limits": [
            {"tokens": of(120_000_000), "per": "week"}, {"tokens": of(2_000_000), "per": "hour", "sliding": True}]},
        {"name": "everyone", "limits": [
            {"tokens": of(2_000_000_000), "per": "month"}, {"tokens": of(900_000), "per": "minute"}]},
        {"name": "large-models", "match": {"model": ["gpt-4o", "claude-*"]}, "each": "team", "limits": [
            {"tokens": of(60_000_000), "per": "day"}], "weights": {"output": 4, "cached": 0.1}},
        {"name": "trial", "mode": "shadow", "each": "key", "limits": [
            {"output_tokens": of(200_000), "per": "day"}, {"requests": of(20), "per": "minute", "sliding": True}]},
        {"name": "batch", "match": {"team": "team-0"}, "output_hold": "clamp", "max_output_tokens": 8192,
         "limits": [{"tokens": of(30_000_000), "per": "day"}]},
    ]  # fmt: skip
    return yaml.safe_dump(
        {
            "store": {"url": f"sqlite:///{folder}/ledger.db"},
            "tokenizers": {"dir": os.environ.get("MODELS_DIR", "models")},
            "upstreams": [{"name": "echo", "url": "echo:"}],
            "keys": [
                {"id": f"key-{number}", "digest": f"sha256:{number:064x}", "tags": {"team": f"team-{number % 20}"}}
                for number in range(keys)
            ],
            "budgets": budgets,
        }
    )


async def write_ledger(folder: Path, *, requests: int, keys: int) -> None:
    """Requests that come in bursts from keys of which few send most."""
    store = open_store(f"sqlite:///{folder}/ledger.db")
    await store.ping()
    dice = random.Random(7)
    at = time.time() - DAYS * 86_400 + 60
    pace = (DAYS * 86_400 - 120) / requests
    for number in range(requests):
        at += dice.expovariate(1.0) * pace
        key = min(int(dice.paretovariate(0.7)) - 1, 10**6) % keys
        model = dice.choice(MODELS)
        tokens, written, cap = int(dice.lognormvariate(6.5, 1.2)), int(dice.lognormvariate(5.3, 0.9)), dice.choice(CAPS)
        luck = dice.random()
        refused, failed = luck < 0.02, 0.02 <= luck < 0.03
        charged = not refused and not failed
        store.record(
            LedgerEntry(
                f"r{number}", at, f"key-{key}", model, UPSTREAMS.get(model, "openai"),
                "refused" if refused else "upstream_error" if failed else "ok",
                tags={"team": f"team-{key % 20}"},
                held_input=0 if refused else tokens,
                held_output=0 if refused else cap or 1024,
                input_tokens=tokens if charged else 0,
                output_tokens=min(written, cap or written) if charged else 0,
                cached_tokens=tokens // 2 if charged and luck > 0.7 else 0,
                counted_tokens=tokens,
                accuracy="exact",
                source="reported" if charged else "",
                output_cap=cap,
                stream=luck > 0.5,
                endpoint="openai_chat",
                latency_s=dice.lognormvariate(0.8, 0.7),
            )
        )  # fmt: skip
        if number % 20_000 == 0:
            await store.ping()
    await store.close()


def replay(folder: Path) -> dict[str, float]:
    """Run the command as anybody would; return what it took, and how many requests it found."""
    began = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "gateway", "replay", "--json", "--since", "3650d"]
    files = ["--config", str(folder / "new.yaml"), "--current", str(folder / "current.yaml")]
    with (
        (folder / "replay.json").open("w+b") as said,
        subprocess.Popen([*command, *files, "--html", str(folder / "replay.html")], stdout=said) as running,
    ):
        most = 0.0
        while running.poll() is None:
            most = max(most, _resident_mb(running.pid))
            time.sleep(0.05)
        seconds = time.perf_counter() - began
        if running.returncode:
            raise SystemExit(f"the replay ended with exit code {running.returncode}")
        said.seek(0)
        told = json.load(said)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "requests": told["new"]["requests"],
        "refused": told["new"]["refused"],
        "seconds": seconds,
        "cpu_s": used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime,
        "peak_mb": most or told["peak_mib"] * 1.048576,
    }


def _resident_mb(pid: int) -> float:
    """What a process and those it started have in memory at this moment, as Linux tells it."""
    total = 0
    for process in (pid, *_started_by(pid)):
        with contextlib.suppress(OSError, IndexError):
            total += int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()
    return total / 1e6


def _started_by(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, children.read_text().split()):
                found += [child, *_started_by(child)]
    return found


def measured(folder: Path, *, requests: int, keys: int) -> Report:
    """Replay a folder's ledger, written first where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, scale in (("current", 1.0), ("new", 0.5)):
        (folder / f"{name}.yaml").write_text(configuration(keys, scale=scale, folder=folder))
    if not (folder / "ledger.db").exists():
        asyncio.run(write_ledger(folder, requests=requests, keys=keys))
    found = replay(folder)
    full = found["requests"] >= 1_000_000
    return Report(
        "replay",
        (
            Figure("a replay of the ledger", found["seconds"], "s", GOAL_S if full else None),
            Figure("CPU, both processes", found["cpu_s"], "s"),
            Figure("requests", found["requests"] / found["seconds"], "/s"),
            Figure("peak of resident memory, both processes", found["peak_mb"], "MB", GOAL_MB if full else None),
        ),
        (f"{found['requests']:,} requests under two configurations, {found['refused']:,} refused by the new one",),
    )


def measure_replay() -> Report:
    """The section of ``make bench``."""
    with tempfile.TemporaryDirectory(prefix="tollgate-replay-") as folder:
        return measured(Path(folder), requests=1_000_000, keys=1_000)


def main() -> None:
    """Measure, print, and fail where a goal for a million requests is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=1_000)
    parser.add_argument("--keep", type=Path, help="folder for the ledger; one that is there is used again")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tollgate-replay-") as passing:
        report = measured(chosen.keep or Path(passing), requests=chosen.requests, keys=chosen.keys)
    Console().print(report.as_table(), *report.notes, sep="\n")
    sys.exit(any(figure.met is False for figure in report.figures))


if __name__ == "__main__":
    main()
