"""The errors that end a command with one clear line and no traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right: its text says what is wrong, where, and what to do."""


class Interrupted(Exception):
    """A run that stopped at a step boundary because it was asked to; nothing is lost."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
