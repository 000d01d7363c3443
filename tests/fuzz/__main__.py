"""``make fuzz SECONDS=600``: throw inputs at every target in turn, write down what comes out.

Prints, and exits with 1 for,
every crash (an exception that nobody was promised) and every hang (more CPU time than its
size allows), with the seed that makes it again: ``python -m tests.fuzz --target bodies --seed 123``.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections import Counter
from random import SystemRandom
from types import FrameType

from tests.fuzz.mutation import Seeded
from tests.fuzz.targets import TARGETS

MOST_S, MOST_S_PER_BYTE = 2.0, 20e-6
"""CPU time that an input may take: loading a tokenizer comes on top for the first, so slow ones are tried again."""
HANG_S = 30
TURN_S = 2.0


class Hang(BaseException):
    """An input took longer than anything may."""


def attempt(name: str, seed: int) -> tuple[float, int]:
    """Push one input through: CPU seconds taken, and its size. Raises what the target lets out."""
    started = time.process_time()
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_S)
    try:
        size = TARGETS[name](Seeded(seed))
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return time.process_time() - started, size


def is_slow(name: str, seed: int) -> bool:
    taken_s, size = attempt(name, seed)
    return taken_s > MOST_S + size * MOST_S_PER_BYTE


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--target", choices=TARGETS)
    arguments.add_argument("--seed", type=int)
    chosen = arguments.parse_args()

    def stop(_: int, __: FrameType | None) -> None:
        raise Hang

    signal.signal(signal.SIGVTALRM, stop)
    if chosen.seed is not None:
        print(attempt(chosen.target, chosen.seed))
        return 0
    names = [chosen.target] if chosen.target else list(TARGETS)
    executions: Counter[str] = Counter()
    crashes: dict[str, int] = {}
    hangs: list[str] = []
    seed = SystemRandom().randrange(2**40)
    until = time.monotonic() + chosen.seconds
    while time.monotonic() < until:
        for name in names:
            turn_ends = min(until, time.monotonic() + TURN_S)
            while time.monotonic() < turn_ends:
                seed += 1
                executions[name] += 1
                try:
                    if is_slow(name, seed) and is_slow(name, seed):
                        hangs.append(f"{name} --seed {seed}")
                        print(f"hang: {hangs[-1]}", flush=True)
                except Hang:
                    hangs.append(f"{name} --seed {seed}")
                    print(f"hang: {hangs[-1]}", flush=True)
                except Exception as error:
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    kind = f"{name}: {type(error).__name__} at {where.filename}:{where.lineno}"
                    if kind not in crashes:
                        print(f"crash: {kind}: {str(error)[:200]} (--target {name} --seed {seed})", flush=True)
                    crashes[kind] = crashes.get(kind, 0) + 1
    for name in names:
        print(f"{name:14} {executions[name]:>10,} inputs")
    print(f"{sum(executions.values()):,} inputs in {chosen.seconds:g} s, {len(crashes)} crashes, {len(hangs)} hangs")
    return 1 if crashes or hangs else 0


if __name__ == "__main__":
    sys.exit(main())
