"""Files of images and masks, as bytes."""

from __future__ import annotations

from pathlib import Path

from recyclelora.system.errors import UserError


def read_bytes(path: Path) -> bytes:
    """A file's content.

    Raises:
        UserError: it is not there, empty or not readable.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for, a device never ends
            raise UserError(f"{path}: cannot be read: not a regular file")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise UserError(f"{path}: cannot be read: larger than the memory that is left") from error
    if not data:
        raise UserError(f"{path}: cannot be read: the file is empty")
    return data
