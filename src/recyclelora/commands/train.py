"""One training run, from its configuration to ``result.json``; also ``python -m recyclelora.train``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recyclelora.system.stopping import ctrl_c_in_one_line

if TYPE_CHECKING:
    from recyclelora.config.run import Config


def train(config: Config, trial: int | None = None) -> float | None:
    """Train, or resume, or report the finished result of a configuration; returns the objective."""
    from recyclelora.training.run import Run  # imports torch: not before the configuration is known to be sound

    return Run.identify(config, trial).execute()


def main() -> None:
    """``python train.py key=value ...``."""
    with ctrl_c_in_one_line("train"):
        from recyclelora.commands.launch import launch

        launch("train", train)


if __name__ == "__main__":
    main()
