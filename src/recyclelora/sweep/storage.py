"""Where Optuna's study is kept: SQLite in the sweep's folder, a database of the user's, or memory alone."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from recyclelora.system.errors import UserError, first_line
from recyclelora.system.sqlite import make_database, sqlite_url

NETWORK = (
    "nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "pvfs2", "9p", "fuse.",
)  # fmt: skip
"""File systems on which SQLite loses data; ``fuse.`` stands for all of FUSE's."""

MARK = "sweep"
"""User attribute of a study in a shared storage: when the sweep began that it belongs to."""


def storage_url(given: str | None, sweep: Path) -> str | None:
    """Where the study is kept: as given, or SQLite in the sweep's folder; None: in memory only.

    Raises:
        UserError: a storage on which the study would not be safe, or that is none.
    """
    if given is None:
        return None if network_file_system(sweep) else sqlite_url(sweep / "study.db")
    if given == "memory":
        return None
    try:
        url = make_url(given)
    except ArgumentError:
        raise UserError(
            "hydra.sweeper.storage: not a database URL, such as postgresql://user@host/name (password in PGPASSWORD)"
        ) from None
    if url.get_backend_name() == "sqlite" and url.database:
        kind = network_file_system(Path(url.database).absolute().parent)
        if kind is not None:
            raise UserError(
                f"hydra.sweeper.storage={given}: SQLite is not safe on a network file system ({kind}); leave storage "
                "out (the ledger keeps everything), or use PostgreSQL"
            )
    return given


def shown(url: str | None) -> str:
    """A storage's URL without its password."""
    return "memory (the ledger keeps everything)" if url is None else make_url(url).render_as_string(hide_password=True)


def network_file_system(folder: Path) -> str | None:
    """The kind of the network file system that a folder lies on; None on a local one."""
    folder = folder.absolute()
    best, kind = "", ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            mount = before.split()[4]
            if folder.is_relative_to(mount) and len(mount) >= len(best):
                best, kind = mount, after.split()[0]
    return kind if kind.startswith(NETWORK) else None


@dataclass(frozen=True)
class Place:
    """Where a study is, and what it is called there."""

    url: str | None
    name: str
    directions: tuple[str, ...]
    own: bool
    """whether it is the sweep's own file, of which nobody else has any use"""
    mark: str
    """see :data:`MARK`"""

    @property
    def path(self) -> Path:
        """Of the sweep's own file."""
        return Path(str(make_url(str(self.url)).database))

    def study(self) -> optuna.Study:
        """Open the study, or create it.

        Raises:
            UserError: it looks for something else.
        """
        if self.own:
            make_database(self.path, "remove it: it is made again from the ledger")
        study = optuna.create_study(
            study_name=self.name, storage=open_storage(self.url, self.own), load_if_exists=True,
            directions=[StudyDirection[direction.upper()] for direction in self.directions],
        )  # fmt: skip
        found = [direction.name.lower() for direction in study.directions]
        if found != list(self.directions):
            raise UserError(
                f"study {self.name}: was created with direction {found}, now asked for {list(self.directions)}"
            )
        return study


def open_storage(url: str | None, own: bool = False) -> BaseStorage:
    """Optuna's storage at an address.

    Raises:
        UserError: its driver is not installed.
    """
    if url is None:
        return InMemoryStorage()
    try:
        storage = RDBStorage(url)
    except ImportError as error:
        raise UserError(f"hydra.sweeper.storage {shown(url)}: needs a driver: {first_line(error)}") from error
    if own:
        event.listen(storage.engine, "connect", _quick)  # this engine only: others share the process
        storage.engine.dispose()
    return storage


def _quick(connection: sqlite3.Connection, _: Any) -> None:
    """SQLite without waiting for the disk: a view that the ledger can rebuild needs no more."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=OFF")


def check_file(path: Path) -> None:
    """Let SQLite look for damage.

    Raises:
        sqlite3.DatabaseError: there is some.
    """
    if path.exists():
        with contextlib.closing(sqlite3.connect(path)) as connection:
            (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)


def forget(url: str, name: str, mark: str) -> None:
    """Remove a sweep's study from a database where it does not lie in the sweep's own folder; none there is fine.

    Raises:
        UserError: the storage cannot be reached.
    """
    try:
        storage = open_storage(url)
        if optuna.load_study(study_name=name, storage=storage).user_attrs.get(MARK) in (None, mark):
            optuna.delete_study(study_name=name, storage=storage)
    except KeyError:
        pass
    except SQLAlchemyError as error:
        raise refused(url, error) from error


def refused(url: str | None, error: SQLAlchemyError) -> UserError:
    """What to raise where a storage cannot be reached."""
    return UserError(f"hydra.sweeper.storage {shown(url)}: {first_line(error)}")
