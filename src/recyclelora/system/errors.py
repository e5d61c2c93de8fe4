"""The errors that end a command with one clear line and no traceback."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 10
"""So many files are named in a message."""


class UserError(Exception):
    """Something the user can put right: its text says what is wrong, where, and what to do."""


class BrokenFile(UserError):
    """A file of a data set that cannot be read, or is not what it should be.

    Args:
        message: file, what is wrong, what to do
        files: the files of the sample, as :class:`recyclelora.data.identity.Files` names them
    """

    def __init__(self, message: str, files: tuple[str, ...] = ()) -> None:
        super().__init__(message, files)  # both: an exception goes through a pipe by its arguments
        self.files = files

    def __str__(self) -> str:
        return str(self.args[0])


def first_line(error: object) -> str:
    """Of what an error says; empty where it says nothing."""
    return (str(error).strip().splitlines() or [""])[0]


def in_one_line(error: BaseException) -> str:
    """A user's mistake and a wish to stop in their own words, anything else with its type."""
    own = isinstance(error, UserError | Interrupted) or type(error).__name__ == "ConfigError"
    return first_line(error) if own else f"{type(error).__name__}: {first_line(error)}".rstrip(": ")


def some(items: Sequence[object], shown: int = SHOWN, between: str = ", ") -> str:
    """The first of many, and how many more there are."""
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return between.join(map(str, items[:shown])) + more


def listed(broken: Sequence[UserError]) -> list[str]:
    """A line for each of many errors, as far as anybody would read them."""
    more = [f"  and {len(broken) - SHOWN} more"] if len(broken) > SHOWN else []
    return [*(f"  {error}" for error in broken[:SHOWN]), *more]


class Interrupted(BaseException):
    """A run that stopped at a step boundary because it was asked to; nothing is lost.

    Like KeyboardInterrupt no Exception: it ends a whole multirun, where a failed trial does not.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Pruned(Interrupted):
    """A run that stopped at a step boundary because its sweep asked for it."""


class Paused(Interrupted):
    """A run that stopped where its sweep compares it with others, and may go on from there.

    Args:
        step: after which
        value: the objective there; None where it has none
    """

    def __init__(self, step: int, value: float | None) -> None:
        super().__init__(f"paused after step {step}")
        self.step, self.value = step, value
