"""Every method with every option of the trainer that wraps around it: each option keeps what it promises, and so does
the method. Tiny models trained by the loop itself, without a run's files; whole runs are in test_method_runs.py."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import TINY, compose_config
from lightning_fabric import Fabric
from torch import Tensor
from two_processes import in_two_processes

from recyclelora.config.build import build_model
from recyclelora.config.run import Config
from recyclelora.models.sharding import shard
from recyclelora.models.state import trainable_state
from recyclelora.system.devices import launched_fabric
from recyclelora.system.distributed import whole
from recyclelora.training.average import WeightAverage
from recyclelora.training.loop import Cadence, fit
from recyclelora.training.optimizer import adamw, parameter_groups
from recyclelora.training.schedule import build_schedule

STEPS, MOMENTUM, EMA_START = 6, 0.25, 1
BATCH = 4
RANK = ["adapter.main.rank=4"]
METHODS: dict[str, list[str]] = {
    "frozen": [],
    "full": [],
    "lora": RANK,
    "lora_plus": RANK,
    "rslora": RANK,
    "pissa": RANK,
    "milora": RANK,
    "mica": RANK,
    "olora": RANK,
    "orthogonal": RANK,
    "recyclelora": [*RANK, "adapter.sub.rank=2"],
    "soma": [*RANK, "adapter.blocks='2:'"],
    "soma_released": [*RANK, "adapter.blocks='2:'"],
    "dora": ["adapter.rank=4"],
    "vera": ["adapter.rank=8"],
    # shared out for the last time after step 4 of 6
    "adalora": [
        "adapter.init_rank=4", "adapter.target_rank=2", "adapter.t_init=1", "adapter.t_final=2", "adapter.delta_t=1",
    ],
    "rein": ["adapter.num_tokens=10"],
    "lora_xs": ["adapter.rank=4"],
    "svft": [],
    "oplora": ["adapter.rank=4", "adapter.protected=4"],
    "kasa": ["adapter.rank=4"],
    "delora": ["adapter.rank=4"],
    "hira": ["adapter.rank=4"],
}  # fmt: skip
PLAIN = {"lora_xs", "svft", "oplora", "kasa", "delora", "hira"}
"""Methods without a state or a step of their own, which DoRA and VeRA stand for in the default suite."""
UNSHARED = {"adalora", "kasa"}
"""Refused with sharded models: they need weights of all blocks at once."""
BUDGET = 2 * 16
"""Triplets that AdaLoRA keeps in the 16 linear layers of the tiny model."""


@dataclass(frozen=True)
class Trained:
    """What came of a training: the weights, their average, and the average computed by hand from the weights."""

    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    by_hand: dict[str, Tensor]
    losses: list[float]


def configured(folder: Path, name: str) -> Config:
    plain = [option for option in TINY if not option.startswith("adapter.")]
    options = [f"trainer.max_steps={STEPS}", f"trainer.batch_size={BATCH}", "optimizer.lr=1e-2", "decoder.lr_mult=0.1"]
    return compose_config(folder, *plain, *options, f"adapter={name}", *METHODS[name])


def batches(rank: int, world_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's share of seeded batches; no two images have equally many labelled pixels."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        images = torch.randint(0, 256, (BATCH, 3, 64, 64), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, 19, (BATCH, 64, 64), dtype=torch.uint8, generator=generator)
        for index, label in enumerate(labels):
            label[4 + 16 * index :] = 255
        yield images.chunk(world_size)[rank], labels.chunk(world_size)[rank]


class Log:
    """Keeps the losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def log(self, step: int, values: dict[str, float]) -> None:
        self.losses.append(sum(value for name, value in values.items() if name.startswith("loss")))

    def evaluate(self, step: int) -> None:
        pass

    def save(self, step: int) -> None:
        pass

    def stop_requested(self) -> bool:
        return False

    def pauses(self, step: int) -> bool:
        return False


def train(
    config: Config,
    fabric: Fabric | None = None,
    *,
    accumulate: int = 1,
    checkpointing: bool = False,
    compiled: bool = False,
) -> Trained:
    """Six steps, as a session makes them."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    torch.manual_seed(0)
    model = build_model(config, None)
    segmenter = model.segmenter
    if checkpointing:
        segmenter.backbone.model.set_grad_checkpointing(True)
    if compiled:
        torch.compiler.reset()
        segmenter.backbone.compile(backend="eager")
    wrapped = fabric.setup_module(segmenter)
    groups = parameter_groups(
        segmenter.named_parameters(), model.rules, lr=config.optimizer.lr, weight_decay=config.optimizer.weight_decay
    )
    optimizer = fabric.setup_optimizers(adamw(groups, betas=(0.9, 0.999), eps=1e-8))
    average = WeightAverage(segmenter, MOMENTUM, EMA_START, model.constrain)
    by_hand: dict[str, Tensor] = {}

    def after_step(step: int) -> None:
        if model.after_step is not None:
            model.after_step(step)
        average.update(step)
        for name, value in trainable_state(segmenter).items():
            known = by_hand.get(name)
            mean = known is not None and step > EMA_START and value.is_floating_point()
            by_hand[name] = (1 - MOMENTUM) * known + MOMENTUM * value if mean else value.clone()

    log = Log()
    segmenter.train()
    fit(
        fabric, wrapped, optimizer, build_schedule(config), batches(fabric.global_rank, fabric.world_size),
        Cadence(STEPS, 1, STEPS, STEPS), log,
        seed=0, accumulate=accumulate, counts=segmenter.counts, after_step=after_step,
    )  # fmt: skip
    states = (trainable_state(segmenter), average.state, by_hand)
    weights, averaged, mean = ({name: whole(value).clone() for name, value in state.items()} for state in states)
    return Trained(weights, averaged, mean, log.losses)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Config, Trained]]:
    """Each method's configuration, and what came of it without any option; trained once for all tests."""
    known: dict[str, tuple[Config, Trained]] = {}

    def trained(name: str) -> tuple[Config, Trained]:
        if name not in known:
            config = configured(tmp_path_factory.mktemp(name), name)
            known[name] = config, train(config)
        return known[name]

    return trained


def check_same(other: Trained, whole: Trained, *, atol: float = 2e-5) -> None:
    """The same training up to the order of float32 sums; AdaLoRA's triplets are switched off in the same places."""
    assert other.losses == pytest.approx(whole.losses, rel=1e-4)
    for mine, its in ((other.weights, whole.weights), (other.average, whole.average)):
        assert mine.keys() == its.keys()
        for name, value in its.items():
            torch.testing.assert_close(mine[name], value, atol=atol, rtol=1e-3, msg=name)
            if name.endswith("lora_e"):
                assert torch.equal(mine[name] == 0, value == 0)


every_method = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in PLAIN else name for name in METHODS]
)


@every_method
def test_the_average_is_the_mean_of_the_weights_and_keeps_what_the_method_promises(plain, name: str):
    trained = plain(name)[1]
    assert trained.average.keys() == trained.weights.keys()
    values = {n for n in trained.weights if name == "adalora" and n.endswith("lora_e")}
    for key, value in trained.average.items():
        if key not in values:
            torch.testing.assert_close(value, trained.by_hand[key], atol=1e-6, rtol=1e-5)
    assert bool(values) == (name == "adalora")
    if values:
        assert sum(int(trained.by_hand[n].count_nonzero()) for n in values) > BUDGET  # what a plain mean would keep
        for state in (trained.weights, trained.average):
            assert sum(int(state[n].count_nonzero()) for n in values) == BUDGET
        for key in values:
            kept = trained.weights[key] != 0
            assert torch.equal(trained.average[key] != 0, kept)
            torch.testing.assert_close(trained.average[key][kept], trained.by_hand[key][kept], atol=1e-6, rtol=1e-5)


@every_method
def test_two_parts_of_a_batch_are_the_whole_batch(plain, name: str):
    config, whole = plain(name)
    check_same(train(config, accumulate=2), whole)


@every_method
def test_checkpointing_changes_nothing(plain, name: str):
    config, whole = plain(name)
    check_same(train(config, checkpointing=True), whole)


@pytest.mark.slow
@every_method
def test_a_compiled_backbone_changes_nothing(plain, name: str):
    config, whole = plain(name)
    check_same(train(config, compiled=True), whole)


def train_halves(rank: int, folder: str, names: list[str], shared: bool) -> None:
    """Methods, in one of two processes, with two parts a step."""
    fabric = launched_fabric(
        "cpu", "32-true", devices=2, num_nodes=1, stall_timeout=60, shard=shard if shared else None
    )  # fmt: skip
    for name in names:
        trained = train(configured(Path(folder) / f"{rank}", name), fabric, accumulate=2, checkpointing=shared)
        torch.save(vars(trained), f"{folder}/{name}-{rank}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True], ids=["ddp", "fsdp"])
def test_two_processes_with_two_parts_each_train_every_method_as_one_does(plain, tmp_path: Path, shared: bool):
    """Sharded models with recomputed blocks besides."""
    names = [name for name in METHODS if not (shared and name in UNSHARED)]
    in_two_processes(tmp_path, train_halves, str(tmp_path), names, shared)
    for name in names:
        both = [Trained(**torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True)) for rank in range(2)]
        check_same(both[0], plain(name)[1])
        for mine, its in ((both[0].weights, both[1].weights), (both[0].average, both[1].average)):
            assert all(torch.equal(mine[key], its[key]) for key in mine), name
