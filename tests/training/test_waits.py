"""How often a training step waits for the device, and what it computes where: on fake CUDA tensors."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_cuda import CUDA, fake_cuda, on_cuda
from recyclelora.testing import tiny_vit

from recyclelora.adapters.config import AdaLoraConfig, DoraConfig, FrozenConfig, FullConfig, ReinConfig, VeraConfig
from recyclelora.adapters.low_rank.config import BranchConfig, LowRankConfig
from recyclelora.adapters.method import AdapterContext
from recyclelora.config.build import build_decoder
from recyclelora.data.protocol import ProtocolConfig
from recyclelora.evaluation import evaluator as evaluation
from recyclelora.models.backbones.timm import create_backbone
from recyclelora.models.decoders import mask_loss
from recyclelora.models.decoders.config import DECODERS, MaskLossConfig
from recyclelora.models.decoders.matching import Matched
from recyclelora.models.segmenter import Segmenter
from recyclelora.system.devices import precision_plugin
from recyclelora.system.parameter_rule import ParameterRule
from recyclelora.training import loop
from recyclelora.training.optimizer import adamw, parameter_groups
from recyclelora.training.schedule import Schedule

CLASSES, SIZE = 3, (40, 56)
SMALL = {"width": 16, "num_heads": 2, "loss": MaskLossConfig(num_points=16)}
DECODER_OPTIONS = {
    "linear": {}, "segformer": {"width": 16}, "fpn": {"width": 32, "head_width": 32}, "upernet": {"width": 16},
    "dpt": {"width": 16}, "eomt": {**SMALL, "num_queries": 4, "num_blocks": 1},
    "mask2former": {
        **SMALL, "width": 32, "num_queries": 4, "encoder_layers": 1, "encoder_width": 16, "decoder_layers": 1,
        "decoder_width": 16,
    },
}  # fmt: skip
"""All of them, small."""
ADAPTERS = {
    "frozen": FrozenConfig(),
    "full": FullConfig(),
    "lora": LowRankConfig(main=BranchConfig("kaiming", 2), residual=False),
    "recyclelora": LowRankConfig(main=BranchConfig("rrqr_minor", 2), sub=BranchConfig("rrqr_major", 2)),
    "soma": LowRankConfig(main=BranchConfig("svd_minor", 2), split_qkv=True, train_bias=True, blocks="1:"),
    "dora": DoraConfig(rank=2),
    "vera": VeraConfig(rank=2),
    "adalora": AdaLoraConfig(init_rank=2, target_rank=1),
    "rein": ReinConfig(num_tokens=4, token_rank=2, query_width=32),
}
PROTOCOLS = {
    "whole": ProtocolConfig("whole", mode="whole"),
    "slide": ProtocolConfig("slide", window=32, stride=20),
    "resized views": ProtocolConfig("views", window=32, stride=20, sizes={"": [48, 64]}, scales=[1.0, 1.5]),
    "mirrored": ProtocolConfig("mirrored", mode="whole", flip=True),
}
COVERING = [
    *[(adapter, "linear", "whole") for adapter in ADAPTERS],
    *[("recyclelora", decoder, "whole") for decoder in DECODERS if decoder != "linear"],
    *[("rein", "mask2former", "whole"), ("frozen", "linear", "slide"), ("frozen", "linear", "resized views")],
    ("frozen", "linear", "mirrored"),
]
"""Every adapter, decoder and protocol, and what they lend each other; the slow test takes all triples."""


@pytest.fixture(autouse=True)
def pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """An assignment, which needs values, gives two pairs; copies between host and device go without pinned memory."""
    images, classes = torch.tensor([0, 1]), torch.tensor([2, 0])

    def assign(costs: torch.Tensor, present: torch.Tensor) -> Matched:
        assert (costs.device.type, present.device.type) == ("cpu", "cpu")
        return Matched(images, classes, torch.tensor([1, 3]).expand(len(costs), 2).clone())

    monkeypatch.setattr(mask_loss, "assign", assign)
    monkeypatch.setattr(evaluation, "sent", lambda array, device: torch.from_numpy(array).to(device))
    monkeypatch.setattr(loop, "copied", lambda batches, device: (tuple(x.to(device) for x in b) for b in batches))


def model(adapter: str, decoder: str) -> Segmenter:
    """Real, on the CPU."""
    arguments = {"depth": 4, "embed_dim": 32, "num_heads": 2}
    backbone = create_backbone(
        "vit_tiny_patch16_224", patch_size=16, image_size=(32, 32), levels=(0, 1, 2, 3), model_args=arguments,
        weights=None,
    )  # fmt: skip
    options = DECODERS[decoder](**DECODER_OPTIONS[decoder])
    lends = getattr(options, "has_queries", False)
    adapted = ADAPTERS[adapter].method().apply(backbone.model, AdapterContext(max_steps=1000, has_queries=lends))
    lent = None if adapted.query is None else adapted.query()
    head = build_decoder(options, [32] * 4, CLASSES, lent, adapted.query_features)
    return Segmenter(
        backbone, head, mean=(0.5,) * 3, std=(0.2,) * 3, ignore_index=255, padding_index=254, query=adapted.query,
        penalty=adapted.penalty,
    )  # fmt: skip


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(2, 3, *SIZE, dtype=torch.uint8), torch.zeros(2, *SIZE, dtype=torch.uint8)


def runs_on_cuda(adapter: str, decoder: str, protocol: str) -> None:
    """Forward, loss and prediction stay on the device from the batch to the class ids."""
    real = model(adapter, decoder)
    with fake_cuda() as (mode, _):
        fake = on_cuda(real, mode)
        losses = fake(*(part.to(CUDA) for part in batch()))
        assert all(loss.device == CUDA and loss.shape == () for loss in losses.values())
        scores = evaluation.Evaluator(
            PROTOCOLS[protocol], CLASSES, 255, CUDA, nullcontext, lambda tensor: tensor, window_batch=100
        ).scores(fake.eval(), [np.zeros((*SIZE, 3), np.uint8)])
        assert scores.device == CUDA and scores.shape == (1, CLASSES, *SIZE)


@pytest.mark.parametrize(("adapter", "decoder", "protocol"), COVERING)
def test_everything_stays_on_the_device(adapter: str, decoder: str, protocol: str) -> None:
    runs_on_cuda(adapter, decoder, protocol)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["linear", "eomt", "mask2former"])  # the other dense ones are as linear is
def test_every_adapter_decoder_and_protocol_stays_on_the_device(decoder: str) -> None:
    for adapter in ADAPTERS:
        for protocol in PROTOCOLS:
            runs_on_cuda(adapter, decoder, protocol)


def test_a_tensor_left_on_the_cpu_is_noticed() -> None:
    real = tiny_vit()
    real.left = torch.zeros(64)
    with fake_cuda() as (mode, _), pytest.raises(RuntimeError, match="device"):
        fake = on_cuda(real, mode)
        fake.left + fake.norm.weight


class FakeFabric(SimpleNamespace):
    """As much of a fabric as a loop needs; the backward pass, for which fake tensors have no thread, gives zeros."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        strategy = SimpleNamespace(precision=precision_plugin("32-true", "cuda"))
        super().__init__(device=CUDA, strategy=strategy, global_rank=0, world_size=1, parameters=parameters)

    def no_backward_sync(self, model, enabled):
        return nullcontext()

    def backward(self, loss):
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)


class Log:
    """Notes the waits at each log point."""

    def __init__(self, waits):
        self.waits, self.at, self.names = waits, {}, 0

    def log(self, step, values):
        self.at[step] = sum(self.waits.seen.values())
        self.names = sum(name.startswith(("loss", "grad")) for name in values)

    def save(self, step):
        pass

    evaluate = save

    def stop_requested(self):
        return False

    def pauses(self, step):
        return False

    halt = pauses


@pytest.mark.parametrize(
    ("adapter", "decoder", "each"),
    [("recyclelora", "linear", 1), ("adalora", "linear", 1), ("recyclelora", "mask2former", 3)],
)
def test_a_step_waits_once_and_twice_more_where_queries_are_matched(adapter: str, decoder: str, each: int) -> None:
    """Once to see that the gradients are finite, so that a step that is not changes nothing; never to log."""
    real, steps, every = model(adapter, decoder), 4, 2
    with fake_cuda() as (mode, waits):
        fake = on_cuda(real, mode).train()
        trained = {name: p for name, p in fake.named_parameters() if p.requires_grad}
        rules = {name: ParameterRule(1.0, None, "all") for name in trained}
        optimizer = adamw(
            parameter_groups(trained.items(), rules, lr=1e-3, weight_decay=0.0), betas=(0.9, 0.99), eps=1e-8, fused=True
        )
        batches = [batch() for _ in range(steps)]
        fake(*(part.to(CUDA) for part in batch()))  # positions are compared with the pretrained ones once for each size
        waits.seen.clear()
        log = Log(waits)
        loop.fit(
            FakeFabric(list(trained.values())), fake, optimizer, Schedule(steps), batches,
            loop.Cadence(steps, every, 100, 100), log, seed=0, grad_clip=1.0, before_step=fake.begin_step,
        )  # fmt: skip
    # and once for each name at a log point, however many steps it stands for
    assert log.at == {2: every * each + log.names, 4: 2 * (every * each + log.names)}, waits.seen
