"""Engines by need: an encoding starts with the light engine, and one that is given much long text moves to the fast.

The fast engine is what takes memory: 65 to 140 MB an encoding, where the light one takes 25 to 45 MB. On short text
they are alike. So only as many encodings get it as there are places, first come, first served, and for good: changing
back would cost other requests' time, since loading an engine holds the GIL for a tenth of a second and more.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from tokenizers_offline.engines import Encoder
from tokenizers_offline.memory import return_freed_memory
from tokenizers_offline.store import InstalledEncoding

LONG_TEXT = 4_096
"""Shorter text takes either engine about the same time, and does not count as a need."""

MUCH_TEXT = 1_000_000
"""Characters of long text after which an encoding needs the fast engine."""

PLACES = 4
"""How many encodings a process may have in the fast engine. It keeps a thread's caches for so many (fastokens 0.3.5);
with one more, each text that comes in turn would have it set one up anew, which takes 4 ms."""

_log = logging.getLogger(__name__)


class Places:
    """The places for encodings in the fast engine, shared by all tiered encoders of a process."""

    def __init__(self, places: int = PLACES) -> None:
        self._free = places
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take a place; False when there is none."""
        with self._lock:
            if self._free == 0:
                return False
            self._free -= 1
            return True

    def give_back(self) -> None:
        """Leave a place that was taken."""
        with self._lock:
            self._free += 1


class TieredEncoder:
    """Counts with the engine it was given until it has been given much long text, then with a faster one.

    That one is loaded in a thread, by `load_fast`, while counting goes on.
    """

    def __init__(self, light: Encoder, load_fast: Callable[[], Encoder], places: Places) -> None:
        self.name = light.name
        self.revision = light.revision
        self.specials = light.specials
        self._shared = _Shared(light, load_fast, places)

    @property
    def engine(self) -> str:
        """The library that counts now."""
        return self._shared.encoder.engine

    @property
    def at_once(self) -> int:
        """How many characters an event loop may have it count in one go."""
        return self._shared.encoder.at_once

    def named(self, record: InstalledEncoding) -> Encoder:
        """The same engine, now and later, under another name."""
        renamed = object.__new__(TieredEncoder)
        renamed.name, renamed.revision, renamed.specials = record.name, record.revision, record.specials
        renamed._shared = self._shared
        return renamed

    def count(self, text: str, *, specials: bool) -> int:
        """How many tokens a text has."""
        shared = self._shared
        if len(text) >= LONG_TEXT and shared.until_needed > 0:
            shared.weigh(len(text))
        return shared.encoder.count(text, specials=specials)


class _Shared:
    """What all names of one vocabulary share: the engine, and how much long text may come until the fast one."""

    def __init__(self, light: Encoder, load_fast: Callable[[], Encoder], places: Places) -> None:
        self.encoder = light
        self.until_needed = MUCH_TEXT
        self._load_fast = load_fast
        self._places = places
        self._lock = threading.Lock()

    def weigh(self, characters: int) -> None:
        with self._lock:
            if self.until_needed <= 0:
                return
            self.until_needed -= characters
            if self.until_needed > 0:
                return
        if self._places.take():
            threading.Thread(target=self._move, name="tokenizer").start()

    def _move(self) -> None:
        try:
            self.encoder = self._load_fast()
        except Exception as error:
            self._places.give_back()
            _log.warning("tokenizer %s stays with %s: %s", self.encoder.name, self.encoder.engine, error)
        return_freed_memory()
