"""Files of SQLite: their addresses, and the rights that they begin with."""

from __future__ import annotations

import os
import re
from pathlib import Path

from recyclelora.system.errors import UserError


def sqlite_url(path: Path) -> str:
    """The address of a SQLite file; what addresses give another meaning is escaped."""
    return "sqlite:///" + re.sub(r"[%?#{}]", lambda sign: f"%{ord(sign[0]):02X}", str(path))


def make_database(path: Path, instead: str) -> None:
    """Make an empty SQLite file where there is none, with the rights that the umask gives; SQLite gives a group none.

    Args:
        path: of the file
        instead: what to do where it cannot be written

    Raises:
        UserError: it cannot be made, or may not be written.
    """
    try:
        if not path.exists():
            path.touch()
    except OSError as error:
        raise UserError(f"{path}: cannot be created: {error.strerror}; {instead}") from error
    if not os.access(path, os.W_OK):
        raise UserError(f"{path}: cannot be written: it is another account's; {instead}")
