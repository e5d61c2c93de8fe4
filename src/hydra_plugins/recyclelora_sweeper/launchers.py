"""Options of the launchers, in Hydra's ConfigStore; under our sweeper they are read as configuration only."""

from __future__ import annotations

from dataclasses import dataclass

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore


@dataclass
class LocalLauncherConf:
    """``hydra/launcher=local``: a process a trial on this machine, ``hydra.sweeper.n_jobs`` at a time."""

    _target_: str = "hydra_plugins.recyclelora_sweeper.launchers.LocalLauncher"
    # a trial that takes longer is ended
    timeout_min: float | None = None


class LocalLauncher(BasicLauncher):
    """Under a sweeper that is not ours: one job after another in this process."""

    def __init__(self, timeout_min: float | None = None) -> None:
        super().__init__()


ConfigStore.instance().store(
    group="hydra/launcher", name="recyclelora_local", node=LocalLauncherConf, provider="recyclelora"
)
