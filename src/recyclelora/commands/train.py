"""Train a model and score it on every target; the same command goes on with a stopped run.

    recyclelora train adapter=recyclelora data=gta2city
    recyclelora train experiment=demo adapter.main.rank=16 seed=1
    recyclelora train -m adapter=frozen,lora,recyclelora seed=0,1,2      # a sweep: every combination
    recyclelora train -m sweeps=rank_split hydra/launcher=slurm          # Optuna, on SLURM

Every value is a key: `--cfg job` prints all of them and trains nothing, docs/config.md lists them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recyclelora.commands import start
from recyclelora.system.imports import quick_imports

if TYPE_CHECKING:
    from recyclelora.config.run import Config


def train(config: Config, trial: int | None = None) -> float | None:
    """Train, or resume, or report the finished result of a configuration; returns the objective."""
    with quick_imports():
        from recyclelora.training.run import Run  # imports torch: not before the configuration is known to be sound

    return Run.identify(config, trial).execute()


def main() -> None:
    """``python train.py key=value ...``."""
    start("train", train)
