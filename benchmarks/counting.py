"""How fast prompts are counted: new text, one new message in a long conversation, and what the event loop notices.

    python -m benchmarks.counting

CPU milliseconds of this process, medians; on a busy machine wall time says more about the neighbours. Texts are
made up anew for every run, so that nothing but what a figure is about is remembered.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console

from benchmarks.report import Figure, Report
from gateway.counting import Counting
from tokenizers_offline.catalog import Catalog
from tokenizers_offline.counter import TokenCounter
from tokenizers_offline.encoders import Encoders, Engine
from tokenizers_offline.learning import DriftLearner
from tokenizers_offline.overheads import Overheads
from tokenizers_offline.prompt import ChatPrompt, Dialect, Message, TextPart
from tokenizers_offline.store import TokenizerStore

MODELS = ("gpt-4o", "qwen3-8b", "claude-sonnet-4-5")
MESSAGES, MESSAGE_CHARACTERS = 200, 1_700
LONG_CHARACTERS = 400_000
REPEATS = 9

_ONSETS = ("b", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "w", "")
_RIMES = ("a", "an", "at", "e", "en", "er", "i", "in", "ing", "o", "on", "or", "u", "un", "y")


class Writer:
    """Writes English-looking text that nobody has written before."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        syllables = [onset + rime for onset in _ONSETS for rime in _RIMES]
        self._words = ["".join(self._rng.choices(syllables, k=self._rng.randrange(1, 4))) for _ in range(6_000)]

    def text(self, characters: int) -> str:
        """About that much prose, with punctuation and line breaks."""
        words = self._rng.choices(self._words, k=characters // 5)
        joints = self._rng.choices((" ", " ", " ", " ", ", ", ". ", "\n"), k=len(words))
        return "".join(word + joint for word, joint in zip(words, joints, strict=True))[:characters]

    def conversation(self, messages: int = MESSAGES, characters: int = MESSAGE_CHARACTERS) -> tuple[Message, ...]:
        """Turns of user and assistant."""
        return tuple(
            Message(("user", "assistant")[at % 2], (TextPart(self.text(characters)),)) for at in range(messages)
        )

    def question(self, characters: int) -> ChatPrompt:
        """One message."""
        return chat(self.conversation(1, characters))


def chat(messages: tuple[Message, ...]) -> ChatPrompt:
    return ChatPrompt(Dialect.OPENAI_CHAT, messages)


def new_counter(engine: Engine = "auto") -> TokenCounter:
    """A counter over the installed tokenizers that remembers nothing yet."""
    store = TokenizerStore(Path(os.environ.get("MODELS_DIR", "models")))
    return TokenCounter(Catalog.load(installed=store.installed()), Encoders(store, engine=engine), store)


def cpu_ms(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1000


def median_ms(prepare: Callable[[], Callable[[], object]], repeats: int = REPEATS) -> float:
    """The median of `repeats` runs, each of work prepared outside the measurement."""
    return statistics.median(cpu_ms(prepare()) for _ in range(repeats))


def measure_counting() -> Report:
    """Every figure of this section."""
    writer = Writer(seed=20)
    counter, reference = new_counter(), new_counter("reference")
    figures: list[Figure] = []
    for model in MODELS:
        encoding = counter.resolve(model).encoding
        for one in (counter, reference):
            one.warm([encoding])
            one.count(model, chat(writer.conversation(20)))
        figures += _figures_of(model, counter, reference, writer)
    figures += asyncio.run(_worst_stalls(counter, writer))
    engines = ", ".join(f"{encoder.name}: {encoder.engine}" for encoder in counter.encoders.loaded())
    return Report("counting", tuple(figures), (f"Engines: {engines}. CPU ms, medians of {REPEATS}.",))


def _figures_of(model: str, counter: TokenCounter, reference: TokenCounter, writer: Writer) -> list[Figure]:
    def short() -> Callable[[], object]:
        prompts = [writer.question(1_000) for _ in range(200)]
        return lambda: [counter.try_count(model, prompt, max_new_characters=8_192) for prompt in prompts]

    def long() -> Callable[[], object]:
        prompt = writer.question(LONG_CHARACTERS)
        return lambda: counter.count(model, prompt)

    def whole(by: TokenCounter) -> Callable[[], Callable[[], object]]:
        def prepare() -> Callable[[], object]:
            prompt = chat(writer.conversation())
            return lambda: by.count(model, prompt)

        return prepare

    def one_more() -> Callable[[], object]:
        known = writer.conversation()
        counter.count(model, chat(known))
        longer = [chat((*known, *writer.conversation(1))) for _ in range(20)]
        return lambda: [counter.count(model, prompt) for prompt in longer]

    goal = model != "claude-sonnet-4-5"
    one_more_ms = median_ms(one_more) / 20
    fast_ms, reference_ms = median_ms(whole(counter)), median_ms(whole(reference), 3)
    size = f"{MESSAGES} messages, {MESSAGES * MESSAGE_CHARACTERS // 1000} kB"
    return [
        Figure(f"{model}: 1 kB prompt, all new", median_ms(short) / 200, "ms", 0.08 if goal else None),
        Figure(f"{model}: 400 kB, all new", median_ms(long), "ms", 8.0 if goal else None),
        Figure(f"{model}: {size}, all new, reference engine", reference_ms, "ms"),
        Figure(f"{model}: {size}, all new", fast_ms, "ms"),
        Figure(f"{model}: {size}, one message new", one_more_ms, "ms"),
        Figure(f"{model}: one message new, faster than all new", fast_ms / one_more_ms, "x", 30.0 if goal else None,
               least=True),
        Figure(f"{model}: the same beside the reference engine, all new", reference_ms / one_more_ms, "x"),
    ]  # fmt: skip


async def _worst_stalls(counter: TokenCounter, writer: Writer) -> list[Figure]:
    """How late the event loop's timer is at most: while long prompts and long conversations are counted beside it,
    and, to tell the machine's own noise from it, while nothing is."""
    counting = Counting(counter, DriftLearner(), Overheads())
    texts = [writer.question(LONG_CHARACTERS) for _ in range(20)]
    crowds = [chat(writer.conversation(5_000, 60)) for _ in range(4)]
    gc.collect()
    gc.freeze()  # a gateway keeps no such pile of prompts for its garbage collector to walk through

    async def count_all(prompts: list[ChatPrompt]) -> None:
        for prompt in prompts:
            await asyncio.gather(*(counting.count(model, prompt) for model in ("gpt-4o", "qwen3-8b")))

    figures = [
        Figure("longest stall of the event loop, nothing to count", await _stall_ms(asyncio.sleep(1)), "ms"),
        Figure("the same while 400 kB prompts are counted", await _stall_ms(count_all(texts)), "ms", 20.0),
        Figure("the same while 5,000-message prompts are counted", await _stall_ms(count_all(crowds)), "ms", 20.0),
    ]
    counting.close()
    gc.unfreeze()
    return figures


async def _stall_ms(work: Awaitable[None]) -> float:
    late: list[float] = []

    async def tick() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            late.append((time.perf_counter() - began - 0.001) * 1000)

    ticking = asyncio.create_task(tick())
    await work
    ticking.cancel()
    return max(late)


if __name__ == "__main__":
    report = measure_counting()
    Console().print(report.as_table(), *report.notes)
