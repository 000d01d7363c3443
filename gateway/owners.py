"""Who holds what: names for processes that tell whether their owner can still be alive."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Iterable


def new_owner() -> str:
    """A name for this process: host, process namespace, process id, and a word that no other process has."""
    owner = f"{_MACHINE}:{os.getpid()}:{secrets.token_hex(4)}"
    _MADE_HERE.add(owner)
    return owner


def place_of(owner: str) -> tuple[str, int]:
    """The host and the process id in an owner's name."""
    machine, _, rest = owner.rpartition(":")
    machine, _, pid = machine.rpartition(":")
    return machine.partition("/")[0], int(pid) if rest and pid.isdecimal() else 0


def dead_owners(owners: Iterable[str], *, me: str) -> frozenset[str]:
    """Those of `owners` that are certainly gone: this machine's processes that run no more, or whose id is mine now.

    Owners elsewhere cannot be asked; their holds wait for the hold timeout.
    """
    machine, my_pid, _ = me.rsplit(":", 2)
    return frozenset(owner for owner in owners if owner != me and _is_dead(owner, machine=machine, my_pid=int(my_pid)))


def _machine() -> str:
    try:
        # Containers may share a host's name and still number their processes apart.
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}/{namespace}"


_MACHINE = _machine()
_MADE_HERE: set[str] = set()


def _is_dead(owner: str, *, machine: str, my_pid: int) -> bool:
    where, _, rest = owner.rpartition(":")
    where, _, pid = where.rpartition(":")
    if where != machine or not pid.isdecimal() or not rest:
        return False
    if int(pid) == my_pid:
        return owner not in _MADE_HERE
    if sys.platform == "win32":  # there this signal is Ctrl-C, and no question
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
