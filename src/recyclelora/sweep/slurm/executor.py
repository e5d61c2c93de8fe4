"""Units as SLURM jobs: submitted through submitit, watched through the queue, heard of through the ledger's files.

What submitit pickles is read by submitit on the node, in a folder that nobody else can write; a job's result is never
read: what it has to say is in its units' ``outcome.json``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from recyclelora.config.launchers import SlurmOptions
from recyclelora.runs.unit import began, ended
from recyclelora.sweep.execution import Job, Stage, Status, Work
from recyclelora.sweep.slurm.calls import ask, hurry
from recyclelora.sweep.slurm.files import JobFiles, check_own
from recyclelora.sweep.slurm.queue import LAUNCH_FAILED, JobState, Unanswered, explain, look, look_closer
from recyclelora.sweep.slurm.submitter import Submitter
from recyclelora.sweep.task import HydraTask
from recyclelora.system.errors import UserError

FALSE_START = ("FAILED", "COMPLETED", "BOOT_FAIL", "LAUNCH_FAILED", "RECONFIG_FAIL")
"""Ends that, before its trial has begun, speak of the node."""
SIGNS = ("log.txt", "started.json", "progress.json", "reports.jsonl", "outcome.json")
"""What a job writes into its unit's folder."""
LATE_FILES = 30.0
"""Seconds that a network file system may take to show an outcome that was written on another node."""
SILENT = 300.0
"""Seconds after which a job is lost that squeue does not list, of which nobody else can say anything, and that writes
nothing."""
STALE = 180.0
"""Seconds for which SLURM may still name a reason that has passed."""
MOST_RELEASES = 3
"""Held jobs that are let go again while none of them has started since: a Prolog may fail everywhere, and every failure
costs the site a node."""


class SlurmExecutor:
    """One SLURM job for each unit, or for ``trials_per_job`` of them; with ``array`` many of them in one submission.

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
        folder = sweep / "submitit/%j" if options.submitit_folder is None else Path(options.submitit_folder)
        self.options = options
        self.files = JobFiles((folder if "%j" in str(folder) else folder / "%j").absolute())
        check_own(self.files.root)
        self.submitter = Submitter(options, task, objectives, self.files, study)
        self.capacity = min(n_jobs, options.array_parallelism * options.trials_per_job)
        self.units_at_once = self.capacity if options.array else options.trials_per_job
        self.died_on: set[str] = set()
        """nodes on which a job died before its trial began"""
        self._gone: dict[str, Status] = {}
        self._last: dict[str, Status] = {}
        self._silent_since: dict[str, tuple[float, float]] = {}
        self._waits_since: dict[str, float] = {}
        self._moved: dict[str, str] = {}
        """jobs that are taken out of the queue for another choice -> why"""
        self._alone_since: dict[str, float] = {}
        """jobs that wait while none of this user's runs"""
        self._released: dict[str, int] = {}
        """jobs that a node could not start -> how often they were let go again; those that have not started since"""
        self._looked = self._submitted = -1e9
        hurry(False)

    # --- submitting ---------------------------------------------------------------------------------------------------

    def submit(self, work: Sequence[Work]) -> list[Job]:
        """Submit the first units; see :meth:`Submitter.submit`."""
        jobs = self.submitter.submit(work)
        self._last |= {job.name: Status(Stage.QUEUED) for job in jobs}
        self._submitted = time.monotonic()
        return jobs

    def script(self, work: Work) -> str:
        """The text that sbatch gets for one unit."""
        return self.submitter.script_of(work)

    @property
    def limit_min(self) -> int:
        """The time limit of a job that no condition applies to."""
        return self.submitter.limit_of(self.options)

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
        since = self._alone_since.setdefault(job, time.monotonic()) if state.alone else self._alone_since.pop(job, 0.0)
        state = replace(state, alone=state.alone and time.monotonic() - since >= STALE)
        status = explain(state, self.files.read(job).get("timeout_min", self.limit_min), job)
        if status.stage == Stage.RUNNING:
            self._released.pop(job, None)
        if status.stage == Stage.QUEUED and LAUNCH_FAILED.search(state.reason):
            status = self._release(job, status)
        if status.stage != Stage.GONE:
            self._silent_since.pop(job, None)
            self._move(job, status)
            return status
        if state.state == "CANCELLED" and job in self._moved:
            return replace(status, reason=self._moved[job])
        units = self.files.units(job)
        if self._silent_for(job) < (LATE_FILES if state.state == "COMPLETED" else 2.0) and units:
            return Status(Stage.RUNNING)  # it may only seem to have left no outcome
        if state.state in FALSE_START and units and not any(began(folder, attempt) for folder, attempt in units):
            return self._false_start(job, state, status)
        return status

    def _release(self, job: str, status: Status) -> Status:
        """A job that SLURM holds since a node, drained by now, could not start it: the next node may."""
        if sum(self._released.values()) >= MOST_RELEASES or ask(["scontrol", "release", job], seconds=20) is None:
            return status
        self._released[job] = self._released.get(job, 0) + 1
        return Status(Stage.QUEUED, "a node could not start it and is drained: released for another one", news=True)

    def _move(self, job: str, status: Status) -> None:
        """Take a job out of the queue that does not start, where something else can be asked for."""
        if status.stage != Stage.QUEUED:
            self._waits_since.pop(job, None)
            return
        waits = (time.monotonic() - self._waits_since.setdefault(job, time.monotonic())) / 60
        further = self.files.read(job).get("further")
        if further is None or not (status.stuck or waits > self.options.fallback_min):
            return
        why = status.reason if status.stuck else f"had not started after {waits:.0f} min"
        self._moved[job] = f"{why}; next of hydra.launcher.fallback"
        self.submitter.turns |= {folder: further for folder, _ in self.files.units(job)}
        ask(["scancel", "--state=PENDING", job], seconds=20)  # one that has started by now stays

    def _false_start(self, job: str, state: JobState, status: Status) -> Status:
        """A job that died before any of its units began: the next ones go elsewhere."""
        where = f" on {state.node}" if state.node else ""
        reason = f"{status.reason}{where} before its trial began, see {self.files.of(job)}"
        if state.node and self.options.nodelist is None:
            self.submitter.left_out.add(state.node)
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
            if self.files.units(job) and self._silent_for(job) < LATE_FILES:
                return self._last.get(job, Status(Stage.RUNNING))
        ask(["scancel", job], seconds=20)  # should it live after all, its trial's next job must not meet it
        return Status(Stage.GONE, "SLURM does not know this job any more", node_fault=True)

    def _silent_for(self, job: str) -> float:
        """Seconds, by this machine's clock, for which a job of unknown state has written nothing."""
        written = max((_last_written(folder) for folder, _ in self.files.units(job)), default=0.0)
        before, since = self._silent_since.get(job, (None, 0.0))
        if before != written:
            self._silent_since[job] = written, time.monotonic()
            return 0.0
        return time.monotonic() - since

    def _all_ended(self, job: str) -> bool:
        units = self.files.units(job)
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


def _last_written(folder: Path) -> float:
    """When a file of a unit was last written, by the clock of who wrote it."""
    times = []
    for name in SIGNS:
        with contextlib.suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(times, default=0.0)
