"""One `Encoder` for each installed encoding, over the engines that count it right (`verdicts`), loaded when needed.

An encoding may be asked for in the fast engine at once. Else it starts with the light one, which needs a third of the
memory, and gets the fast one when it needs it (`tiers`).
"""

from __future__ import annotations

import logging
import threading
from typing import Literal

from tokenizers_offline import verdicts
from tokenizers_offline.engines import Encoder, FastEncoder, LightEncoder, ReferenceEncoder
from tokenizers_offline.memory import return_freed_memory
from tokenizers_offline.prompt import CountingError
from tokenizers_offline.store import InstalledEncoding, TokenizerStore
from tokenizers_offline.tiers import PLACES, Places, TieredEncoder

Engine = Literal["auto", "reference", "fast"]

_log = logging.getLogger(__name__)


class EngineUnusable(CountingError):
    """The engine asked for cannot count this encoding as the reference does; the message says how it differs."""


class Encoders:
    """Loads encoders when first asked for and shares them between threads; up to `fast_places` in the fast engine."""

    def __init__(self, store: TokenizerStore, *, engine: Engine = "auto", fast_places: int = PLACES) -> None:
        self._store = store
        self._engine = engine
        self._places = Places(fast_places)
        self._loaded: dict[str, Encoder] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, encoding: str, *, fast: bool = False) -> Encoder:
        """The encoder of an installed encoding; raises `TokenizerUnavailable` when it is not installed.

        `fast` has it loaded in the fast engine at once, if there is a place. The first call for an encoding takes up to
        two seconds, with the GIL held for parts of it: call it from a thread or before serving.
        """
        found = self._loaded.get(encoding)
        if found is not None:
            return found
        with self._lock:
            lock = self._locks.setdefault(encoding, threading.Lock())
        with lock:
            found = self._loaded.get(encoding)
            if found is None:
                found = self._loaded[encoding] = self._load(self._store.encoding(encoding), fast=fast)
                return_freed_memory()
            return found

    def loaded(self) -> tuple[Encoder, ...]:
        """The encoders in memory now."""
        return tuple(self._loaded.values())

    def is_loaded(self, encoding: str) -> bool:
        """Whether `get` answers at once."""
        return encoding in self._loaded

    def _load(self, record: InstalledEncoding, *, fast: bool) -> Encoder:
        for other in self._loaded.values():
            if other.revision == record.revision:
                return other.named(record)
        core = self._store.core(record.core)
        if self._engine == "reference":
            return ReferenceEncoder(record, core)
        usable = verdicts.recorded(record.engines) or self._judge(record, core)
        if self._engine == "fast":
            if not usable[verdicts.FAST]:
                why = verdicts.judge(record, core).why_not.get(verdicts.FAST, "it was found to differ")
                raise EngineUnusable(f"fastokens cannot count '{record.name}': {why}.")
            return FastEncoder(record, core)
        if usable[verdicts.FAST] and (not usable[verdicts.LIGHT] or (fast and self._places.take())):
            return FastEncoder(record, core)
        if not usable[verdicts.LIGHT]:
            return ReferenceEncoder(record, core)
        light = LightEncoder(record, core)
        return TieredEncoder(light, lambda: self._load_fast(record), self._places) if usable[verdicts.FAST] else light

    def _judge(self, record: InstalledEncoding, core: str) -> dict[str, bool]:
        judged = verdicts.judge(record, core)
        for why in judged.why_not.values():
            _log.info("tokenizer %s: %s", record.name, why)
        return judged.verdicts

    def _load_fast(self, record: InstalledEncoding) -> Encoder:
        return FastEncoder(record, self._store.core(record.core))
