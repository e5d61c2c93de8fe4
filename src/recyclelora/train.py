"""One training run, from its configuration to ``result.json``; also ``python -m recyclelora.train``."""

from __future__ import annotations

from recyclelora.cli import launch
from recyclelora.schemas import Config


def train(config: Config, trial: int | None = None) -> float | None:
    """Train, or resume, or report the finished result of a configuration; returns the objective."""
    from recyclelora.run import Run  # imports torch: not before the configuration is known to be sound

    return Run.identify(config, trial).execute()


def main() -> None:
    """``python train.py key=value ...``."""
    launch("train", train)


if __name__ == "__main__":
    main()
