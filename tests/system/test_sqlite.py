"""Databases in a file that a group may share."""

import os
import stat
from pathlib import Path

import pytest

from recyclelora.system.errors import UserError
from recyclelora.system.sqlite import make_database


def test_a_database_has_the_rights_that_the_umask_gives_and_is_left_as_it_is(tmp_path: Path):
    path = tmp_path / "a.db"
    before = os.umask(0o007)
    try:
        make_database(path, "")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660 and path.read_bytes() == b""
    path.write_bytes(b"something")
    make_database(path, "")
    assert path.read_bytes() == b"something"


def test_one_that_is_not_mine_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match=r"a\.db: cannot be created: .*; ask"):
        make_database(tmp_path / "missing" / "a.db", "ask")
    (tmp_path / "a.db").touch()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"a\.db: cannot be written: it is another account's; ask"):
        make_database(tmp_path / "a.db", "ask")
