"""Who may look at the dashboard: sessions that every worker can check, and brakes for those who guess."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING

from policies.model import StoreLost

if TYPE_CHECKING:
    from gateway.runtime import Runtime

COOKIE = "tollgate_session"
LASTS_S = 12 * 3600.0

FREE_TRIES = 5
LONGEST_WAIT_S = 300.0
CLIENTS_KEPT = 4096

_KIND, _NAME = "dashboard", "session-secret"
_OWN = secrets.token_bytes(32)
"""Signs sessions while the store cannot be asked for the secret that all workers share."""


class Sessions:
    """Makes and checks signed session tokens. The secret lies in the store, not in the configuration: whoever reads an
    admin key's digest there can make no session. Another admin key ends all sessions."""

    def __init__(self) -> None:
        self._shared: bytes | None = None

    async def make(self, runtime: Runtime, *, now: float) -> str:
        """A token for somebody who has shown the admin key."""
        await self._learn(runtime)
        expires = f"{int(now + LASTS_S)}.{secrets.token_urlsafe(12)}"
        return f"{expires}.{_signed(self._shared or _OWN, runtime, expires)}"

    async def holds(self, runtime: Runtime, token: str, *, now: float) -> bool:
        """Whether a token is one of ours and has not ended."""
        expires, _, signature = token.rpartition(".")
        until, _, _ = expires.partition(".")
        if not signature or not (until.isascii() and until.isdecimal()) or len(until) > 12 or now >= int(until):
            return False
        await self._learn(runtime)
        known = [each for each in (self._shared, _OWN) if each is not None]
        return any(hmac.compare_digest(signature.encode(), _signed(each, runtime, expires).encode()) for each in known)

    async def _learn(self, runtime: Runtime) -> None:
        if self._shared is not None:
            return
        store = runtime.engine.store
        try:
            for _ in range(2):
                for note in await store.notes():
                    if (note.kind, note.name) == (_KIND, _NAME):
                        self._shared = note.body
                        return
                await store.write_note(_KIND, _NAME, secrets.token_hex(32).encode(), replacing=0)
        except StoreLost:  # the page is wanted most on such a day: this worker's own secret serves until then
            return


class Brakes:
    """Makes each client address wait longer after every wrong key."""

    def __init__(self) -> None:
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait_s(self, client: str, *, now: float) -> float:
        """How long this client has to wait before its next try."""
        return max(0.0, self._failed.get(client, (0, 0.0))[1] - now)

    def note(self, client: str, *, good: bool, now: float) -> None:
        """Take the outcome of a try."""
        if good:
            self._failed.pop(client, None)
            return
        count = self._failed.get(client, (0, 0.0))[0] + 1
        wait = min(LONGEST_WAIT_S, 2.0 ** min(20, count - FREE_TRIES)) if count >= FREE_TRIES else 0.0
        self._failed[client] = (count, now + wait)
        self._failed.move_to_end(client)
        if len(self._failed) > CLIENTS_KEPT:
            self._failed.popitem(last=False)


def _signed(secret: bytes, runtime: Runtime, text: str) -> str:
    message = f"{runtime.settings.admin.digest}|{text}".encode()
    return hmac.new(secret, message, hashlib.sha256).hexdigest()
