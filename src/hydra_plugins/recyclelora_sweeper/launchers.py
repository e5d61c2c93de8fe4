"""The launchers ``local`` and ``slurm``: their keys, and classes that also work under Hydra's own sweepers.

The project's sweeper reads only their configuration and runs trials itself. Hydra imports this file at every start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore

from recyclelora.config.launchers import A_DAY, LocalOptions, SlurmOptions, compatible

try:
    from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as StockSlurmLauncher
except ImportError:  # the extra `sweep` is not installed: a sweep is refused before its launcher is made
    StockSlurmLauncher = BasicLauncher  # type: ignore[misc, assignment]


class LocalLauncher(BasicLauncher):
    """One run after another in this process, whatever the keys say of processes."""

    def __init__(self, **_: Any) -> None:
        super().__init__()


class SlurmLauncher(StockSlurmLauncher):
    """submitit's launcher with the keys that it knows; the others become options of sbatch, or have no meaning."""

    def __init__(self, **params: Any) -> None:
        params = compatible(params)
        known = {key: value for key, value in params.items() if key in SlurmQueueConf.__dataclass_fields__}
        known["name"] = known.get("name") or "train"
        known.setdefault("timeout_min", A_DAY)
        sbatch = {key: params[key] for key in ("reservation", "nodelist", "exclusive") if key in params}
        known["additional_parameters"] = {**sbatch, **(params.get("additional_parameters") or {})}
        super().__init__(**known)


@dataclass
class LocalLauncherConf(LocalOptions):
    """``hydra/launcher=local``."""

    _target_: str = "hydra_plugins.recyclelora_sweeper.launchers.LocalLauncher"


@dataclass
class SlurmLauncherConf(SlurmOptions):
    """``hydra/launcher=slurm``."""

    _target_: str = "hydra_plugins.recyclelora_sweeper.launchers.SlurmLauncher"
    submitit_folder: str | None = "${hydra.sweep.dir}/submitit/%j"


for name, node in (("recyclelora_local", LocalLauncherConf), ("recyclelora_slurm", SlurmLauncherConf)):
    ConfigStore.instance().store(group="hydra/launcher", name=name, node=node, provider="recyclelora")
