"""Counting by segments: split where splitting changes nothing, and remember each segment's count.

Two kinds of places are safe (design notes, sources.md: randomised over 21 families, no failure; each encoding is
tried again on hostile texts when it is installed, and only what held is used):

- before one of the encoding's own special tokens, where those are recognised: they are cut out of the text before
  anything else is done to it. Only tokens that overlap no other added token, and that swallow no white space, serve.
- after a line feed between two characters that are not white space, where the second is not ``/`` (some splitting
  patterns let punctuation run over line feeds into a slash). Not where the normaliser prepends a word mark, because
  every segment would get one. Without a splitting pattern, also only if no token of the vocabulary spans the place.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers_offline.vocabulary import is_byte_level, steps

SPECIALS, NEWLINES = "specials", "newlines"

SEGMENT_CHARACTERS = 16_384
"""A text longer than this is split. Long enough that look-ups cost little beside the counting they save, and that
the fast engine lets other threads run meanwhile (it does for inputs of 16 KB and more)."""

_TURN_NAMES = re.compile(
    r"(?i)user|assistant|system|im_start|start_header|start_of_turn|turn_token|observation|inst|\|start\||~b\]|tool"
)
_MOST_MARKERS = 8
_ENTRY_BYTES = 120
"""What a remembered count costs besides its text: two dictionary slots, an integer, the hash table's slack."""


class Splitter:
    """Splits one encoding's texts. `kinds` is what `splits_of` allowed and the store recorded."""

    def __init__(
        self,
        frame: Mapping[str, Any],
        kinds: Iterable[str],
        *,
        specials: bool,
        longest: int = SEGMENT_CHARACTERS,
    ) -> None:
        allowed = tuple(kinds)
        self._markers = _markers(frame) if specials and SPECIALS in allowed else ()
        self._newlines = NEWLINES in allowed
        self._longest = longest

    def split(self, text: str) -> list[str]:
        """Segments whose counts add up to the text's; joined, they are the text."""
        if len(text) <= self._longest:
            return [text] if text else []
        segments: list[str] = []
        start = 0
        for end in (*self._marked(text), len(text)):
            if end > start:
                self._cut_lines(text, start, end, segments)
                start = end
        return segments

    def _marked(self, text: str) -> list[int]:
        places: list[int] = []
        for marker in self._markers:
            at = text.find(marker)
            while at >= 0:
                places.append(at)
                at = text.find(marker, at + len(marker))
        places.sort()
        return places

    def _cut_lines(self, text: str, start: int, end: int, segments: list[str]) -> None:
        while self._newlines and end - start > self._longest:
            at = text.find("\n", start + self._longest - 1, end - 1)
            while at >= 0 and not _safe_newline(text, at, start):
                at = text.find("\n", at + 1, end - 1)
            if at < 0:
                break
            segments.append(text[start : at + 1])
            start = at + 1
        segments.append(text[start:end])


def splits_of(frame: Mapping[str, Any], core: str) -> tuple[str, ...]:
    """The kinds of places where texts of an encoding may be split, judged by its rules and vocabulary."""
    kinds = [SPECIALS] if _markers(frame) else []
    if _newlines_safe(frame, core):
        kinds.append(NEWLINES)
    return tuple(kinds)


class CountCache:
    """Remembers the counts of texts, within a bound on bytes, shared by all threads.

    Two generations instead of a list of uses: what is asked for moves to the young one; when that holds half of
    `max_bytes`, the old one is dropped. A look-up takes no lock.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._young: dict[tuple[str, bool], dict[str, int]] = {}
        self._old: dict[tuple[str, bool], dict[str, int]] = {}
        self._young_bytes = 0
        self._lock = threading.Lock()

    def get(self, space: tuple[str, bool], text: str) -> int | None:
        """The remembered count; None when there is none. `space` keeps encodings and their modes apart."""
        young = self._young.get(space)
        if young is not None and (count := young.get(text)) is not None:
            return count
        old = self._old.get(space)
        if old is not None and (count := old.get(text)) is not None:
            self.put(space, text, count)
            return count
        return None

    def put(self, space: tuple[str, bool], text: str, count: int) -> None:
        """Remember a count."""
        size = sys.getsizeof(text) + _ENTRY_BYTES
        if size * 4 > self.max_bytes:
            return
        with self._lock:
            if self._young_bytes + size > self.max_bytes // 2:
                self._old, self._young, self._young_bytes = self._young, {}, 0
            self._young.setdefault(space, {})[text] = count
            self._young_bytes += size

    def __len__(self) -> int:
        return sum(len(texts) for generation in (self._young, self._old) for texts in generation.values())


def _safe_newline(text: str, at: int, start: int) -> bool:
    if at <= start:
        return False
    before, after = text[at - 1], text[at + 1]
    return not (before.isspace() or after.isspace() or after in "/▁" or before == "▁")


def _markers(frame: Mapping[str, Any]) -> tuple[str, ...]:
    """Added tokens that open a turn and that no other added token can overlap; they are found before normalising."""
    normalized = bool(steps(frame.get("normalizer"), "normalizers"))
    tokens = [token for token in frame["added_tokens"] if token["content"]]
    found = [
        token["content"]
        for token in tokens
        if not (token["lstrip"] or token["rstrip"] or token["single_word"] or (token["normalized"] and normalized))
        and _TURN_NAMES.search(token["content"])
        and not any(_overlap(token["content"], other["content"]) for other in tokens)
    ]
    return tuple(found[:_MOST_MARKERS])


def _overlap(one: str, other: str) -> bool:
    """Whether two tokens could claim the same characters: one inside the other, or the end of one starting the other.

    For a token and itself only its own end starting it counts.
    """
    if one != other and (one in other or other in one):
        return True
    shortest = min(len(one), len(other))
    return any(one[-n:] == other[:n] or other[-n:] == one[:n] for n in range(1, shortest))


def _newlines_safe(frame: Mapping[str, Any], core: str) -> bool:
    normalizers = steps(frame.get("normalizer"), "normalizers")
    if any(step["type"] not in ("NFC", "NFKC", "Replace") for step in normalizers):
        return False
    for token in frame["added_tokens"]:
        if token["lstrip"] or token["single_word"] or "\n" in token["content"].strip("\n"):
            return False
    if is_byte_level(frame):
        return True
    vocab = json.loads(f"{{{core}}}")["vocab"]
    return not any(
        "\n" in token and any(not (c.isspace() or c in "/▁") for c in re.findall(r"\n(.)", token)) for token in vocab
    )
