"""SLURM's programs as small scripts on PATH, which print what real clusters print; each says how it was called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recyclelora.sweep.slurm.queue import FIELDS


class FakeSlurm:
    """Programs in a folder of their own; what they do can be changed while a test runs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        self.does("sbatch", "n=$(cat $FAKE/count 2>/dev/null || echo 100); echo $((n + 1)) | tee $FAKE/count")
        for quiet in ("squeue", "scancel", "sacct", "srun"):
            self.does(quiet, "")
        self.does("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")

    def does(self, program: str, script: str) -> None:
        """Let a program run some shell lines."""
        path = self.folder / "bin" / program
        temporary = path.with_suffix(".new")
        temporary.write_text(
            f'#!/bin/bash\nexport FAKE={self.folder}\necho "$@" >> $FAKE/{program}.calls\nenv > $FAKE/{program}.env\n'
            f'cp "${{@: -1}}" $FAKE/{program}.script 2>/dev/null; true\n{script}\n'
        )
        temporary.chmod(0o755)
        temporary.replace(path)

    def says(self, program: str, out: str | bytes = "", error: str = "", code: int = 0) -> None:
        """Let a program print something and end."""
        (self.folder / f"{program}.out").write_bytes(out if isinstance(out, bytes) else out.encode())
        (self.folder / f"{program}.err").write_text(error)
        self.does(program, f"cat $FAKE/{program}.out; cat $FAKE/{program}.err >&2; exit {code}")

    def queue(self, *jobs: str | bytes) -> None:
        """Let squeue list jobs, each as :func:`listed` writes it."""
        self.says("squeue", b"\n".join(job if isinstance(job, bytes) else job.encode() for job in jobs) + b"\n")

    def calls(self, program: str) -> list[str]:
        """The arguments of each call so far."""
        path = self.folder / f"{program}.calls"
        return path.read_text().splitlines() if path.exists() else []

    def environment(self, program: str) -> dict[str, str]:
        """The environment of the last call."""
        lines = (self.folder / f"{program}.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    @property
    def script(self) -> str:
        """What sbatch was given last."""
        return (self.folder / "sbatch.script").read_text()


def listed(job: str, state: str, reason: str = "None", code: int = 0, node: str = "", ran: str = "0:00") -> str:
    """A job's line of squeue; its time limit is an hour."""
    values = (job, state, "0", str(code << 8), node, ran, "1:00:00", reason)
    return "".join(value.ljust(width) for value, width in zip(values, FIELDS.values(), strict=True))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "fake", monkeypatch)
