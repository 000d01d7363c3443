"""The policy: keys and budgets as one frozen snapshot that a reload swaps whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from policies.model import Budget, Key, KeyRefused, OutputHold, Subject


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may call, and under which budgets.

    `output_hold` and `output_hold_floor` serve budgets that name none; `time_zone` is an IANA name.
    Raises ValueError for two keys with one digest or id.
    """

    keys: tuple[Key, ...] = ()
    budgets: tuple[Budget, ...] = ()
    time_zone: str = "UTC"
    output_hold: OutputHold = "learned"
    output_hold_floor: int = 1024
    _by_digest: Mapping[str, Key] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        by_digest = {key.digest: key for key in self.keys}
        if len(by_digest) != len(self.keys):
            raise ValueError("two keys share one digest: every key needs a credential of its own")
        if len({key.id for key in self.keys}) != len(self.keys):
            raise ValueError("two keys share one id: ids name counters and must be unique")
        object.__setattr__(self, "_by_digest", by_digest)

    def key(self, credential: str | None, *, now: float) -> Key:
        """Return the key of a credential. Raises `KeyRefused` when it is missing, unknown, disabled or expired."""
        raise NotImplementedError

    def subject(self, key: Key, *, model: str, upstream: str) -> Subject:
        """Say who asks, for what."""
        return Subject(key_id=key.id, tags=key.tags, model=model, upstream=upstream)


__all__ = ["KeyRefused", "Policy"]
