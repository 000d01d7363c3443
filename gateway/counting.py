"""Counting without holding up the event loop, corrected by what upstreams' bills have taught."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from gateway.errors import ModelNotFound, Unavailable
from tokenizers_offline.learning import DriftLearner, Situation
from tokenizers_offline.prompt import Accuracy, CountingError, Prompt, TokenCount, UnknownModel

if TYPE_CHECKING:
    from gateway.upstream import Upstream
    from tokenizers_offline.counter import TokenCounter
    from tokenizers_offline.layouts.base import ModelSpec
    from tokenizers_offline.overheads import Overheads

INLINE_CHARACTERS = 8_192
"""New (uncached) text up to this length is counted on the loop: about a millisecond with the slower engine,
where a thread hop costs up to 0.4 ms by itself."""

STEPS_A_SEGMENT = 4
"""Longer text is counted on the loop too, others having their turn in between, if its longest segment is no more than
so many steps: each thread the fast engine is used in costs tens of megabytes an encoding. A step takes either engine a
millisecond, and the light one 6 ms in Chinese."""


class Counted(NamedTuple):
    """A prompt's count: `best` with what bills have taught, `plain` without."""

    best: TokenCount
    plain: TokenCount


class Counting:
    """The gateway's way to a `TokenCounter`; its errors come out as the ones a caller sees."""

    def __init__(self, counter: TokenCounter, learner: DriftLearner, known: Overheads, *, threads: int = 1) -> None:
        self.counter = counter
        self.learner = learner
        self._known = known
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="counting")

    async def count(self, model: str, prompt: Prompt, *, platform: str = "") -> TokenCount:
        """Tokens of a prompt. Raises `ModelNotFound` or `Unavailable` (its tokenizer is not installed)."""
        try:
            begun = self.counter.begin(model, prompt, platform=platform)
            if begun is not None:
                if begun.new_characters <= INLINE_CHARACTERS:
                    return begun.finish()
                if begun.longest <= STEPS_A_SEGMENT * begun.at_once:
                    return await _in_turns(begun.steps(begun.at_once))
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, lambda: self.counter.count(model, prompt, platform=platform)
            )
        except CountingError as error:
            raise _as_seen_by_caller(error) from None

    async def count_for(self, upstream: Upstream, model: str, prompt: Prompt) -> Counted:
        """Tokens of a prompt as `upstream` would bill it: with its hidden prompts, and what its bills have taught.

        An overhead configured for the upstream stands in place of what is known of its platform.
        """
        count = await self.count(model, prompt, platform=upstream.platform)
        configured = upstream.overhead(model, with_tools="tools" in count.features)
        if configured is not None:
            known = self._known.tokens(upstream.platform, self._bare_name(model), count.features)
            count = _with_overhead(count, configured - known, upstream.name)
        return Counted(self.learner.correct(Situation(upstream.name, model, count.features), count), count)

    def _bare_name(self, model: str) -> str:
        return str(self.counter.resolve(model).options.get("bare_name", model))

    def learn(self, upstream: str, model: str, plain: TokenCount, *, reported: int) -> None:
        """Take one bill into account."""
        self.learner.observe(
            Situation(upstream, model, plain.features),
            counted=plain.input_tokens,
            reported=reported,
            estimate=plain.accuracy is Accuracy.ESTIMATE,
        )

    async def count_texts(self, model: str, texts: Sequence[str]) -> list[int]:
        """Tokens of plain texts, each by itself."""
        try:
            if sum(map(len, texts)) <= INLINE_CHARACTERS and self.counter.is_ready(model):
                return self.counter.count_texts(model, texts)
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self.counter.count_texts, model, texts
            )
        except CountingError as error:
            raise _as_seen_by_caller(error) from None

    def resolve(self, model: str) -> ModelSpec:
        """The catalog's answer for a model name. Raises `ModelNotFound`."""
        try:
            return self.counter.resolve(model)
        except UnknownModel as error:
            raise _as_seen_by_caller(error) from None

    def close(self) -> None:
        """Let the threads go; running counts finish."""
        self._threads.shutdown(wait=False, cancel_futures=True)


async def _in_turns(steps: Generator[None, None, TokenCount]) -> TokenCount:
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            count: TokenCount = ended.value
            return count
        await asyncio.sleep(0)


def _with_overhead(count: TokenCount, overhead: int, upstream: str) -> TokenCount:
    return count._replace(
        input_tokens=max(0, count.input_tokens + overhead),
        upper=max(0, count.upper + overhead),
        accuracy=Accuracy.ESTIMATE if count.accuracy is Accuracy.ESTIMATE else Accuracy.BOUNDED,
        notes=(*count.notes, f"the overhead configured for upstream '{upstream}' ({overhead:+d} tokens)"),
    )


def _as_seen_by_caller(error: CountingError) -> ModelNotFound | Unavailable:
    if isinstance(error, UnknownModel):
        return ModelNotFound(str(error), param="model", details={"nearest": list(error.nearest)})
    return Unavailable(str(error), code="tokenizer_unavailable", param="model", should_retry=False)
