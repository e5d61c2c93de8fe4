"""What runs on a SLURM node: the units of one job, and what becomes of them when SLURM wants the node back.

Before its time limit (``--signal=USR2``), when it is preempted and when it is cancelled, SLURM signals the job.
Training saves itself and the unit is left without an outcome: the job asks to be queued again, finds its checkpoint
when it comes back, and goes on. submitit's own requeueing, which works inside its signal handler, is not used.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from hydra.core.utils import JobStatus

from recyclelora.runs.unit import SLURM_JOB, VARIABLE, ended
from recyclelora.sweep.execution import Work
from recyclelora.sweep.slurm.calls import ask
from recyclelora.sweep.slurm.queue import TEMPORARY, in_seconds, word
from recyclelora.sweep.task import JOB, HydraTask, log_to, run_unit
from recyclelora.system.cores import short_sockets
from recyclelora.system.errors import Interrupted, UserError

SOONER = 70
"""Seconds: SLURM sends the signal before a time limit up to a minute early."""
CALL = 15
"""Seconds that SLURM has to answer a job whose time is nearly over; else it is left to the driver."""
PATIENCE = 30
"""Seconds that processes of one trial, or trials of one job, wait for each other at the end."""


@dataclass(frozen=True)
class SlurmJob:
    """The callable that submitit brings to the node; each task of ``srun`` calls it.

    One unit has all tasks to itself (``nodes`` x ``tasks_per_node`` processes of one training); of several units, each
    has one task and its share of the GPUs.
    """

    task: HydraTask
    objectives: Sequence[str] | None
    work: Sequence[Work]
    max_num_timeout: int
    signal_delay_s: int

    def __call__(self) -> None:
        """Run the unit of this task."""
        rank = int(os.environ.get("SLURM_PROCID", 0))
        tasks = int(os.environ.get("SLURM_NTASKS", 1))
        os.environ[JOB] = this_job()
        _listen()
        short_sockets()
        if len(self.work) > 1:
            work = self.work[rank]
            log_to(work.folder)
            _share_out(rank, tasks)
            self._run(work)
        elif rank == 0:
            log_to(self.work[0].folder)
            status = self._run(self.work[0])
            if tasks > 1 and status != "complete":
                sys.exit(TEMPORARY)  # ends the other tasks, which may wait for this one
        else:
            self._assist(self.work[0], rank)

    def _run(self, work: Work) -> str:
        try:
            return run_unit(self.task, work, self.objectives, resumes=self._resumes)
        except Interrupted:  # while another job still held the unit
            return "resumes" if self._resumes() else "interrupted"

    def _assist(self, work: Work, rank: int) -> None:
        """Be another process of the training whose first one tells its outcome."""
        os.environ[VARIABLE] = str(work.folder)
        try:
            returned = self.task(work.overrides, work.number, this_job())
        except Interrupted:
            return
        if returned.status == JobStatus.FAILED:
            print(f"process {rank} failed", file=sys.stderr, flush=True)
            time.sleep(PATIENCE)  # the first process mostly fails of the same, and says so
            raise returned._return_value

    def _resumes(self) -> bool:
        """Whether the unit, just interrupted, needs no outcome: this job comes back to it, or SLURM tells its end.

        Raises:
            UserError: the job ran into its time limit too often.
        """
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # everything is saved
        about = ask(["scontrol", "show", "job", "-o", this_job()], seconds=CALL)
        if about is not None and word(about, "JobState") != "RUNNING":
            return True  # being cancelled or ended: a request would bring it back from the dead
        if about is not None and self._runs_out(about):
            self._count_timeout()
        self._wait_for_others()
        if ask(["scontrol", "requeue", this_job()], seconds=CALL) is None:
            return False
        time.sleep(600)  # until SLURM ends this process
        return True

    def _runs_out(self, about: str) -> bool:
        """Whether the time limit is why; else the job is preempted."""
        limit = in_seconds(word(about, "TimeLimit"))
        return limit is not None and (in_seconds(word(about, "RunTime")) or 0) >= limit - self.signal_delay_s - SOONER

    def _count_timeout(self) -> None:
        marks = _job_file("timeouts")
        run = os.environ.get("SLURM_RESTART_COUNT", "0")
        seen = set(marks.read_text().split()) if marks.exists() else set()
        if len(seen - {run}) >= self.max_num_timeout:
            times = f"{len(seen) + 1} times" if seen else "once"
            raise UserError(
                f"ran into its time limit {times}: raise hydra.launcher.timeout_min, or "
                f"hydra.launcher.max_num_timeout={self.max_num_timeout}"
            )
        with marks.open("a") as file:
            file.write(f"{run}\n")

    def _wait_for_others(self) -> None:
        """Units of the same job save themselves, too, before the first one's request ends them all."""
        if len(self.work) == 1:
            return
        run, rank = os.environ.get("SLURM_RESTART_COUNT", "0"), int(os.environ["SLURM_GTIDS"].split(",")[0])
        _job_file(f"saved_{run}_{rank}").touch()
        deadline = time.monotonic() + max(PATIENCE, self.signal_delay_s - PATIENCE)
        while time.monotonic() < deadline:
            saved = (_job_file(f"saved_{run}_{i}").exists() for i in range(len(self.work)))
            if all(s or ended(w.folder, w.attempt) for s, w in zip(saved, self.work, strict=True)):
                return
            time.sleep(0.5)


def this_job() -> str:
    """This job as its driver calls it: its number, or those of its array and in it."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ[SLURM_JOB]


def _listen() -> None:
    """Signals that come before or after training end it like those that come during training."""

    def interrupt(number: int, _: FrameType | None) -> None:
        raise Interrupted(f"stopped by signal {number} before or after training", 128 + number)

    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, interrupt)


def _share_out(rank: int, tasks: int) -> None:
    """Make this task a job of its own to what it runs: with its share of the GPUs, and alone."""
    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(share(gpus, rank, tasks))
    alone = {"NTASKS": "1", "NPROCS": "1", "NTASKS_PER_NODE": "1", "PROCID": "0", "LOCALID": "0"}
    os.environ |= {f"SLURM_{key}": value for key, value in alone.items()}


def share(gpus: Sequence[str], rank: int, tasks: int) -> list[str]:
    """The GPUs of one of several trials: as many for each, or several trials on one.

    >>> share(["0", "1", "2", "3"], 1, 2), share(["0", "1"], 2, 4)
    (['2', '3'], ['1'])
    """
    each = len(gpus) // tasks
    return list(gpus[rank * each : (rank + 1) * each]) if each else [gpus[rank * len(gpus) // tasks]]


def _job_file(name: str) -> Path:
    """A file of this job beside submitit's."""
    job = this_job()
    return Path(os.environ["SUBMITIT_FOLDER"].replace("%j", job)) / f"{job}_{name}"
