"""Options of the sweeper, in Hydra's ConfigStore."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore


@dataclass
class RecycleLoraSweeperConf:
    """``hydra.sweeper``: the keys of the stock Optuna sweeper, and more."""

    _target_: str = "hydra_plugins.recyclelora_sweeper.sweeper.RecycleLoraSweeper"
    defaults: list[Any] = field(default_factory=lambda: ["_self_", {"sampler": None}, {"pruner": None}])

    # None: a plain grid. Else Optuna chooses: hydra/sweeper/sampler=tpe|gp|cmaes|nsgaii|nsgaiii|qmc|random|grid
    sampler: Any = None
    # None, or hydra/sweeper/pruner=asha|hyperband, whose trials pause, or median|percentile|successive_halving|
    # wilcoxon|threshold, which end them
    pruner: Any = None
    # maximize or minimize, or a list of them with as many objectives
    direction: Any = "maximize"
    # figures of result.json, such as miou.source_val, params.backbone_trainable, seconds; None: what the task returns
    objectives: list[str] | None = None
    # such as 'params.backbone_trainable <= 5e6'
    constraints: list[str] = field(default_factory=list)
    # None: SQLite in the sweep's folder; postgresql://... for several drivers; memory
    storage: str | None = None
    study_name: str | None = None
    # of a search; a grid is as long as it is
    n_trials: int | None = None
    # '20000 steps' of all trials, '12 gpu_hours', or '8 hours' (minutes, days) of this command: then no more is started
    budget: str | None = None
    # trials at the same time
    n_jobs: int = 1
    # search space, in the stock sweeper's syntax
    params: dict[str, Any] = field(default_factory=dict)
    # name -> overrides: whole settings, of which every trial takes one (the parameter `point`)
    points: dict[str, list[str]] = field(default_factory=dict)
    # parameter -> 'other=value' or 'other=value|value': asked for only then
    conditions: dict[str, str] = field(default_factory=dict)
    # points to try first
    enqueue: list[dict[str, Any]] = field(default_factory=list)
    # another sweep's folder, or <storage url>#<study>, or a list: its trials are known to the sampler from the start
    warm_start: Any = None
    # the same: ranges of numbers become those of its best trials, and a margin
    transfer: Any = None
    # parameter -> normal(mean,sd), lognormal(median,sd of the natural logarithm), weights of choices: hints that fade
    prior: dict[str, Any] = field(default_factory=dict)
    # a trial whose run is finished in another sweep of output_dir, or as a run of its own, takes that result
    reuse: bool = False
    # runs with different seeds a trial; the mean is its value
    repeats: int = 1
    # so many of the best are run again on fresh seeds; only those enter tables
    confirm: int = 0
    # parameters: confirm so many of the best for each of their values
    confirm_by: list[str] = field(default_factory=list)
    confirm_seeds: list[int] = field(default_factory=lambda: [1001, 1002, 1003])
    # candidates get seeds until a test that may be looked at after every seed has decided: against whom, such as
    # adapter=frozen or a list of such, or `best`; they are those of `confirm`, without it all points of a grid
    race: Any = None
    # the most seeds a candidate gets; raise it to go on
    race_seeds: int = 20
    # what is compared: a figure of result.json, or `objective`
    race_on: str = "miou.mean"
    # chance of any false claim
    race_alpha: float = 0.05
    # no new trials after so many failed
    max_failures: int | None = None
    # how often a trial is tried again when its node was at fault
    max_retries: int = 2
    # run failed trials of an earlier call again
    retry_failed: bool = False
    # after the sampler's first trials, the next one by expected improvement per second (Gaussian processes)
    per_second: bool = False
    # keep report.html and the list of studies fresh while the sweep runs
    live: bool = True
    # list and check all trials, run none
    dry_run: bool = False
    # submit the driver itself as a job (hydra/launcher=slurm)
    detach: bool = False
    # run the code as it was when the sweep began; renew: from now on as it is now
    snapshot: str = "off"
    # the stock sweeper's; here trials fail one by one, see max_failures
    max_failure_rate: float = 1.0


@dataclass
class PrunerConf:
    """``hydra.sweeper.pruner``."""

    kind: str = "median"


@dataclass
class MedianPrunerConf(PrunerConf):
    """Worse than the median of the others at the same step."""

    n_startup_trials: int = 5
    n_warmup_steps: int = 0
    interval_steps: int = 1
    n_min_trials: int = 1


@dataclass
class PercentilePrunerConf(PrunerConf):
    """Worse than the best ``percentile`` percent of the others at the same step."""

    kind: str = "percentile"
    percentile: float = 50.0
    n_startup_trials: int = 5
    n_warmup_steps: int = 0
    interval_steps: int = 1
    n_min_trials: int = 1


@dataclass
class SuccessiveHalvingPrunerConf(PrunerConf):
    """Successive halving that ends trials for good (``asha`` pauses them); resources are training steps."""

    kind: str = "successive_halving"
    min_resource: Any = "auto"
    reduction_factor: int = 4
    min_early_stopping_rate: int = 0
    bootstrap_count: int = 0


@dataclass
class AshaConf(PrunerConf):
    """Pause at ``min_resource * reduction_factor^k`` steps; the best ``1 / reduction_factor`` there go on."""

    kind: str = "asha"
    min_resource: Any = "auto"
    max_resource: Any = "auto"
    reduction_factor: int = 3


@dataclass
class HyperbandConf(AshaConf):
    """The same in brackets, of which each pauses one rung later for the first time; the last never."""

    kind: str = "hyperband"


@dataclass
class WilcoxonPrunerConf(PrunerConf):
    """With repeats: worse than the best trial on the seeds that both have, by a signed-rank test."""

    kind: str = "wilcoxon"
    p_threshold: float = 0.1
    n_startup_steps: int = 2


@dataclass
class ThresholdPrunerConf(PrunerConf):
    """Beyond a bound."""

    kind: str = "threshold"
    lower: float | None = None
    upper: float | None = None
    n_warmup_steps: int = 0
    interval_steps: int = 1


_store = ConfigStore.instance()
# under second names, for the option files in conf/hydra/sweeper that set some of their keys
for _name in ("recyclelora", "recyclelora_sweeper"):
    _store.store(group="hydra/sweeper", name=_name, node=RecycleLoraSweeperConf, provider="recyclelora")
with contextlib.suppress(ImportError):  # the extra `sweep` is not installed: a sweep is refused before this is missed
    from hydra_plugins.hydra_optuna_sweeper.config import OptunaSweeperConf

    _store.store(group="hydra/sweeper", name="optuna_sweeper", node=OptunaSweeperConf, provider="recyclelora")
for _conf in (
    AshaConf, HyperbandConf, MedianPrunerConf, PercentilePrunerConf, SuccessiveHalvingPrunerConf, WilcoxonPrunerConf,
    ThresholdPrunerConf,
):  # fmt: skip
    _store.store(group="hydra/sweeper/pruner", name=_conf.kind, node=_conf, provider="recyclelora")
