"""The requests of an overspend run, the budgets they meet, and how long their prompts are for certain."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Fate = Literal["stream", "silent", "whole", "whole_silent", "error", "busy", "refuse", "cut"]
"""What the upstream does: answer with usage or without, answer 500 or 429, hang up, break off in mid-stream."""

STREAMED: frozenset[Fate] = frozenset({"stream", "silent", "cut"})
FATES: dict[Fate, int] = {
    "stream": 40, "silent": 12, "whole": 14, "whole_silent": 5, "error": 6, "busy": 5, "refuse": 5, "cut": 13,
}  # fmt: skip
MODEL = "gpt-4o"
FRAME_TOKENS = 7
"""One user message of n words "word" costs n + 7: 3 for the message, 1 for its role, 3 for the answer's opening."""

STRICT, DEBTORS = 32, 8
TEAMS = 4
WORDS = range(20, 1020)


@dataclass(frozen=True, slots=True)
class Case:
    """One request. No two cases of a key have equally many `words`, so that (key, input tokens) finds it again in
    holds and ledger. `leaves_after_s` is when its caller hangs up; `cap` None names no cap."""

    number: int
    key_id: str
    words: int
    fate: Fate
    output: int
    pieces: int
    pause_s: float
    cap: int | None
    leaves_after_s: float | None

    @property
    def input_tokens(self) -> int:
        """What its prompt comes to."""
        return self.words + FRAME_TOKENS

    def body(self) -> dict[str, Any]:
        """The chat request; what the upstream shall do travels in its metadata."""
        body: dict[str, Any] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": " ".join(["word"] * self.words)}],
            "stream": self.fate in STREAMED,
            "metadata": {
                "case": str(self.number),
                "fate": self.fate,
                "output": str(self.output),
                "pieces": str(self.pieces),
                "pause_ms": str(round(self.pause_s * 1000)),
            },
        }
        if self.cap is not None:
            body["max_tokens"] = self.cap
        return body


@dataclass
class Outcome:
    """What the caller of a case saw. `complete`: the answer ended as its API ends answers."""

    case: Case
    status: int = 0
    request_id: str = ""
    received: int = 0
    complete: bool = False
    left: bool = False
    error: str = ""
    drains: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """How hard a run tries: `gateways` of `workers` processes each. Limits are multiples of `size` tokens.

    `hold_timeout_s` is well above the time for which an overloaded machine may keep a process from giving a sign of
    life (9 s were seen); killed processes are found by their ids long before.
    """

    callers: int = 1600
    seconds: float = 45.0
    kill_every_s: float = 4.0
    stream_s: tuple[float, float] = (2.0, 14.0)
    hold_timeout_s: float = 30.0
    size: int = 2000
    gateways: int = 4
    workers: int = 1
    seed: int = 1


def secret(key_id: str) -> str:
    """The credential of a key."""
    return f"sk-overspend-{key_id}"


def key_ids() -> list[str]:
    """All keys: s.. whose requests cannot outgrow their holds, d.. (debtors) whose answers may."""
    return [f"s{number:02}" for number in range(STRICT)] + [f"d{number:02}" for number in range(DEBTORS)]


def keys() -> list[dict[str, Any]]:
    """The keys as config.yaml takes them."""
    return [
        {
            "id": key_id,
            "digest": "sha256:" + hashlib.sha256(secret(key_id).encode()).hexdigest(),
            "tags": {"kind": "strict" if key_id[0] == "s" else "debtor", "team": f"t{number % TEAMS}"},
        }
        for number, key_id in enumerate(key_ids())
    ]


def budgets(scale: Scale) -> list[dict[str, Any]]:
    """Budgets that bind: per key and shared, a day, a fixed minute, a sliding one, input, output, concurrency."""
    size = scale.size
    strict = {"kind": "strict"}
    return [
        {"name": "key-day", "each": "key", "match": strict, "limits": [{"tokens": 45 * size, "per": "day"}]},
        {"name": "team-minute", "each": "team", "match": strict, "limits": [{"tokens": 400 * size, "per": "minute"}]},
        {
            "name": "all-sliding",
            "match": strict,
            "limits": [
                {"tokens": 1350 * size, "per": "minute", "sliding": True},
                {"requests": 4 * size, "per": "minute", "sliding": True},
            ],
        },
        {
            "name": "all-day",
            "match": strict,
            "limits": [{"input_tokens": 1600 * size, "per": "day"}, {"output_tokens": 400 * size, "per": "total"}],
        },
        {"name": "crowd", "each": "key", "match": strict, "limits": [{"concurrent": max(4, scale.callers // STRICT)}]},
        {
            "name": "debtors",
            "each": "key",
            "match": {"kind": "debtor"},
            "output_hold": 20,
            "limits": [{"tokens": 40 * size, "per": "total"}],
        },
    ]


@dataclass
class Limits:
    """What the counters of a run may hold, by (budget, unit, period) as their series name them."""

    amounts: dict[tuple[str, str, str], int] = field(default_factory=dict)

    @classmethod
    def of(cls, budgets: list[dict[str, Any]]) -> Limits:
        """The limits of budgets as config.yaml takes them."""
        amounts = {}
        for budget in budgets:
            for limit in budget["limits"]:
                unit = next(name for name in limit if name not in ("per", "sliding"))
                period = "now" if unit == "concurrent" else ("sliding-" if limit.get("sliding") else "") + limit["per"]
                amounts[(budget["name"], unit, period)] = limit[unit]
        return cls(amounts)

    def of_series(self, series: str) -> int:
        """The limit of a counter. Raises KeyError for one that no budget of the run has."""
        budget, _, unit, period = series.split("|")
        return self.amounts[(budget, unit, period)]


def deal(scale: Scale) -> Iterator[Case]:
    """Cases without end, in an order that `scale.seed` decides, until a key has used up its prompt lengths."""
    luck = random.Random(scale.seed)
    lengths = {key_id: luck.sample(WORDS, len(WORDS)) for key_id in key_ids()}
    number = 0
    while lengths:
        key_id = luck.choice(list(lengths))
        words = lengths[key_id].pop()
        if not lengths[key_id]:
            del lengths[key_id]
        fate = luck.choices(list(FATES), weights=list(FATES.values()))[0]
        output = luck.randint(1, 160)
        pieces = luck.randint(2, 8)
        lasts_s = luck.uniform(*scale.stream_s)
        strict = key_id[0] == "s"
        yield Case(
            number=number,
            key_id=key_id,
            words=words,
            fate=fate,
            output=output,
            pieces=pieces,
            pause_s=lasts_s / pieces,
            cap=output + luck.randint(0, 60) if strict else luck.choice([None, 5, 200]),
            leaves_after_s=luck.uniform(0.01, lasts_s) if luck.random() < 0.18 else None,
        )
        number += 1
