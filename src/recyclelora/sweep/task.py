"""What a job of a sweep does: compose the unit's configuration as Hydra does, run the task, write the outcome."""

from __future__ import annotations

import hashlib
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from recyclelora.runs.directory import RESULT, ResultRecord
from recyclelora.runs.unit import CANCELLED, VARIABLE, Unit
from recyclelora.sweep.execution import Work
from recyclelora.sweep.goals import Objective
from recyclelora.system.errors import Interrupted, Paused, Pruned, UserError, in_one_line
from recyclelora.system.storage import LOCK, taking_turns
from recyclelora.system.typed_json import read_record

JOB = "RECYCLELORA_JOB"
"""Environment variable: the executor's name for the job that this process is."""


SECRET = ("storage", "warm_start", "transfer")
"""Keys of ``hydra.sweeper`` that may hold a password; jobs never open the study."""


@dataclass(frozen=True)
class HydraTask:
    """A task function with all that Hydra needs to run it elsewhere; picklable where the task function is."""

    context: HydraContext
    function: TaskFunction
    config: DictConfig
    singletons: Any = field(default_factory=Singleton.get_state)

    def __call__(self, overrides: Sequence[str], number: int, job: str) -> JobReturn:
        """Compose the configuration of one job and run the task; an error of the task is in what is returned."""
        Singleton.set_state(self.singletons)
        setup_globals()
        config = self.composed(overrides)
        with open_dict(config):
            config.hydra.job.id = job
            config.hydra.job.num = number
        return run_job(
            hydra_context=self.context, task_function=self.function, config=config,
            job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir",
        )  # fmt: skip

    def composed(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration of one job."""
        return self.context.config_loader.load_sweep_config(self.config, list(overrides))

    def identity(self, overrides: Sequence[str]) -> str:
        """Equal for overrides whose runs would be the same, however they are written."""
        config = self.composed(overrides)
        own = getattr(self.function, "identity", None)
        if own is not None:
            return str(own(config))
        with read_write(config), open_dict(config):
            config.pop("hydra", None)
        return hashlib.sha256(OmegaConf.to_yaml(config, resolve=True, sort_keys=True).encode()).hexdigest()[:16]


def without_secrets(config: DictConfig) -> DictConfig:
    """The configuration that jobs get and that launchers may write to files."""
    config = config.copy()
    keys = [f"hydra.sweeper.{key}" for key in SECRET if key in config.hydra.sweeper]
    with read_write(config.hydra), open_dict(config):
        # as overrides too: a job composes anew and must arrive at the same sweeper, with the same interpolations
        given = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)
        assert isinstance(given, list)
        kept = [text for text in given if text.lstrip("+").partition("=")[0] not in keys]
        config.hydra.overrides.hydra = [*kept, *(f"{key}=null" for key in keys)]
        for key in keys:
            OmegaConf.update(config, key, None)
    return config


def run_unit(
    task: HydraTask, work: Work, objectives: Sequence[str] | None,
    returned: Callable[[JobReturn], None] = lambda _: None, resumes: Callable[[], bool] = lambda: False,
) -> str:  # fmt: skip
    """Run one unit in this process and write its outcome, whatever happens short of the process's death.

    Args:
        task: what to run
        work: the unit
        objectives: dotted keys of ``result.json`` that are the trial's values; else what the task returns
        returned: gets what Hydra makes of the task's end
        resumes: asked after an interruption whether the unit needs no outcome, because this job will come back to it;
            a UserError gives the unit up

    Returns:
        the outcome's status; ``superseded`` where another job has taken this attempt, ``resumes`` where this one will.
    """
    job = os.environ.get(JOB) or f"{os.uname().nodename}:{os.getpid()}"

    def call() -> Any:
        job_return = task(work.overrides, work.number, job)
        returned(job_return)
        if job_return.status == JobStatus.FAILED:
            raise job_return._return_value
        return job_return.return_value

    return recorded(work, job, call, objectives, resumes)[0]


def recorded(
    work: Work, job: str, call: Callable[[], Any], objectives: Sequence[str] | None,
    resumes: Callable[[], bool] = lambda: False,
) -> tuple[str, BaseException | None]:  # fmt: skip
    """Call what runs a unit and write how it ended; returns the outcome's status and what was raised."""
    unit = Unit(work.folder)
    began = time.monotonic()

    def outcome(status: str, error: BaseException | None = None, **more: Any) -> tuple[str, BaseException | None]:
        unit.outcome(status, attempt=work.attempt, seconds=time.monotonic() - began, **more)
        return status, error

    def interrupted(stop: Interrupted) -> tuple[str, BaseException | None]:
        if unit.stop_reason() == CANCELLED:
            return outcome("failed", stop, reason=CANCELLED)
        try:
            if resumes():
                return "resumes", stop
        except UserError as error:
            return outcome("failed", error, reason=str(error))
        return outcome("interrupted", stop, reason=str(stop))

    def waiting() -> None:
        unit.waits(f"{unit.runs_as} still holds it")
        print(f"attempt {work.attempt} waits: {unit.runs_as} still holds {work.folder}", flush=True)

    # another job of this unit, left behind by a killed driver, may still run
    with taking_turns(work.folder / LOCK, waiting), _environment(VARIABLE, str(work.folder)):
        if not unit.wants(work.attempt):
            unit.waits(None)
            return "superseded", None
        unit.started(work.attempt, job)
        try:
            return outcome("complete", values=_values(unit, call(), objectives))
        except Pruned as stop:
            return outcome("pruned", reason=str(stop))
        except Paused as stop:
            return outcome(
                "paused", reason=str(stop), step=stop.step, values=None if stop.value is None else [stop.value]
            )
        except Interrupted as stop:
            return interrupted(stop)
        except KeyboardInterrupt as stop:
            return outcome("interrupted", stop, reason="interrupted before the first step")
        except SystemExit as leave:
            return outcome("failed", leave, reason=f"the trial left with exit code {leave.code}")
        except Exception as error:
            cut_off = _interruption(error)
            if cut_off is not None:
                return interrupted(cut_off)
            text = "".join(traceback.format_exception(error))
            print(text, file=sys.stderr, flush=True)
            return outcome("failed", error, reason=in_one_line(error), traceback=text)


def _interruption(error: BaseException) -> Interrupted | None:
    """The interruption in whose wake an error came: code that is cut off anywhere may fail as it cleans up."""
    context = error.__context__
    while context is not None and not isinstance(context, Interrupted):
        context = context.__context__
    return context


def log_to(folder: Path) -> None:
    """Send everything that this process prints to a unit's log."""
    with (folder / "log.txt").open("ab") as log:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _values(unit: Unit, returned: Any, objectives: Sequence[str] | None) -> list[float]:
    """The trial's values: finite numbers.

    Raises:
        UserError: nothing, or no finite number, came back.
    """
    if objectives:
        run_dir = unit.run_dir
        if run_dir is None:
            raise UserError("the task wrote no result.json, which hydra.sweeper.objectives needs")
        result = read_record(run_dir / RESULT, ResultRecord)
        found = {text: Objective.parse(text).of(result) for text in objectives}
    else:
        several = returned if isinstance(returned, list | tuple) else [returned]
        found = {f"value {i}" if len(several) > 1 else "the objective": value for i, value in enumerate(several)}
    for key, value in found.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{key} is {value!r}, not a finite number")
    return [float(value) for value in found.values()]
