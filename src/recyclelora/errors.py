"""The errors that end a command with one clear line and no traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right: its text says what is wrong, where, and what to do."""


class Interrupted(BaseException):
    """A run that stopped at a step boundary because it was asked to; nothing is lost.

    Like KeyboardInterrupt no Exception: it ends a whole multirun, where a failed trial does not.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Pruned(Interrupted):
    """A run that stopped at a step boundary because its sweep asked for it."""
