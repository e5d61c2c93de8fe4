from __future__ import annotations

import copy
import logging
from functools import partial

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from recyclelora.models.decoders.pixel_loss import cross_entropy, labelled_pixels
from recyclelora.system.devices import precision_plugin
from recyclelora.system.errors import UserError
from recyclelora.system.parameter_rule import ParameterRule
from recyclelora.training.loop import Cadence, fit
from recyclelora.training.optimizer import adamw, parameter_groups
from recyclelora.training.schedule import Schedule


class Pixels(nn.Module):
    """A 1 x 1 convolution as a whole segmenter."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 4, 1)
        self.factor = 1.0

    def forward(self, images, labels, norm=None):
        return {"loss_ce": self.factor * cross_entropy(self.head(images), labels, 255, norm)}

    def counts(self, labels):
        return labelled_pixels(labels, 255).float()


class Log:
    """Keeps what the loop tells."""

    def __init__(self) -> None:
        self.values: dict[int, dict[str, float]] = {}
        self.saved: list[int] = []

    def log(self, step, values):
        self.values[step] = values

    def evaluate(self, step):
        pass

    def save(self, step):
        self.saved.append(step)

    def stop_requested(self):
        return False

    def pauses(self, step):
        return False


def batches(steps: int, size: int = 4):
    """Image i of a batch has labels in its first 1 + 2 i rows only, so that every part of a batch has other counts."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        images = torch.randn(size, 3, 8, 8, generator=generator)
        labels = torch.randint(0, 4, (size, 8, 8), generator=generator)
        for index, label in enumerate(labels):
            label[1 + 2 * index :] = 255
        yield images, labels


def train(model: Pixels, steps: int, precision: str = "32-true", after_step=None, **options) -> tuple[Log, Fabric]:
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[precision_plugin(precision, "cpu")])
    rules = {name: ParameterRule(1.0, None, "all") for name, _ in model.named_parameters()}
    groups = parameter_groups(model.named_parameters(), rules, lr=0.01, weight_decay=0.0)
    wrapped, optimizer = fabric.setup(model, adamw(groups, betas=(0.9, 0.999), eps=1e-8))
    log = Log()
    hook = partial(after_step, fabric=fabric) if after_step else (lambda step: None)
    fit(
        fabric, wrapped, optimizer, Schedule(steps), batches(steps), Cadence(steps, 1, steps, steps), log,
        seed=0, after_step=hook, counts=model.counts, **options,
    )  # fmt: skip
    return log, fabric


def seeded() -> Pixels:
    torch.manual_seed(0)
    return Pixels()


@pytest.mark.parametrize("clip", [None, 0.3])
def test_a_run_is_a_plain_loop_of_torch(clip):
    model, plain = seeded(), seeded()
    log, _ = train(model, 6, **({} if clip is None else {"grad_clip": clip}))
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01, betas=(0.9, 0.999), weight_decay=0.0)
    for step, (images, labels) in enumerate(batches(6)):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / 6) ** 0.9
        loss = nn.functional.cross_entropy(plain.head(images), labels, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        norm = float(torch.cat([p.grad.flatten() for p in plain.parameters()]).norm())
        told = log.values[step + 1]
        assert (told["loss_ce"], told["grad_norm"]) == pytest.approx((loss.item(), norm), rel=1e-5)
        for parameter in plain.parameters():
            parameter.grad *= 1.0 if clip is None else min(1.0, clip / norm)
        optimizer.step()
    for found, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_the_labels_of_a_batch_are_told_apart_by_its_parts():
    """What the next test stands on: parts of equal size with other numbers of labelled pixels."""
    _, labels = next(batches(1))
    assert [int(labelled_pixels(part, 255)) for part in labels.chunk(4)] == [8, 24, 40, 56]


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_parts_give_the_step_of_the_whole_batch(accumulate):
    whole, parts = seeded(), seeded()
    log, _ = train(whole, 5)
    log_parts, _ = train(parts, 5, accumulate=accumulate)
    torch.testing.assert_close(parts.head.weight, whole.head.weight, atol=1e-6, rtol=1e-5)
    for step, values in log.values.items():
        for name in ("loss_ce", "grad_norm"):
            assert log_parts.values[step][name] == pytest.approx(values[name], rel=1e-5)


def test_clipping_bounds_what_the_optimizer_sees():
    seen = []

    def norm(step, fabric):
        seen.append(float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])))

    model = seeded()
    log, _ = train(model, 3, grad_clip=1e-3, after_step=norm)
    assert seen == pytest.approx([1e-3] * 3, rel=1e-2)
    assert all(values["grad_norm"] > 1e-2 for values in log.values.values())


def test_float16_leaves_an_overflowed_step_out_and_lowers_its_scale():
    model, scales, weights = seeded(), [], []

    def watch(step, fabric):
        assert all(p.grad.isfinite().all() for p in model.parameters())  # what learns from them must not see infinity
        scales.append(fabric.strategy.precision.scaler.get_scale())
        weights.append(copy.deepcopy(model.head.weight.data))

    start = seeded().head.weight.data
    model.factor = 50.0  # 65536 * 50 overflows float16 in the backward pass until the scale has fallen
    log, _ = train(model, 12, precision="16-mixed", after_step=watch)
    assert scales[0] == 32768.0 and torch.equal(weights[0], start)
    assert not torch.equal(weights[-1], start)
    assert "grad_norm" not in log.values[1] and "grad_norm" in log.values[12]


def test_a_nan_loss_is_never_mistaken_for_an_overflow():
    model = seeded()
    model.factor = float("nan")
    with pytest.raises(UserError, match="step 0: the loss is nan"):
        train(model, 2, precision="16-mixed")
