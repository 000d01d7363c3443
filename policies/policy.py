"""The policy: keys and budgets as one frozen snapshot that a reload swaps whole."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from policies.model import Budget, Key, KeyRefused, OnExhausted, OutputHold, Subject
from policies.windows import time_zone


def digest(credential: str) -> str:
    """Return what is kept of a credential: ``sha256:<hex>``."""
    return "sha256:" + hashlib.sha256(credential.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may call, and under which budgets.

    `output_hold`, `output_hold_floor` and `on_exhausted` serve budgets that name none; `time_zone` is an IANA name.
    `clamp_most` is the largest cap that ``clamp`` writes when the model's own maximum is not known: a cap beyond
    a model's maximum makes providers answer 400.
    Raises ValueError for two keys with one digest or id, two budgets with one name, an unknown time zone.
    """

    keys: tuple[Key, ...] = ()
    budgets: tuple[Budget, ...] = ()
    time_zone: str = "UTC"
    output_hold: OutputHold = "learned"
    output_hold_floor: int = 1024
    clamp_most: int = 32_768
    on_exhausted: OnExhausted = "finish"
    _by_digest: Mapping[str, Key] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        by_digest = {key.digest: key for key in self.keys}
        if len(by_digest) != len(self.keys):
            raise ValueError("two keys share one digest: every key needs a credential of its own")
        if len({key.id for key in self.keys}) != len(self.keys):
            raise ValueError("two keys share one id: ids name counters and must be unique")
        names = [budget.name for budget in self.budgets]
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"two budgets are named '{twice[0]}': names hold counters and must be unique")
        time_zone(self.time_zone)
        object.__setattr__(self, "_by_digest", by_digest)

    def key(self, credential: str | None, *, now: float) -> Key:
        """Return the key of a credential. Raises `KeyRefused` when it is missing, unknown, disabled or expired."""
        if not credential:
            raise KeyRefused("missing", "No API key was given. Send yours where this API expects it.")
        presented = digest(credential)
        key = self._by_digest.get(presented)
        # The lookup finds the candidate; this compare is what admits, and its time tells nothing about the digest.
        if key is None or not hmac.compare_digest(key.digest, presented):
            raise KeyRefused("unknown", "The API key is not known here. Ask the people who run this gateway for one.")
        if key.disabled:
            raise KeyRefused("disabled", f"The API key '{key.id}' is disabled. Ask the people who run this gateway.")
        if key.expires is not None and now >= key.expires:
            raise KeyRefused("expired", f"The API key '{key.id}' has expired. Ask for a new one.")
        return key

    def subject(self, key: Key, *, model: str, upstream: str) -> Subject:
        """Say who asks, for what."""
        return Subject(key_id=key.id, tags=key.tags, model=model, upstream=upstream)


__all__ = ["KeyRefused", "Policy", "digest"]
