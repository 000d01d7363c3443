"""Giving memory back to the system."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


def return_freed_memory() -> None:
    """Give back what loading needed for a moment (up to 70 MB an encoding), which glibc would keep."""
    trim = _allocator()
    if trim is not None:
        trim(0)


@cache
def _allocator() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # not glibc
        return None
