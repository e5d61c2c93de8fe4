"""Which code a run is made of."""

import subprocess
from pathlib import Path

import pytest

from recyclelora.runs.record import git_state


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository of one commit."""

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "notes.txt").write_text("plain\n")
    git("add", "notes.txt")
    git("commit", "-m", "first")
    return tmp_path


def test_a_diff_that_is_no_utf8_is_kept(checkout: Path):
    (checkout / "notes.txt").write_bytes(b"caf\xe9\n")
    state = git_state(checkout)
    assert state is not None and len(state["commit"]) == 40
    assert "-plain" in state["diff"] and "+caf\ufffd" in state["diff"]


def test_the_commit_of_an_installation_that_is_another_accounts_is_kept(checkout: Path, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch for its tests
    refused = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True)
    assert "dubious ownership" in refused.stderr
    state = git_state(checkout)
    assert state is not None and len(state["commit"]) == 40 and state["diff"] == ""
