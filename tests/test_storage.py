from __future__ import annotations

from pathlib import Path

import pytest

from recyclelora.errors import UserError
from recyclelora.storage import append_text, locked, make_folder, remove_leftovers


def test_appending_where_one_cannot_says_where_and_how_much(tmp_path: Path):
    append_text(tmp_path / "log", "one\n")
    append_text(tmp_path / "log", "two\n")
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    with pytest.raises(UserError, match="metrics: cannot add 5 bytes: Is a directory"):
        (tmp_path / "metrics").mkdir()
        append_text(tmp_path / "metrics", "five\n")


def test_a_folder_that_was_moved_away_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Between the opening of the lock file and its locking, another process starts the run over."""
    run = tmp_path / "run"
    run.mkdir()
    import fcntl

    def moved_meanwhile(*arguments):
        run.rename(tmp_path / "run.old")
        run.mkdir()
        monkeypatch.undo()
        fcntl.flock(*arguments)

    monkeypatch.setattr("recyclelora.storage.fcntl.flock", moved_meanwhile)
    with pytest.raises(UserError, match="has just moved it"), locked(run):
        pass
    with locked(run), pytest.raises(UserError, match="in use by process"), locked(run):
        pass


def test_what_killed_writers_left_goes_files_and_folders(tmp_path: Path):
    (tmp_path / ".last.1a.tmp").write_text("")
    (tmp_path / ".step_000001.1a.tmp").mkdir()
    (tmp_path / "kept.tmp").write_text("")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.tmp"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/below: cannot be created: Not a directory"):
        make_folder(tmp_path / "file/below")
