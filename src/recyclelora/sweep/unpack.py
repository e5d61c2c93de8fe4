"""``python snapshot.zip FOLDER ...``: unpack this archive there, unless it is there, and go on as ``python ...``.

Every archive has this file as its ``__main__.py``; it knows Python alone.
"""

import hashlib
import os
import re
import shutil
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

KEPT = 90 * 24 * 3600
"""Seconds after which code that no job has begun with is removed; a job that comes back unpacks it again."""


def digest(archive: Path) -> str:
    """The name of the folder that an archive is unpacked to: 16 hex digits of its sha256."""
    return hashlib.sha256(archive.read_bytes()).hexdigest()[:16]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive, complete or not at all; where that was done before, nothing happens.

    Raises:
        OSError: it cannot be read, or is another one than the folder's name says.
    """
    if folder.is_dir():
        with suppress(OSError):
            os.utime(folder)
        return
    if digest(archive) != folder.name:
        raise OSError(f"{archive}: was renewed since this job was submitted")
    temporary = folder.with_name(f".{folder.name}.{os.uname().nodename}.{os.getpid()}")
    try:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(temporary)
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _remove_old(folder)


def _remove_old(folder: Path) -> None:
    """Remove folders of other code beside this one that nothing has begun with for long."""
    for other in folder.parent.iterdir():
        with suppress(OSError):
            ours = re.fullmatch("[0-9a-f]{16}", other.name) and other != folder and not other.is_symlink()
            if ours and time.time() - other.stat().st_mtime > KEPT:
                shutil.rmtree(other, ignore_errors=True)


if __name__ == "__main__":
    unpack(Path(sys.argv[0]), Path(sys.argv[1]))
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])  # noqa: S606
