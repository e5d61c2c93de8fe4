"""The keys of ``hydra.launcher``: how a sweep's trials run on this machine, and how on SLURM."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recyclelora.config.conditions import read_condition
from recyclelora.system.errors import UserError, first_line

A_DAY = 1440
"""Minutes: the time limit of a trial for which none is given."""
INSTEAD = (
    ("mem_gb", "mem_per_cpu", "mem_per_gpu"),
    ("cpus_per_task", "cpus_per_gpu"),
    ("gres", "gpus_per_node", "gpus_per_task"),
)
"""Keys of which what is said last takes the place of the others."""
RESOURCES = (
    *(key for keys in INSTEAD for key in keys), "partition", "account", "qos", "constraint", "reservation", "nodelist",
    "exclude", "exclusive", "timeout_min", "nodes", "tasks_per_node",
)  # fmt: skip
"""Keys that entries of ``resources`` and ``fallback`` set."""


@dataclass
class LocalOptions:
    """Processes on this machine; as many at a time as ``hydra.sweeper.n_jobs`` says."""

    gpus: list[int] | None = None
    """ids of the GPUs that trials share; null finds them out"""
    gpus_per_trial: int = 1
    trials_per_gpu: int = 1
    timeout_min: float | None = None
    """a trial that takes longer is ended and failed"""
    in_process: bool = False
    """trials run one after another in the driver's own process, which a debugger can follow"""

    def check(self) -> None:
        """Refuse values that make no sense.

        Raises:
            UserError: naming the key.
        """
        _at_least(1, gpus_per_trial=self.gpus_per_trial, trials_per_gpu=self.trials_per_gpu)
        if self.gpus_per_trial > 1 and self.trials_per_gpu > 1:
            raise UserError(
                f"hydra.launcher.gpus_per_trial={self.gpus_per_trial} and "
                f"trials_per_gpu={self.trials_per_gpu}: only one of them can be more than 1"
            )
        if self.timeout_min is not None and self.timeout_min <= 0:
            raise UserError(f"hydra.launcher.timeout_min={self.timeout_min:g}: must be more than 0, or null")


@dataclass
class DriverOptions:
    """The job that the driver of a detached sweep is."""

    partition: str | None = None
    """null: the launcher's"""
    qos: str | None = None
    account: str | None = None
    """null: the launcher's"""
    timeout_min: int = A_DAY
    """then it is queued again, and goes on; less where the partition allows less"""
    cpus: int = 1
    mem_gb: float = 4


@dataclass
class SlurmOptions:
    """SLURM jobs; every key of Hydra's submitit launcher keeps its name and meaning."""

    submitit_folder: str | None = None
    """scripts, submitit's pickles and logs of each job; null: in the sweep's folder"""
    timeout_min: int | None = 60
    """null: a day, or what the partition allows where that is less"""
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    tasks_per_node: int | None = 1
    """processes of one trial on each node: trainer.devices"""
    mem_gb: float | None = None
    """memory on each node"""
    nodes: int = 1
    """of one trial: trainer.num_nodes"""
    name: str | None = None
    """beginning of the jobs' names; null: the study's name"""
    stderr_to_stdout: bool = False
    partition: Any = None
    """or a list: SLURM takes the one that starts the job first"""
    qos: str | None = None
    comment: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    gres: str | None = None
    cpus_per_gpu: int | None = None
    gpus_per_task: int | None = None
    mem_per_gpu: str | None = None
    mem_per_cpu: str | None = None
    account: str | None = None
    signal_delay_s: int = 120
    """seconds before the time limit at which training is told to save itself"""
    max_num_timeout: int = 20
    """how often a job that ran into its time limit is queued again"""
    python: str | None = None
    """command that starts Python, also one in a container; null: the driver's own"""
    additional_parameters: dict[str, Any] = field(default_factory=dict)
    """any other option of sbatch: {mail-type: END}"""
    array: bool = False
    """trials that start together are one array, and one call of sbatch"""
    resources: list[Any] = field(default_factory=list)
    """of trials to which a condition applies: [{when: backbone=dinov2_giant, gres: "gpu:h100:1"}]"""
    fallback: list[Any] = field(default_factory=list)
    """to ask for, one after the other, where what comes before is refused or does not start: [{partition: v100}]"""
    fallback_min: float = 30.0
    """minutes for which a job may wait in the queue before the next of ``fallback`` is asked for"""
    array_parallelism: int = 256
    """most jobs at a time, beside hydra.sweeper.n_jobs"""
    setup: list[str] | None = None
    """shell lines that come before training"""
    srun_args: list[str] | None = None
    use_srun: bool = True
    reservation: str | None = None
    nodelist: str | None = None
    exclusive: bool | None = None
    requeue: bool = True
    """a job comes back after a time-out, preemption or the loss of its node"""
    trials_per_job: int = 1
    """trials that share one allocation and its GPUs; CPUs are each trial's, memory is all of theirs"""
    poll_s: float = 5.0
    """seconds between two looks at the queue"""
    driver: DriverOptions = field(default_factory=DriverOptions)

    def __post_init__(self) -> None:
        self.partition = _joined(self.partition)

    def choices(self, value_of: Callable[[str], str]) -> list[SlurmOptions]:
        """What to ask for: the first choice, and those of ``fallback``.

        Args:
            value_of: the value of a key in the trial's configuration
        """
        mine = self
        for entry in self.resources:
            if all(value_of(key) in values for key, values in read_condition(entry["when"]).items()):
                mine = mine._with(entry)
        return [mine, *(mine._with(entry) for entry in self.fallback)]

    def _with(self, entry: Mapping[str, Any]) -> SlurmOptions:
        given = {key: value for key, value in entry.items() if key != "when"}
        gone = {key: None for keys in INSTEAD if given.keys() & set(keys) for key in keys}
        return replace(self, **{"resources": [], "fallback": [], **gone, **given})

    @property
    def gpus(self) -> int:
        """Of one allocation; 1 where only SLURM knows.

        >>> SlurmOptions(gres="gpu:a100:4", nodes=2).gpus, SlurmOptions(gres="shard:2,gpu:1(S:0)").gpus
        (8, 1)
        """
        if self.gpus_per_task is not None:
            return max(1, self.gpus_per_task * (self.tasks_per_node or 1) * self.nodes)
        parts = [part.split(":") for part in re.sub(r"\(.*?\)", "", self.gres or "").split(",")]
        counts = [int(p[-1]) if p[-1].isdigit() else 1 for p in parts if p[0] in ("gpu", "gres/gpu")]
        each = self.gpus_per_node if self.gpus_per_node is not None else sum(counts)
        return max(1, each * self.nodes)

    def check(self) -> None:
        """Refuse values that make no sense, before anything is submitted.

        Raises:
            UserError: naming the key.
        """
        self._check_entries()
        for key, value in [*vars(self).items(), *((f"driver.{k}", v) for k, v in vars(self.driver).items())]:
            if isinstance(value, str) and not value.isprintable():  # each is a line of a script
                raise UserError(f"hydra.launcher.{key}={value!r}: must be one line of plain characters")
        limit = A_DAY if self.timeout_min is None else self.timeout_min
        _at_least(
            1, timeout_min=limit, nodes=self.nodes, trials_per_job=self.trials_per_job,
            array_parallelism=self.array_parallelism,
        )  # fmt: skip
        if self.fallback_min <= 0:
            raise UserError(f"hydra.launcher.fallback_min={self.fallback_min:g}: must be more than 0")
        if self.driver.timeout_min < 3:  # SLURM may tell it of its end two minutes before
            raise UserError(f"hydra.launcher.driver.timeout_min={self.driver.timeout_min}: must be at least 3")
        _at_least(0, max_num_timeout=self.max_num_timeout, signal_delay_s=self.signal_delay_s)
        if self.poll_s <= 0:
            raise UserError(f"hydra.launcher.poll_s={self.poll_s:g}: must be more than 0")
        if self.trials_per_job > 1 and (self.nodes > 1 or (self.tasks_per_node or 1) > 1):
            raise UserError(
                f"hydra.launcher.trials_per_job={self.trials_per_job}: trials that share an allocation are one process "
                f"each, but nodes={self.nodes} tasks_per_node={self.tasks_per_node} asks for more"
            )
        if not self.use_srun and (self.trials_per_job > 1 or self.nodes > 1 or (self.tasks_per_node or 1) > 1):
            raise UserError("hydra.launcher.use_srun=false: only srun can start several processes")
        if self.signal_delay_s >= 60 * limit:
            raise UserError(
                f"hydra.launcher.signal_delay_s={self.signal_delay_s}: must be less than timeout_min={limit} minutes"
            )
        if self.mem_per_cpu is not None and self.mem_per_gpu is not None:
            raise UserError("hydra.launcher.mem_per_cpu and mem_per_gpu: sbatch takes one of them")

    def _check_entries(self) -> None:
        """Refuse entries of ``resources`` and ``fallback`` that are none.

        Raises:
            UserError: naming the entry.
        """
        for kind, more in (("resources", {"when"}), ("fallback", set[str]())):
            for index, entry in enumerate(getattr(self, kind)):
                name = f"hydra.launcher.{kind}[{index}]"
                if not isinstance(entry, Mapping):
                    raise UserError(f"{name}={entry}: must be keys and values, such as {{partition: gpu}}")
                if unknown := entry.keys() - {*RESOURCES, *more}:
                    raise UserError(f"{name} cannot set {', '.join(sorted(unknown))}; it can {', '.join(RESOURCES)}")
                if more - entry.keys():
                    raise UserError(f"{name}: has no when, such as when: backbone=dinov2_giant")
                try:
                    read_condition(str(entry.get("when", "a=b")))
                except ValueError as error:
                    raise UserError(f"{name}.when={entry['when']!r}: {error}") from None
                try:
                    OmegaConf.merge(OmegaConf.structured(SlurmOptions), {k: entry[k] for k in entry if k != "when"})
                    self._with(entry).check()
                except OmegaConfBaseException as error:
                    raise UserError(f"{name}: {first_line(error)}") from None
                except UserError as error:
                    raise UserError(str(error).replace("hydra.launcher.", f"{name}.", 1)) from None


def _joined(partition: Any) -> Any:
    """Several partitions as sbatch takes them."""
    several = isinstance(partition, Sequence) and not isinstance(partition, str)
    return ",".join(map(str, partition)) if several else partition


def compatible(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of ``hydra.launcher`` that are set, without those of which sbatch takes only another: what the shipped
    options say in general (``mem_gb``, ``cpus_per_task``, ``gres``) gives way to what is said for each CPU or GPU.

    >>> compatible({"mem_gb": 64, "mem_per_cpu": "4G", "gres": "gpu:1", "exclusive": False})
    {'mem_per_cpu': '4G', 'gres': 'gpu:1'}
    """
    kept = {key: value for key, value in given.items() if value is not None and (key, value) != ("exclusive", False)}
    if "partition" in kept:
        kept["partition"] = _joined(kept["partition"])
    if {"mem_per_cpu", "mem_per_gpu"} & kept.keys():
        kept.pop("mem_gb", None)
    if "cpus_per_gpu" in kept:
        kept.pop("cpus_per_task", None)
    if {"gpus_per_node", "gpus_per_task"} & kept.keys() and str(kept.get("gres", "")).startswith("gpu"):
        del kept["gres"]
    return kept


def _at_least(least: int, **values: int) -> None:
    for key, value in values.items():
        if value < least:
            raise UserError(f"hydra.launcher.{key}={value}: must be at least {least}")
