"""Adding up a prompt piece by piece, and remembering how sure each piece is."""

from __future__ import annotations

from tokenizers_offline.layouts.base import Piece, Rendered
from tokenizers_offline.prompt import Accuracy

_RANK = {Accuracy.EXACT: 0, Accuracy.BOUNDED: 1, Accuracy.ESTIMATE: 2}


class Tally:
    """Collects text and constants; the doubts of the parts widen the bound of the whole."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._tokens = 0
        self._accuracy = Accuracy.EXACT
        self._factor = 1.0
        self._extra = 0
        self._features: dict[str, None] = {}
        self._notes: dict[str, None] = {}

    def add_text(self, text: str) -> None:
        """Text whose tokens do not join with what stands before or after it."""
        if text:
            self._pieces.append(Piece(text))

    def add_tokens(self, tokens: int) -> None:
        """Tokens known by rule."""
        self._tokens += tokens

    def add_feature(self, name: str) -> None:
        """What the prompt uses, for drift statistics."""
        self._features[name] = None

    def doubt(self, note: str, *, factor: float = 1.0, extra: int = 0, accuracy: Accuracy = Accuracy.BOUNDED) -> None:
        """The count may be short: `factor` covers the whole prompt and the widest wins, `extra` tokens add up.

        The same note twice still adds its `extra` twice, since each part it stands for may be short.
        """
        self._notes[note] = None
        self._factor = max(self._factor, factor)
        self._extra += extra
        if _RANK[accuracy] > _RANK[self._accuracy]:
            self._accuracy = accuracy

    def render(self) -> Rendered:
        """The sum."""
        return Rendered(
            pieces=tuple(self._pieces),
            tokens=self._tokens,
            accuracy=self._accuracy,
            upper_factor=self._factor,
            upper_extra=self._extra,
            features=tuple(self._features) or ("text",),
            notes=tuple(self._notes),
        )
