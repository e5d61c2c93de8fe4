"""Models to export: trained ones as runs, and ones whose adapters were moved at random, which is faster."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import TINY, compose_config, make_cityscapes, make_gta

from recyclelora.commands.export import export
from recyclelora.config.build import build_model, locate_weights
from recyclelora.config.commands import ExportConfig
from recyclelora.evaluation.load import TrainedModel, single_evaluator
from recyclelora.exchange.exports.source import Source
from recyclelora.training.run import Run

PLAIN = [option for option in TINY if not option.startswith("adapter.")]


def moved_source(folder: Path, *overrides: str, seed: int = 0) -> Source:
    """An adapted model with every trainable moved away from its start, ready to export."""
    config = compose_config(folder, *overrides)
    segmenter = build_model(config, locate_weights(config.backbone)).segmenter.eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in segmenter.parameters():
        if parameter.requires_grad:
            size = 0.05 * float(parameter.detach().abs().mean()) + 0.01
            parameter.data += size * torch.randn(parameter.shape, generator=generator)
    segmenter.requires_grad_(False)
    evaluator = single_evaluator(config, torch.device("cpu"), "32-true")
    (folder / "run.json").write_text(json.dumps({"precision": "32-true"}))
    return Source.of(TrainedModel(folder, config, segmenter, evaluator, 1), "last")


def asked(size: tuple[int, int] | None = None, precision: str = "fp32") -> ExportConfig:
    """What a writer is given beside the model and the folder."""
    return ExportConfig(size=None if size is None else list(size), precision=precision)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of one trained run."""
    folder = tmp_path_factory.mktemp("finished")
    make_cityscapes(make_gta(folder / "data"))
    run = Run.identify(compose_config(folder, *TINY), None)
    run.execute()
    return run.directory.path


@pytest.fixture(scope="session")
def exported(finished: Path) -> Callable[[str], Path]:
    """The folder of that run's export in a format, written once."""

    @cache
    def written(name: str) -> Path:
        export(ExportConfig(run=str(finished), format=name))
        return finished / "export" / name

    return written
