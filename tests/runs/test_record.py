"""Which code a run is made of."""

import subprocess
from pathlib import Path

from recyclelora.runs.record import git_state


def test_a_diff_that_is_no_utf8_is_kept(tmp_path: Path):
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "notes.txt").write_text("plain\n")
    git("add", "notes.txt")
    git("commit", "-m", "first")
    (tmp_path / "notes.txt").write_bytes(b"caf\xe9\n")
    state = git_state(tmp_path)
    assert state is not None and len(state["commit"]) == 40
    assert "-plain" in state["diff"] and "+caf\ufffd" in state["diff"]
