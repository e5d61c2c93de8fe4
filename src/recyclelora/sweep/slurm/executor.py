"""Units as SLURM jobs: submitted through submitit, watched through the queue, heard of through the ledger's files.

What submitit pickles is read by submitit on the node, in a folder that nobody else can write; a job's result is never
read: what it has to say is in its units' ``outcome.json``.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path

from recyclelora.config.launchers import A_DAY, SlurmOptions
from recyclelora.runs.mailbox import began, ended
from recyclelora.sweep.execution import NotNow, Stage, Status, Work
from recyclelora.sweep.slurm.calls import ask, hurry
from recyclelora.sweep.slurm.job import SlurmJob
from recyclelora.sweep.slurm.queue import JobState, Unanswered, explain, look, look_closer, minutes_allowed
from recyclelora.sweep.slurm.submission import private, sbatch, taken, trial_script
from recyclelora.sweep.task import HydraTask
from recyclelora.system.errors import UserError
from recyclelora.system.storage import read_json, write_json

FALSE_START = ("FAILED", "COMPLETED", "BOOT_FAIL", "LAUNCH_FAILED", "RECONFIG_FAIL")
"""Ends that, before its trial has begun, speak of the node."""
SIGNS = ("log.txt", "started.json", "progress.json", "reports.jsonl", "outcome.json")
"""What a job writes into its unit's folder."""
LATE_FILES = 30.0
"""Seconds that a network file system may take to show an outcome that was written on another node."""
SILENT = 300.0
"""Seconds after which a job is lost that squeue does not list, of which nobody else can say anything, and that writes
nothing."""


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
        if "%" in str(sweep.absolute()):
            raise UserError(f"{sweep}: SLURM reads % in a path as its own; choose another output_dir or study")
        self.options, self.task, self.objectives, self.study = options, task, objectives, study
        folder = sweep / "submitit/%j" if options.submitit_folder is None else Path(options.submitit_folder)
        self.folder = (folder if "%j" in str(folder) else folder / "%j").absolute()
        self.units_per_job = options.trials_per_job
        self.gpus_of_a_trial = max(1, (options.gpus_per_node or 1) * options.nodes) / options.trials_per_job
        self.capacity = min(n_jobs, options.array_parallelism * options.trials_per_job)
        self.left_out: set[str] = set()
        """nodes that get no more jobs, since one died there before its trial began"""
        self.died_on: set[str] = set()
        """all such nodes"""
        self._gone: dict[str, Status] = {}
        self._last: dict[str, Status] = {}
        self._silent_since: dict[str, tuple[float, float]] = {}
        self._doubtful: list[Path] = []
        """scripts of which it is not known whether SLURM has taken them"""
        self._looked = self._submitted = -1e9
        self._limit: int | None = None
        hurry(False)

    # --- submitting ---------------------------------------------------------------------------------------------------

    def submit(self, work: Sequence[Work]) -> str:
        """Submit a job for up to ``units_per_job`` units.

        Raises:
            UserError: SLURM refuses it, in its own words.
            NotNow: SLURM does not take it at present.
        """
        from submitit.core.utils import DelayedSubmission, JobPaths

        if not self._root.exists():
            private(self._root)
        private(self._private)
        self._cancel_doubtful()
        name = uuid.uuid4().hex
        script, pickle = self._private / f"{name}.sh", self._private / f"{name}.pkl"
        script.write_text(self.script(work), encoding="utf-8")
        o = self.options
        DelayedSubmission(SlurmJob(self.task, self.objectives, list(work), o.max_num_timeout, o.signal_delay_s)).dump(
            pickle
        )
        try:
            job = sbatch(script, vars(o), waits=bool(self._last) or any(self._root.glob("*/*_units.json")))
        except NotNow:
            self._doubtful.append(script)
            pickle.unlink()  # a job that SLURM took without saying so finds none and ends
            raise
        except UserError:
            script.unlink()
            pickle.unlink()
            if not self.left_out:
                raise
            self.left_out.clear()  # it may be refused for want of nodes: rather a bad one than none
            return self.submit(work)
        paths = JobPaths(self.folder, job)
        private(paths.folder)
        units = [{"folder": os.path.relpath(w.folder, self._root), "attempt": w.attempt} for w in work]
        write_json(self._units_file(job), {"name": self._name(work), "units": units})
        paths.move_temporary_file(script, "submission_file")
        paths.move_temporary_file(pickle, "submitted_pickle")
        self._last[job] = Status(Stage.QUEUED)
        self._submitted = time.monotonic()
        return job

    def _cancel_doubtful(self) -> None:
        """End jobs that SLURM has taken without an answer to us; none of them has a pickle to run."""
        for script in list(self._doubtful):
            job = taken(script)
            if job is not None:
                ask(["scancel", job])
            script.unlink(missing_ok=True)
            self._doubtful.remove(script)

    def script(self, work: Sequence[Work]) -> str:
        """The text that sbatch gets for a job of some units."""
        left_out = sorted(self.left_out)
        return trial_script(self.options, self.folder, self._name(work), len(work), self.limit_min, left_out)

    def _name(self, work: Sequence[Work]) -> str:
        return "-".join([self.options.name or self.study, *(f"{w.number:04d}" for w in work)])

    @property
    def limit_min(self) -> int:
        """The time limit of a job."""
        given = self.options.timeout_min
        if given is None and self._limit is None:
            self._limit = min(A_DAY, minutes_allowed(self.options.partition) or A_DAY)
        return given or self._limit or A_DAY

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
        for job in jobs:
            state = found.get(job)
            status = self._unlisted(job) if state is None else self._listed(job, state)
            if status.stage == Stage.GONE:
                self._gone[job] = status
            else:
                self._last[job] = status

    def _listed(self, job: str, state: JobState) -> Status:
        """What the queue's word for a job means."""
        status = explain(state, self.limit_min, job)
        if status.stage != Stage.GONE:
            self._silent_since.pop(job, None)
            return status
        if self._silent_for(job) < (LATE_FILES if state.state == "COMPLETED" else 2.0) and self._units(job):
            return Status(Stage.RUNNING)  # it may only seem to have left no outcome
        units = self._units(job)
        if state.state in FALSE_START and units and not any(began(folder, attempt) for folder, attempt in units):
            return self._false_start(job, state, status)
        return status

    def _false_start(self, job: str, state: JobState, status: Status) -> Status:
        """A job that died before any of its units began: the next ones go elsewhere."""
        where = f" on {state.node}" if state.node else ""
        reason = f"{status.reason}{where} before its trial began, see {self._units_file(job).parent}"
        if state.node and self.options.nodelist is None:
            self.left_out.add(state.node)
            self.died_on.add(state.node)
            reason += f"; {state.node} gets no more jobs"
        return Status(Stage.GONE, reason, node_fault=True)

    def _unlisted(self, job: str) -> Status:
        """A job that squeue does not list: others are asked, and what it writes outranks them all."""
        try:
            state = look_closer(job)
        except Unanswered:
            if self._silent_for(job) < SILENT:
                return self._last.get(job, Status(Stage.RUNNING))
        else:
            if state is not None:
                return self._listed(job, state)
            if self._units(job) and self._silent_for(job) < LATE_FILES:
                return self._last.get(job, Status(Stage.RUNNING))
        ask(["scancel", job], seconds=20)  # should it live after all, its trial's next job must not meet it
        return Status(Stage.GONE, "SLURM does not know this job any more", node_fault=True)

    def _silent_for(self, job: str) -> float:
        """Seconds, by this machine's clock, for which a job of unknown state has written nothing."""
        written = max((_last_written(folder) for folder, _ in self._units(job)), default=0.0)
        before, since = self._silent_since.get(job, (None, 0.0))
        if before != written:
            self._silent_since[job] = written, time.monotonic()
            return 0.0
        return time.monotonic() - since

    def _all_ended(self, job: str) -> bool:
        units = self._units(job)
        return bool(units) and all(ended(folder, attempt) for folder, attempt in units)

    def hurry(self) -> None:
        """Let no call of SLURM's programs keep the driver from ending."""
        hurry()

    def wait(self, seconds: float) -> None:
        """Wait; outcomes and the queue are looked at by :meth:`status`."""
        time.sleep(seconds)

    def cancel(self, jobs: Collection[str]) -> None:
        """``scancel``: running trials save themselves within the site's ``KillWait``."""
        if jobs:
            ask(["scancel", *jobs], seconds=20)

    def close(self) -> None:
        """Jobs live on; the next driver adopts them."""

    # --- files --------------------------------------------------------------------------------------------------------

    @property
    def _root(self) -> Path:
        """The folder above those of single jobs."""
        return next(p for p in (self.folder, *self.folder.parents) if "%" not in str(p))

    @property
    def _private(self) -> Path:
        """Where a job's files lie until it has a number; one for each user, since a group may share the folder."""
        return self._root / f".new-{os.getuid()}"

    def _units_file(self, job: str) -> Path:
        return Path(str(self.folder).replace("%j", job)) / f"{job}_units.json"

    def _units(self, job: str) -> list[tuple[Path, int]]:
        """Folder and attempt of each unit of a job; none where its driver was killed before it wrote them down."""
        path = self._units_file(job)
        if not path.exists():
            return []
        return [((self._root / unit["folder"]), unit["attempt"]) for unit in read_json(path)["units"]]


def _last_written(folder: Path) -> float:
    """When a file of a unit was last written, by the clock of who wrote it."""
    times = []
    for name in SIGNS:
        with contextlib.suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(times, default=0.0)
