"""Units as SLURM jobs: submitted through submitit, watched through the queue, heard of through the ledger's files.

What submitit pickles is read by submitit on the node, in a folder that nobody else can write; a job's result is never
read: what it has to say is in its units' ``outcome.json``.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from recyclelora.errors import UserError
from recyclelora.storage import read_json, write_json
from recyclelora.sweep.execution import Stage, Status, Work
from recyclelora.sweep.options import SlurmOptions
from recyclelora.sweep.slurm_job import SlurmJob
from recyclelora.sweep.slurm_queue import JobState, ask, explain, look, look_back
from recyclelora.sweep.slurm_submission import exports, first_line, outer_job_hidden, private
from recyclelora.sweep.task import HydraTask
from recyclelora.sweep.unit import ended

RENAMED = {"name": "job_name", "timeout_min": "time", "mem_gb": "mem", "tasks_per_node": "ntasks_per_node"}
OWN = ("submitit_folder", "max_num_timeout", "python", "reservation", "requeue", "trials_per_job", "poll_s", "driver")
BUSY = ("Unable to contact slurm controller", "Socket timed out", "temporarily unavailable", "try again")
TRIES = 6
LATE_FILES = 30.0
"""Seconds that a network file system may take to show an outcome that was written on another node."""


class SlurmExecutor:
    """One SLURM job for each unit, or for ``trials_per_job`` of them.

    Args:
        options: ``hydra.launcher``
        task: what the units run
        objectives: see :func:`recyclelora.sweep.task.run_unit`
        sweep: the sweep's folder, on a file system that all nodes share
        n_jobs: most units at a time
        study: the sweep's name
    """

    jobs_outlive_driver = True

    def __init__(
        self, options: SlurmOptions, task: HydraTask, objectives: Sequence[str] | None, sweep: Path, n_jobs: int,
        study: str,
    ) -> None:  # fmt: skip
        self.options, self.task, self.objectives, self.study = options, task, objectives, study
        self.folder = sweep.absolute() / options.submitit_folder
        self.units_per_job = options.trials_per_job
        self.capacity = min(n_jobs, options.array_parallelism * options.trials_per_job)
        self._gone: dict[str, Status] = {}
        self._last: dict[str, Status] = {}
        self._silent_since: dict[str, float] = {}
        self._looked = self._submitted = -1e9

    # --- submitting ---------------------------------------------------------------------------------------------------

    def submit(self, work: Sequence[Work]) -> str:
        """Submit a job for up to ``units_per_job`` units.

        Raises:
            UserError: SLURM refuses it, in its own words.
        """
        from submitit import SlurmExecutor as Submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        parameters = self._parameters(work)
        private(self._root)
        o = self.options
        payload = SlurmJob(self.task, self.objectives, list(work), o.max_num_timeout, o.signal_delay_s)
        try:
            executor = Submitit(self.folder, max_num_timeout=o.max_num_timeout, python=self._python)
            executor.update_parameters(**parameters)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"hydra/launcher=slurm: {first_line(error)}") from error
        for attempt in range(TRIES):
            try:
                with outer_job_hidden():
                    job: str = executor.submit(payload).job_id
                break
            except (FailedJobError, FailedSubmissionError) as error:
                # a job that SLURM took without saying so finds no pickle and ends
                if attempt == TRIES - 1 or not any(words in str(error) for words in BUSY):
                    raise UserError(f"sbatch refuses the job: {first_line(error)}") from error
                time.sleep(2**attempt)
        units = [{"folder": os.path.relpath(w.folder, self._root), "attempt": w.attempt} for w in work]
        write_json(self._units_file(job), {"name": parameters["job_name"], "units": units})
        self._last[job] = Status(Stage.QUEUED)
        self._submitted = time.monotonic()
        return job

    def script(self, work: Work) -> str:
        """The text that would be given to sbatch for a unit."""
        from submitit.slurm.slurm import _make_sbatch_string

        command = f"{self._python} -u -m submitit.core._submit {shlex.quote(str(self.folder))}"
        return str(_make_sbatch_string(command=command, folder=self.folder, **self._parameters([work])))

    @property
    def _python(self) -> str:
        """What starts Python; without srun it takes the shell's place, to which alone signals come then."""
        python = self.options.python or shlex.quote(sys.executable)
        return python if self.options.use_srun else f"exec {python}"

    def _parameters(self, work: Sequence[Work]) -> dict[str, Any]:
        """The options in the words of submitit."""
        o = self.options
        given = {key: value for key, value in vars(o).items() if key not in OWN and value is not None}
        packed = len(work) > 1
        more: dict[str, Any] = {"requeue": True} if o.requeue else {"no-requeue": True}
        if o.reservation is not None:
            more["reservation"] = o.reservation
        given |= {
            "name": "-".join([o.name or self.study, *(f"{w.number:04d}" for w in work)]),
            "tasks_per_node": len(work) if packed else o.tasks_per_node,
            "additional_parameters": {**more, **o.additional_parameters},
            # the shell outlives a signal, so that training has the time to save itself
            "setup": [*exports(), *(o.setup or []), *(["trap : TERM"] if o.use_srun else [])],
            # one process of a training that fails ends the others; one trial of several must not
            "srun_args": [f"--kill-on-bad-exit={int(not packed)}", "--wait=0", *(o.srun_args or [])],
        }
        if o.mem_gb is not None:
            given["mem_gb"] = f"{round(1024 * o.mem_gb)}MB"
        if not o.use_srun:
            given["additional_parameters"].setdefault("signal", f"B:USR2@{o.signal_delay_s}")
        return {RENAMED.get(key, key): value for key, value in given.items() if value is not None}

    # --- watching -----------------------------------------------------------------------------------------------------

    def status(self, jobs: Collection[str]) -> dict[str, Status]:
        """Look at jobs, also at those of an earlier driver: their numbers are enough."""
        open_jobs = {job for job in jobs if job not in self._gone}
        for job in list(open_jobs):
            if self._all_ended(job):
                self._gone[job] = Status(Stage.GONE)
                open_jobs.discard(job)
        now = time.monotonic()
        if open_jobs and (now - self._looked >= self._pause(now) or not open_jobs <= self._last.keys()):
            self._looked = now
            self._look(open_jobs)
        return {job: self._gone.get(job) or self._last.get(job, Status(Stage.QUEUED)) for job in jobs}

    def _pause(self, now: float) -> float:
        """Seconds between two looks at the queue: fewer while the last job is new."""
        return min(self.options.poll_s, max(1.0, (now - self._submitted) / 10))

    def _look(self, jobs: Collection[str]) -> None:
        found = look(jobs)
        if found is None:
            return  # the controller is away: jobs go on without it
        unknown = [job for job in jobs if job not in found]
        if unknown:
            found |= look_back(unknown)
        for job in jobs:
            state = found.get(job)
            if state is None:
                status = Status(Stage.GONE, "SLURM does not know this job any more", node_fault=True)
            else:
                status = explain(state, self.options.timeout_min)
            if status.stage == Stage.GONE and not self._told_late(job, state):
                self._gone[job] = status
            else:
                self._last[job] = status if status.stage != Stage.GONE else Status(Stage.RUNNING)

    def _told_late(self, job: str, state: JobState | None) -> bool:
        """Whether a job that ended well may only seem to have left no outcome."""
        since = self._silent_since.setdefault(job, time.monotonic())
        late = LATE_FILES if state is not None and state.state == "COMPLETED" else 2.0
        return time.monotonic() - since < late and bool(self._units(job))

    def _all_ended(self, job: str) -> bool:
        units = self._units(job)
        return bool(units) and all(ended(folder, attempt) for folder, attempt in units)

    def wait(self, seconds: float) -> None:
        """Wait; outcomes and the queue are looked at by :meth:`status`."""
        time.sleep(seconds)

    def cancel(self, jobs: Collection[str]) -> None:
        """``scancel``: running trials save themselves within the site's ``KillWait``."""
        if jobs:
            ask(["scancel", *jobs])

    def close(self) -> None:
        """Jobs live on; the next driver adopts them."""

    # --- files --------------------------------------------------------------------------------------------------------

    @property
    def _root(self) -> Path:
        """The folder above those of single jobs."""
        return next(p for p in (self.folder, *self.folder.parents) if "%" not in str(p))

    def _units_file(self, job: str) -> Path:
        return Path(str(self.folder).replace("%j", job)) / f"{job}_units.json"

    def _units(self, job: str) -> list[tuple[Path, int]]:
        """Folder and attempt of each unit of a job; none where its driver was killed before it wrote them down."""
        path = self._units_file(job)
        if not path.exists():
            return []
        return [((self._root / unit["folder"]), unit["attempt"]) for unit in read_json(path)["units"]]
