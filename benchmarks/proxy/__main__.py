"""Measure the gateway beside other proxies, in turn, and print tables: ``python -m benchmarks.proxy [--full]``.

CPU milliseconds a request of the target's whole process tree is the figure to compare: on a shared machine requests
a second move by half, CPU by a sixth. Every repeat visits all cells and targets in turn; medians are printed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.proxy.load import Cell, Result, run
from benchmarks.proxy.peers import PEERS
from benchmarks.proxy.targets import KEY, Target, free_port, gateway
from benchmarks.proxy.upstream import serve

CELLS = (
    Cell(1_000, 1),
    Cell(1_000, 16),
    Cell(32_000, 16),
    Cell(400_000, 4),
    Cell(400_000, 4, fresh="all"),
    Cell(1_000, 100, chunks=50),
)
SCALING = Cell(1_000, 16)
FIVE = ("o200k_base", "cl100k_base", "qwen3", "deepseek-v3", "llama-3")


@dataclass
class Row:
    """One visit of a target with a cell."""

    result: Result
    cpu_ms: float
    """A request, or for streams a chunk."""


def visit(target: Target, cell: Cell, *, seconds: float, pool: ProcessPoolExecutor) -> Row:
    """Load a target once."""
    before = target.cpu_s()
    result = pool.submit(run, cell, port=target.port, seconds=seconds, key=KEY, headers=target.headers).result()
    spent_s = target.cpu_s() - before
    return Row(result, spent_s * 1000 / max(1, result.chunks if cell.chunks else result.requests))


def stall_ms(target: Target, *, seconds: float, pool: ProcessPoolExecutor) -> tuple[float, float]:
    """The slowest and the 99th percentile of small requests while new conversations of 400 kB arrive one by one."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
        big = other.submit(run, Cell(400_000, 1, fresh="all"), port=target.port, seconds=seconds, key=KEY)
        small = pool.submit(run, Cell(1_000, 1), port=target.port, seconds=seconds, key=KEY).result()
        big.result()
    return max(small.latencies_ms), small.percentile(0.99)


def compare(targets: list[Target], cells: tuple[Cell, ...], *, repeats: int, seconds: float) -> None:
    """Visit cells and targets in turn and print one table a cell."""
    rows: dict[tuple[Cell, str], list[Row]] = {}
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for target in targets:
            visit(target, Cell(1_000, 2), seconds=2, pool=pool)  # tokenizers are loaded, caches warm
        for _ in range(repeats):
            for cell in cells:
                for target in targets:
                    rows.setdefault((cell, target.name), []).append(visit(target, cell, seconds=seconds, pool=pool))
    for cell in cells:
        print(f"\n### {cell.name}\n")
        unit = "CPU ms a chunk" if cell.chunks else "CPU ms a request"
        first = "first byte ms p50" if cell.chunks else "p50 ms"
        print(
            f"| | {unit} | {first} | p99 ms | {'chunks' if cell.chunks else 'req'}/s | of {targets[0].name} | errors |"
        )
        print("|---|---|---|---|---|---|---|")
        base = None
        for target in targets:
            seen = rows[(cell, target.name)]
            rate = statistics.median(
                (row.result.chunks if cell.chunks else row.result.requests) / row.result.seconds for row in seen
            )
            base = base or rate
            cpu, p50, p99 = (
                statistics.median(figures)
                for figures in (
                    [row.cpu_ms for row in seen],
                    [row.result.percentile(0.5) for row in seen],
                    [row.result.percentile(0.99) for row in seen],
                )
            )
            errors = sum(row.result.errors for row in seen)
            print(f"| {target.name} | {cpu:.3f} | {p50:.2f} | {p99:.1f} | {rate:,.0f} | {rate / base:.2f} | {errors} |")


def main() -> None:
    """Read the options, start everything, print the tables, end everything."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--seconds", type=float, default=2.0)
    options.add_argument("--full", action="store_true", help="also keys, budgets, memory of workers, loop stall")
    asked = options.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, Python {platform.python_version()}, {platform.machine()}, ", end="")
    print(f"{multiprocessing.cpu_count()} cores, median of {asked.repeats} x {asked.seconds:g} s in turn")
    spawn = multiprocessing.get_context("spawn")
    port = free_port()
    upstream = spawn.Process(target=serve, args=(port,), daemon=True)
    upstream.start()
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name:
        folder = Path(name)
        started: list[Target] = []

        def start(target: Target) -> float:
            started.append(target)
            return target.start(folder)

        try:
            time.sleep(1)
            peers = [peer for make in PEERS if (peer := make(folder, port)) is not None]
            targets = [*peers, gateway(folder, port)]
            for target in targets:
                start(target)
            compare(targets, CELLS, repeats=asked.repeats, seconds=asked.seconds)
            if asked.full:
                _scaling(folder, port, start, asked)
                _footprint(folder, port, start, spawn)
        finally:
            for target in started:
                target.stop()
            upstream.terminate()


def _scaling(folder: Path, port: int, start: object, asked: argparse.Namespace) -> None:
    assert callable(start)
    targets = [
        gateway(folder, port, name="1 key, 1 budget"),
        gateway(folder, port, name="10,000 keys, 1 budget", keys=10_000),
        gateway(folder, port, name="1 key, 8 budgets", budgets=8),
    ]
    for target in targets:
        start(target)
    compare(targets, (SCALING,), repeats=asked.repeats, seconds=asked.seconds)


def _footprint(folder: Path, port: int, start: object, spawn: multiprocessing.context.SpawnContext) -> None:
    assert callable(start)
    print("\n### Memory, start, loop stall\n")
    for workers, encodings in ((1, FIVE[:1]), (1, FIVE), (2, FIVE), (3, FIVE)):
        target = gateway(folder, port, name=f"{workers} workers {len(encodings)}", workers=workers, encodings=encodings)
        took_s = start(target)
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            target.wait_until_loaded(workers=workers)
            time.sleep(3 * len(encodings) if workers == 1 else 1)
            for cell in (Cell(1_000, 16), Cell(400_000, 2), Cell(1_000, 16)):
                visit(target, cell, seconds=1, pool=pool)
            memory = target.memory_mb()
            print(
                f"{workers} worker(s), {len(encodings)} encoding(s): took a connection after {took_s:.2f} s, "
                f"{sum(memory):.0f} MB = {' + '.join(f'{each:.0f}' for each in memory)}"
            )
            if workers == 1 and len(encodings) == 1:
                worst, p99 = stall_ms(target, seconds=4, pool=pool)
                print(f"small requests beside new 400 kB ones: slowest {worst:.1f} ms, p99 {p99:.1f} ms")


if __name__ == "__main__":
    main()
