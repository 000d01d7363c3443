"""How a command ends when it cannot do what it was asked."""

from __future__ import annotations

from typing import Literal


class Failure(Exception):
    """Ends a command with a message on standard error and no traceback.

    Exit code 1: what was asked about is wrong. 3: something needed is not there.
    """

    def __init__(self, message: str, *, exit_code: Literal[1, 3] = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
