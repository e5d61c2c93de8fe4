"""How SLURM's programs are called: in a clean environment, with a deadline, and so that a stop can cut them short."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
"""Of SLURM's own variables, those that say where the cluster is and who asks."""
CHOICES = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_RESERVATION": "reservation",
    "SBATCH_CONSTRAINT": "constraint",
}
"""A site's or a user's standing choices -> the keys of ``hydra.launcher`` that outrank them."""
STEERING = (
    "SLURM_", "SLURMD_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_", "SINFO_", "SRUN_", "SUBMITIT_",
)  # fmt: skip
DEADLINE = 60.0
"""Seconds after which a call counts as not answered."""
HURRIED = 5.0
"""The same, once somebody waits for this process to end."""


@dataclass(frozen=True)
class Answer:
    """How a call ended."""

    code: int | None
    """None: it did not answer in time; what was asked for may have happened or not"""
    out: str = ""
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether it did what it was asked."""
        return self.code == 0


class _Hurry:
    """Whether calls are to be short from now on."""

    since: float | None = None


def hurry(now: bool = True) -> None:
    """Let calls, also the one that is waited for, end soon: a signal has asked this process to stop."""
    _Hurry.since = time.monotonic() if now else None


def environment(chosen: Mapping[str, object] | None = None) -> dict[str, str]:
    """This process's environment without what changes the words or the answers of SLURM's programs.

    ``SQUEUE_PARTITION`` hides jobs, ``SBATCH_TIMELIMIT`` outranks the script, and a driver that is itself a job has
    variables that speak of it and not of its trials.

    Args:
        chosen: for sbatch, keys of ``hydra.launcher``; what is null there is left to the user's ``SBATCH_`` variables
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(STEERING) or key in KEPT}
    if chosen is not None:
        standing = (key for key, ours in CHOICES.items() if chosen.get(ours) is None)
        kept |= {key: os.environ[key] for key in standing if key in os.environ}
    return kept


def call(command: Sequence[str], *, seconds: float = DEADLINE, chosen: Mapping[str, object] | None = None) -> Answer:
    """Call one of SLURM's programs.

    Args:
        command: program and arguments
        seconds: the deadline
        chosen: see :func:`environment`

    Raises:
        FileNotFoundError: there is no such program.
    """
    began = time.monotonic()
    # in a session of its own: Ctrl-C is for this process, which decides what becomes of the call
    process = subprocess.Popen(  # noqa: S603
        list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment(chosen), start_new_session=True,
    )  # fmt: skip
    while True:
        try:
            out, error = process.communicate(timeout=0.2)
            return Answer(process.returncode, _text(out), _text(error))
        except subprocess.TimeoutExpired:
            if time.monotonic() > _end(began, seconds):
                _kill(process)
                return Answer(None)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a call and what it has started, without waiting for one that not even a kill reaches."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def ask(command: Sequence[str], *, seconds: float = DEADLINE) -> str | None:
    """What a program of SLURM prints; None where it is missing, fails, or does not answer in time."""
    try:
        answer = call(command, seconds=seconds)
    except OSError:
        return None
    return answer.out if answer.ok else None


def _end(began: float, seconds: float) -> float:
    return began + seconds if _Hurry.since is None else min(began + seconds, max(began, _Hurry.since) + HURRIED)


def _text(data: bytes) -> str:
    """Users' names and administrators' remarks are in any encoding."""
    return data.decode("utf-8", errors="replace")


def first_line(error: object) -> str:
    """What a command of SLURM says, in one line."""
    lines = [line.strip().removeprefix("sbatch: ").removeprefix("error: ") for line in str(error).splitlines()]
    return "; ".join(line for line in lines if line) or "no reason given"
