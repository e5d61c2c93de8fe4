"""The sweeper that Hydra finds: it hands what Hydra gives it to ``recyclelora.sweep``."""

from __future__ import annotations

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from . import config as config


class RecycleLoraSweeper(Sweeper):
    """Runs grids and Optuna searches; one failed trial ends nothing, and the same command goes on where it was."""

    def __init__(self, **options: Any) -> None:
        self.options = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in options.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what the sweep needs."""
        self.given = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep to its end."""
        from recyclelora.sweep.main import sweep

        return sweep(self.options, *self.given, arguments)
