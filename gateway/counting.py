"""Counting without holding up the event loop: short new text inline, long new text in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from gateway.errors import ModelNotFound, Unavailable
from tokenizers_offline.prompt import Prompt, TokenCount, TokenizerUnavailable, UnknownModel

if TYPE_CHECKING:
    from tokenizers_offline.counter import TokenCounter
    from tokenizers_offline.layouts.base import ModelSpec

INLINE_CHARACTERS = 8_192
"""New (uncached) text up to this length is counted on the loop: about a millisecond with the slower engine,
where a thread hop costs up to 0.4 ms by itself."""


class Counting:
    """The gateway's way to a `TokenCounter`; its errors come out as the ones a caller sees."""

    def __init__(self, counter: TokenCounter, *, threads: int = 2) -> None:
        self.counter = counter
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="counting")

    async def count(self, model: str, prompt: Prompt, *, platform: str = "") -> TokenCount:
        """Tokens of a prompt. Raises `ModelNotFound` or `Unavailable` (tokenizer not installed)."""
        try:
            count = self.counter.try_count(model, prompt, platform=platform, max_new_characters=INLINE_CHARACTERS)
            if count is not None:
                return count
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                self._threads, lambda: self.counter.count(model, prompt, platform=platform)
            )
        except (UnknownModel, TokenizerUnavailable) as error:
            raise _as_seen_by_caller(error) from None

    async def count_texts(self, model: str, texts: Sequence[str]) -> list[int]:
        """Tokens of plain texts, each by itself."""
        try:
            if sum(map(len, texts)) <= INLINE_CHARACTERS:
                return self.counter.count_texts(model, texts)
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self.counter.count_texts, model, texts
            )
        except (UnknownModel, TokenizerUnavailable) as error:
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


def _as_seen_by_caller(error: UnknownModel | TokenizerUnavailable) -> ModelNotFound | Unavailable:
    if isinstance(error, UnknownModel):
        return ModelNotFound(str(error), param="model", details={"nearest": list(error.nearest)})
    return Unavailable(str(error), code="tokenizer_unavailable", param="model", should_retry=False)
