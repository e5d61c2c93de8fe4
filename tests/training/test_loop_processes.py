"""The loop in two processes: what is logged is the loss of the whole batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from two_processes import in_two_processes

from recyclelora.system.devices import launched_fabric
from recyclelora.system.parameter_rule import ParameterRule
from recyclelora.training.loop import Cadence, fit
from recyclelora.training.optimizer import adamw, parameter_groups
from recyclelora.training.schedule import Schedule

from .test_loop import Log, batches, seeded, train

STEPS = 3


def train_half(rank: int, directory: str, accumulate: int) -> None:
    """Three steps of one of two processes, on its half of every batch."""
    fabric = launched_fabric("cpu", "32-true", devices=2, num_nodes=1, stall_timeout=60)
    model, log = seeded(), Log()
    rules = {name: ParameterRule(1.0, None, "all") for name, _ in model.named_parameters()}
    groups = parameter_groups(model.named_parameters(), rules, lr=0.01, weight_decay=0.0)
    wrapped, optimizer = fabric.setup(model, adamw(groups, betas=(0.9, 0.999), eps=1e-8))
    halves = ((images.chunk(2)[rank], labels.chunk(2)[rank]) for images, labels in batches(STEPS))
    fit(
        fabric, wrapped, optimizer, Schedule(STEPS), halves, Cadence(STEPS, 1, STEPS, STEPS), log,
        seed=0, accumulate=accumulate, counts=model.counts,
    )  # fmt: skip
    Path(f"{directory}/{rank}.json").write_text(json.dumps([log.values[step + 1]["loss_ce"] for step in range(STEPS)]))


@pytest.mark.slow
def test_the_logged_loss_is_that_of_both_processes_and_all_parts(tmp_path: Path):
    """Halves with 32 and 96 labelled pixels, cut into parts of 8, 24, 40 and 56: the loss of one process is told."""
    in_two_processes(tmp_path, train_half, str(tmp_path), 2)
    whole, _ = train(seeded(), STEPS)
    expected = [whole.values[step + 1]["loss_ce"] for step in range(STEPS)]
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == pytest.approx(expected, rel=1e-5)
