"""What SLURM says of jobs, in one call for all of them, with or without accounting."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from recyclelora.sweep.execution import FROM_OUTSIDE, Stage, Status

QUEUED = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"})
RUNNING = frozenset(
    {"RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"}
)
LOST_NODE = {
    "NODE_FAIL": "the node failed",
    "BOOT_FAIL": "the node did not boot",
    "PREEMPTED": "preempted by another job",
    "CANCELLED": "cancelled (scancel)",
    "REVOKED": "taken over by another cluster",
    "LAUNCH_FAILED": "the node could not start it",
    "RECONFIG_FAIL": "the node could not be configured",
}
"""Ends that say nothing about the trial; a cancelled one may have met a broken node, and counts as a try."""
TEMPORARY = 75
"""Exit code of a job that could not begin its trial (EX_TEMPFAIL)."""


@dataclass(frozen=True)
class JobState:
    """A job as the queue shows it."""

    state: str
    reason: str = ""
    code: int = 0
    """of its batch script"""
    signal: int = 0
    restarts: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state not in QUEUED | RUNNING


def look(jobs: Collection[str]) -> dict[str, JobState] | None:
    """States of jobs of this user; None where SLURM does not answer, which says nothing about the jobs.

    A job is known to the controller until some minutes after its end (``MinJobAge``), then only to accounting.
    """
    fields = "JobArrayID:40,State:30,RestartCnt:12,exit_code:16,Reason:60"
    answer = ask(["squeue", "--noheader", "--states=all", f"--user={os.getuid()}", f"--Format={fields}"])
    if answer is None:
        return None
    found: dict[str, JobState] = {}
    for line in answer.splitlines():
        columns = [line[a:b].strip() for a, b in ((0, 40), (40, 70), (70, 82), (82, 98), (98, 158))]
        if columns[0] in jobs:
            status = int(columns[3] or 0)
            found[columns[0]] = JobState(
                columns[1], columns[4], status >> 8 & 0xFF, status & 0x7F, int(columns[2] or 0)
            )  # fmt: skip
    return found


def look_back(jobs: Sequence[str]) -> dict[str, JobState]:
    """States of jobs that the controller has forgotten, from accounting; empty where there is none."""
    if shutil.which("sacct") is None:
        return {}
    command = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={','.join(jobs)}"]
    answer = ask([*command, "--format=JobID,State,ExitCode"])
    found: dict[str, JobState] = {}
    for line in (answer or "").splitlines():
        job, state, exit_code = line.split("|")[:3]
        code, _, number = exit_code.partition(":")
        found[job] = JobState(state.split(" ")[0], "", int(code or 0), int(number or 0))
    return found


def ask(command: list[str]) -> str | None:
    """What a command of SLURM prints; None where it fails or does not answer within a minute."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def explain(job: JobState, timeout_min: int) -> Status:
    """What a state means for the job's units."""
    if job.state in QUEUED:
        return Status(Stage.QUEUED, job.reason or None)
    if job.state in RUNNING:
        return Status(Stage.RUNNING)
    if job.state in LOST_NODE:
        return Status(Stage.GONE, LOST_NODE[job.state], node_fault=True)
    if job.state == "TIMEOUT":
        limit = f"took longer than hydra.launcher.timeout_min={timeout_min} and did not save itself in time"
        return Status(Stage.GONE, f"{limit}; a larger signal_delay_s gives it longer")
    if job.state == "OUT_OF_MEMORY":
        return Status(Stage.GONE, "ran out of memory: raise hydra.launcher.mem_gb")
    if job.state == "COMPLETED":
        return Status(Stage.GONE, "the job ended without a word about its trial", node_fault=True)
    number = job.signal or (job.code - 128 if job.code > 128 else 0)
    if number in [s.value for s in signal.Signals]:
        name = signal.Signals(number).name + (" (out of memory?)" if number == signal.SIGKILL else "")
        return Status(Stage.GONE, f"killed by {name}", node_fault=number in FROM_OUTSIDE)
    if job.code == TEMPORARY:
        return Status(Stage.GONE, "the job could not begin its trial", node_fault=True)
    words = re.sub("_", " ", job.state.lower())
    return Status(Stage.GONE, f"{words}: the job left with exit code {job.code}")
