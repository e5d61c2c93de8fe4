"""Units become jobs, alone or as an array, with what they need, or with what is to be had instead."""

from __future__ import annotations

import hashlib
import itertools
import re
import uuid
from collections.abc import Sequence
from pathlib import Path

from recyclelora.config.conditions import read_condition, value_of
from recyclelora.config.launchers import A_DAY, SlurmOptions
from recyclelora.sweep.execution import Job, NotNow, Work
from recyclelora.sweep.slurm.calls import ask
from recyclelora.sweep.slurm.files import JobFiles
from recyclelora.sweep.slurm.job import SlurmJob
from recyclelora.sweep.slurm.queue import minutes_allowed
from recyclelora.sweep.slurm.submission import queue_is_empty, sbatch, taken, trial_script
from recyclelora.sweep.task import HydraTask
from recyclelora.system.errors import UserError
from recyclelora.system.storage import private

FEWER = re.compile(r"(max|grp)submitjob|submit limit|job array", re.IGNORECASE)
"""Refusals that a smaller array may not meet: of a limit of submitted jobs, or of the size of arrays."""
OWN_JOBS = re.compile(r"AssocMaxSubmit|SubmitJobs?PerUser", re.IGNORECASE)
"""Refusals that pass as jobs of this user end, and never where there are none."""

Works = Sequence[Work]


class Submitter:
    """Submits units.

    Args:
        options: ``hydra.launcher``
        task: what the units run
        objectives: see :func:`recyclelora.sweep.task.run_unit`
        files: of the sweep's jobs
        study: the sweep's name

    Raises:
        UserError: a condition looks at something that no configuration has.
    """

    def __init__(
        self, options: SlurmOptions, task: HydraTask, objectives: Sequence[str] | None, files: JobFiles, study: str
    ) -> None:
        self.options, self.task, self.objectives, self.files, self.study = options, task, objectives, files, study
        self.left_out: set[str] = set()
        """nodes that get no more jobs, since one died there before its trial began"""
        self.turns: dict[Path, int] = {}
        """units whose first choice did not start -> which one is their turn"""
        self._doubtful: list[Path] = []
        """scripts of which it is not known whether SLURM has taken them"""
        self._choices: dict[tuple[str, ...], list[SlurmOptions]] = {}
        self._limits: dict[str | None, int] = {}
        for entry in options.resources:
            for key in read_condition(entry["when"]):
                if key.split(".")[0] not in task.config:
                    raise UserError(f"hydra.launcher.resources: when: {entry['when']}: there is no {key}")

    def submit(self, work: Works) -> list[Job]:
        """Submit the first units that need the same: a job, or with ``array`` as many jobs as are taken at once.

        Raises:
            UserError: SLURM refuses it, in its own words.
            NotNow: SLURM does not take it at present.
        """
        self.files.make()
        self._cancel_doubtful()
        choices, turn = self._wanted(work[0])
        alike = list(itertools.takewhile(lambda unit: self._wanted(unit) == (choices, turn), work))
        each = self.options.trials_per_job
        jobs = [alike[i : i + each] for i in range(0, len(alike), each)]
        refusals: list[Exception] = []
        for index in range(turn, len(choices)):
            further = index + 1 if index + 1 < len(choices) else None
            try:
                return self._as_many_as_fit(jobs if self.options.array else jobs[:1], choices[index], further)
            except (UserError, NotNow) as error:
                if isinstance(error, NotNow) and not FEWER.search(str(error)):
                    raise
                refusals.append(error)
        raise next((error for error in refusals if isinstance(error, NotNow)), refusals[0])

    def _wanted(self, unit: Work) -> tuple[list[SlurmOptions], int]:
        """What may be asked for, and which of it is the unit's turn."""
        mark = tuple(unit.overrides)
        if mark not in self._choices:
            try:
                config = self.task.composed(unit.overrides) if self.options.resources else None
            except Exception:  # the trial will fail, with the reason
                config = None
            self._choices[mark] = self.options.choices(lambda key: "" if config is None else str(value_of(config, key)))
        choices = self._choices[mark]
        return choices, min(self.turns.get(unit.folder, 0), len(choices) - 1)

    def _as_many_as_fit(self, jobs: Sequence[Works], options: SlurmOptions, further: int | None) -> list[Job]:
        """Submit jobs as an array; of one that is too large the first half, until it fits."""
        in_vain = False
        while True:
            try:
                return self._call(jobs, options, further)
            except (UserError, NotNow) as error:
                if len(jobs) > 1 and FEWER.search(str(error)):
                    jobs = jobs[: len(jobs) // 2]
                elif isinstance(error, UserError) and self.left_out:
                    self.left_out.clear()  # it may be refused for want of nodes: rather a bad one than none
                elif isinstance(error, NotNow) and OWN_JOBS.search(str(error)) and queue_is_empty():
                    if in_vain:
                        raise UserError(f"{error}: none of your jobs is in the queue, so it allows none") from error
                    in_vain = True  # the last of them may have ended just now
                else:
                    raise

    def _call(self, jobs: Sequence[Works], options: SlurmOptions, further: int | None) -> list[Job]:
        from submitit.core.utils import DelayedSubmission, JobPaths

        name, asked, limit = uuid.uuid4().hex, _asked(options), self.limit_of(options)
        script = self.files.private / f"{name}.sh"
        pickles = [self.files.private / f"{name}_{index}.pkl" for index in range(len(jobs))]
        script.write_text(self.script(jobs, options), encoding="utf-8")
        for work, pickle in zip(jobs, pickles, strict=True):
            job = SlurmJob(self.task, self.objectives, list(work), options.max_num_timeout, options.signal_delay_s)
            DelayedSubmission(job).dump(pickle)
        try:
            number = sbatch(script, vars(options), limit_min=limit, waits=lambda: self.files.any_taken(asked))
        except (NotNow, UserError) as error:
            for pickle in pickles:
                pickle.unlink()  # a job that SLURM took without saying so finds none and ends
            if isinstance(error, NotNow):
                self._doubtful.append(script)
            else:
                script.unlink()
            raise
        names = [number] if len(jobs) == 1 else [f"{number}_{index}" for index in range(len(jobs))]
        for job_name, work, pickle in zip(names, jobs, pickles, strict=True):
            private(self.files.of(job_name))
            self.files.write(job_name, self._name([work]), work, limit, further, asked)
            if job_name == names[0]:
                JobPaths(self.files.folder, job_name).move_temporary_file(script, "submission_file")
            JobPaths(self.files.folder, job_name).move_temporary_file(pickle, "submitted_pickle")
        return [Job(n, len(work), options.gpus / options.trials_per_job) for n, work in zip(names, jobs, strict=True)]

    def _cancel_doubtful(self) -> None:
        """End jobs that SLURM has taken without an answer to us; none of them has a pickle to run."""
        for script in list(self._doubtful):
            job = taken(script)
            if job is not None:
                ask(["scancel", job])
            script.unlink(missing_ok=True)
            self._doubtful.remove(script)

    def script(self, jobs: Sequence[Works], options: SlurmOptions) -> str:
        """The text that sbatch gets for jobs of some units."""
        array = len(jobs) if len(jobs) > 1 else None
        limit, left_out = self.limit_of(options), sorted(self.left_out)
        return trial_script(options, self.files.folder, self._name(jobs), len(jobs[0]), limit, left_out, array)

    def script_of(self, unit: Work) -> str:
        """The text that sbatch gets for one unit."""
        choices, turn = self._wanted(unit)
        return self.script([[unit]], choices[turn])

    def _name(self, jobs: Sequence[Works]) -> str:
        numbers = [f"{unit.number:04d}" for work in jobs for unit in work]
        shown = numbers if len(jobs) == 1 else [f"{numbers[0]}..{numbers[-1]}"]
        return "-".join([self.options.name or self.study, *shown])

    def limit_of(self, options: SlurmOptions) -> int:
        """The time limit of a job, in minutes."""
        if options.timeout_min is not None:
            return options.timeout_min
        if options.partition not in self._limits:
            self._limits[options.partition] = min(A_DAY, minutes_allowed(options.partition) or A_DAY)
        return self._limits[options.partition]


def _asked(options: SlurmOptions) -> str:
    """A mark of what a job asks for: the same for jobs that SLURM takes, or does not take, alike."""
    return hashlib.sha256(repr(sorted(vars(options).items())).encode()).hexdigest()[:16]
