"""Whole runs of two processes that share the model: the same run as with a copy in each, and the same files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import TINY, compose_config, stop_after
from safetensors.torch import load_file
from two_processes import in_two_processes

import recyclelora
from recyclelora.system.errors import Interrupted
from recyclelora.training.run import Run

OPTIONS = [
    *TINY, "trainer.devices=2", "trainer.accelerator=cpu", "trainer.batch_size=4", "trainer.accumulate=2",
    "trainer.max_steps=6", "trainer.eval_every=3", "trainer.num_figures=1", "trainer.ema=0.2", "trainer.grad_clip=0.5",
    "trainer.checkpointing=true", "data.protocol.scales=[0.75,1.0]", "optimizer.lr=1e-2",
    "data.source_val.dataset=cityscapes",
]  # fmt: skip
"""Three images in each set: one of the processes has one more to score."""
WAYS = {"ddp": ("ddp", "ddp"), "fsdp": ("fsdp", "fsdp"), "begun_ddp": ("ddp", "fsdp"), "begun_fsdp": ("fsdp", "ddp")}


def run_all(rank: int, folder: str, precision: str) -> None:
    """Each way, with a stop after step 2."""
    for name, strategies in WAYS.items():
        options = [*OPTIONS, f"trainer.precision={precision}", f"output_dir={folder}/{name}"]
        first, then = (compose_config(Path(folder), *options, f"trainer.strategy={value}") for value in strategies)
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, 2)
            with pytest.raises(Interrupted):
                Run.identify(first, None).execute()
        Run.identify(then, None).execute()


def told(run: Path) -> list[float]:
    points = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [point["loss_ce"] for point in points if "loss_ce" in point]


def check_tensors(whole: Path, run: Path, rounding: float) -> None:
    """The same files, and the same tensors up to rounding, in all but the counts of evaluations."""
    kept = {path: [file for file in sorted(path.rglob("*")) if file.is_file()] for path in (whole, run)}
    assert [file.relative_to(whole) for file in kept[whole]] == [file.relative_to(run) for file in kept[run]]
    for file, other in zip(kept[whole], kept[run], strict=True):
        if file.suffix == ".safetensors" and "evaluations" not in file.parts:
            expected, found = load_file(file), load_file(other)
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value, atol=rounding, rtol=1e-3, msg=f"{other} {key}")


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "rounding"), [("32-true", 2e-5), ("bf16-mixed", 2e-3)])
def test_a_run_goes_on_with_the_other_strategy(tmp_path: Path, gta2city: Path, precision: str, rounding: float):
    in_two_processes(tmp_path, run_all, str(tmp_path), precision)
    whole, *others = (next((tmp_path / name / "runs").iterdir()) for name in WAYS)
    for run in others:
        assert run.name == whole.name, "the same run"
        then, now = (json.loads((path / "result.json").read_text()) for path in (whole, run))
        scores = [result["miou"]["mean"] for result in (then, now)]
        assert scores[1] == pytest.approx(scores[0], abs=0.01) and now["params"] == then["params"]
        assert now["movement"] == pytest.approx(then["movement"], rel=1e-3)
        assert told(run) == pytest.approx(told(whole), rel=100 * rounding) and len(told(run)) == 6
        check_tensors(whole, run, rounding)
        assert recyclelora.load(run).step == 6
