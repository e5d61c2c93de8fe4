from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import threading
import time
from pathlib import Path

import pytest

from recyclelora.system.errors import UserError
from recyclelora.system.storage import (
    LOCK,
    append_text,
    folder_inside,
    is_own_file,
    locked,
    make_folder,
    remove_leftovers,
    taking_turns,
)


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

    monkeypatch.setattr("recyclelora.system.storage.fcntl.flock", moved_meanwhile)
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


def _dies_before_its_worker(folder: Path, worker: Path) -> None:
    """Hold both kinds of lock, fork a data worker that does not notice the end, and be killed."""
    with locked(folder), taking_turns(folder / ".unit.lock"):
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        worker.write_text(str(pid))
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_dead_process_has_forked_does_not_hold_its_locks(tmp_path: Path):
    worker = tmp_path / "worker"
    process = multiprocessing.get_context("fork").Process(target=_dies_before_its_worker, args=(tmp_path, worker))
    process.start()
    process.join()
    os.kill(int(worker.read_text()), 0)  # the orphan lives
    said: list[int] = []
    try:
        with locked(tmp_path), taking_turns(tmp_path / ".unit.lock", lambda: said.append(1)):
            assert said == []
    finally:
        os.kill(int(worker.read_text()), signal.SIGKILL)


def test_who_waits_for_a_turn_says_so(tmp_path: Path):
    said, taken = threading.Event(), threading.Event()

    def next_one() -> None:
        with taking_turns(tmp_path / "lock", said.set):
            taken.set()

    with taking_turns(tmp_path / "lock"):
        thread = threading.Thread(target=next_one)
        thread.start()
        assert said.wait(20) and not taken.is_set()
    thread.join(20)
    assert taken.is_set()


def test_what_a_command_writes_inside_a_run_follows_no_link(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "mine").mkdir()
    assert folder_inside(tmp_path / "run", "analysis").is_dir()
    (tmp_path / "run/predictions").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="predictions: is a link"):
        folder_inside(tmp_path / "run", "predictions")


def test_locks_have_the_rights_that_the_umask_gives(tmp_path: Path):
    before = os.umask(0o007)
    try:
        with locked(tmp_path):
            assert stat.S_IMODE((tmp_path / LOCK).stat().st_mode) == 0o660
    finally:
        os.umask(before)


def test_somebody_elses_run_says_where_to_write_instead(tmp_path: Path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be created: .*; give output=<folder>"):
        folder_inside(tmp_path / "file", "predictions", "give output=<folder>")
    (tmp_path / "evaluations").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UserError, match="evaluations: cannot be written; copy the run"):
        folder_inside(tmp_path, "evaluations")


def test_own_files_are_plain_and_reached_through_no_link(tmp_path: Path):
    run = tmp_path / "run"
    (run / "figures").mkdir(parents=True)
    (tmp_path / "a.png").touch()
    (run / "figures/a.png").touch()
    (run / "link.png").symlink_to(tmp_path / "a.png")
    (run / "pictures").symlink_to(run / "figures")
    (tmp_path / "moved").symlink_to(run)
    os.mkfifo(run / "fifo")
    names = ["figures/a.png", "link.png", "pictures/a.png", "fifo", "figures", "none"]
    assert [name for name in names if is_own_file(run, run / name)] == ["figures/a.png"]
    assert is_own_file(tmp_path / "moved", tmp_path / "moved/figures/a.png")
