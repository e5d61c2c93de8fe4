"""``init_from=<run>``: start from another run's adapter and decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from recyclelora.config.compose import load_config
from recyclelora.config.run import Config
from recyclelora.models.state import trainable_state
from recyclelora.runs.directory import ADAPTER, CONFIG, RECORD, is_run, not_a_run
from recyclelora.runs.weights import Weights, read_run_weights
from recyclelora.system.errors import UserError
from recyclelora.system.storage import sha256
from recyclelora.system.typed_json import read_object


@dataclass(frozen=True)
class WarmStart:
    """Another run's tensors and the classes its decoder knows."""

    run_dir: Path
    weights: Weights
    config: Config
    weights_sha256: str | None
    """of the backbone it was trained on"""
    sha256: str

    @classmethod
    def read(cls, run: str) -> WarmStart:
        """Read the run named by ``init_from``.

        Raises:
            UserError: it is not a finished run.
        """
        run_dir = Path(run)
        if not is_run(run_dir):
            raise UserError(f"init_from={not_a_run(run_dir)}")
        if not (run_dir / ADAPTER).is_file():
            raise UserError(f"init_from={run}: not the directory of a finished run (it has no {ADAPTER})")
        weights_sha256 = read_object(run_dir / RECORD)["weights_sha256"]
        config = load_config(run_dir / CONFIG)
        return cls(run_dir, read_run_weights(run_dir), config, weights_sha256, sha256(run_dir / ADAPTER))

    def check(self, config: Config, weights_sha256: str | None) -> None:
        """Refuse factors that mean something else on this run's backbone or at its scale.

        Raises:
            UserError: naming what differs.
        """
        if self.weights_sha256 != weights_sha256:
            raise self._unfit(f"trained on other backbone weights ({self.weights_sha256})")
        for key in ("kind", "alpha", "scale_rule", "scale", "residual", "projection_seed"):
            there, here = getattr(self.config.adapter, key, None), getattr(config.adapter, key, None)
            if there != here:
                raise self._unfit(f"another adapter: {key} is {there} there and {here} here")

    def apply(self, segmenter: nn.Module, classes: Sequence[str]) -> list[str]:
        """Copy the tensors into a fresh model; what the decoder has per class goes to the classes of the same name.

        Returns:
            remarks about classes that only one of the two runs has.

        Raises:
            UserError: the adapters differ in layers, ranks or kind.
        """
        own, given, known = trainable_state(segmenter), self.weights.trained, self.config.data.classes.names
        wrong = sorted(own.keys() ^ given.keys())
        if wrong:
            raise self._unfit(f"another adapter or decoder, beginning with {wrong[:3]}")
        per_class = {f"decoder.{name}" for name in segmenter.decoder.per_class()}  # type: ignore[operator, union-attr]
        fitted = {
            name: _by_class(value, given[name], known, classes) if name in per_class else given[name]
            for name, value in own.items()
        }
        for name, value in own.items():
            if fitted[name].shape != value.shape:
                raise self._unfit(f"{name} is {tuple(given[name].shape)} there and {tuple(value.shape)} here")
        for name, value in own.items():
            value.copy_(fitted[name])
        fresh = [name for name in classes if name not in known]
        unused = [name for name in known if name not in classes]
        remarks = [f"classes that start fresh: {', '.join(fresh)}"] if fresh else []
        return remarks + ([f"classes of {self.run_dir.name} that are not used: {', '.join(unused)}"] if unused else [])

    def _unfit(self, why: str) -> UserError:
        return UserError(f"init_from={self.run_dir}: {why}")


def _by_class(own: Tensor, given: Tensor, before: Sequence[str], now: Sequence[str]) -> Tensor:
    """``given`` with its first rows, the classes ``before``, in the places of ``now``; rows of new classes are ``own``.

    Rows behind the classes (no object) stay behind them. Where the two differ in more than that, ``given`` as it is.
    """
    extra = len(own) - len(now)
    if len(given) - len(before) != extra or own.shape[1:] != given.shape[1:]:
        return given
    rows = [given[before.index(name)] if name in before else own[row] for row, name in enumerate(now)]
    return torch.stack([row.to(own) for row in [*rows, *given[len(before) :]]])
