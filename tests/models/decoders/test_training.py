"""Every decoder in a whole run, and two processes against one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import TINY
from two_processes import in_two_processes

from recyclelora.models.decoders.config import DECODERS
from recyclelora.training.run import Run

from .fixtures import rule
from .models import features, labels, small, total_loss

STREETS = [
    "data=streets",
    "data.sources.0.subset=2",
    "data.source_val.subset=1",
    "data.targets=[{dataset: streets, split: night, name: night, subset: 1}]",
    "trainer.max_steps=2",
    "trainer.eval_every=2",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", DECODERS)
def test_trains_on_streets_and_is_scored(name, make_config):
    inside = ["decoder.num_blocks=2"] if name == "eomt" else []  # of four
    run = Run.identify(make_config(*TINY, *STREETS, f"decoder={name}", *inside), None)
    run.execute()
    result = json.loads((run.directory.path / "result.json").read_text())
    assert result["status"] == "finished" and 0 <= result["miou"]["source_val"] <= 1
    lines = (run.directory.path / "metrics.jsonl").read_text().splitlines()
    losses = {key for line in lines for key in json.loads(line) if "loss" in key}
    assert losses, lines[0]


def _gradients(path: Path, name: str, images: slice) -> None:
    """The gradient of a decoder on some of two images, their counts averaged over the processes."""
    decoder = small(name)
    torch.rand = rule.points
    batch, ids = features(), labels()
    ids[1, :, 32:] = 1  # other counts of classes and pixels in the two images
    ids[1, :16] = 255
    total_loss(decoder, [f[images] for f in batch], ids[images]).backward()
    torch.save({n: p.grad for n, p in decoder.named_parameters()}, path)


def _process(rank: int, folder: str, name: str) -> None:
    _gradients(Path(folder) / f"{rank}.pt", name, slice(rank, rank + 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear", "mask2former"])
def test_mean_gradient_of_two_processes_is_that_of_one(name, tmp_path):
    in_two_processes(tmp_path, _process, str(tmp_path), name)
    random = torch.rand
    try:
        _gradients(tmp_path / "one.pt", name, slice(None))
    finally:
        torch.rand = random
    first, second, one = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in ("0", "1", "one"))
    for parameter, gradient in one.items():
        torch.testing.assert_close((first[parameter] + second[parameter]) / 2, gradient, atol=1e-5, rtol=1e-4)
