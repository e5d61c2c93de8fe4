"""Every kind of adapter through a whole run: training, stopping and resuming, files, loading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file

import recyclelora
from recyclelora.adapters.config import ReinConfig
from recyclelora.adapters.method import AdapterContext
from recyclelora.adapters.tokens.rein import Rein
from recyclelora.config.compose import ConfigError
from recyclelora.models.backbones.timm import create_backbone
from recyclelora.models.decoders.config import LinearDecoderConfig
from recyclelora.models.decoders.linear import LinearDecoder
from recyclelora.models.segmenter import Segmenter
from recyclelora.models.state import load_trainable_state, trainable_state
from recyclelora.runs.checkpoint import load_checkpoint
from recyclelora.runs.weights import Weights
from recyclelora.system.errors import Interrupted, UserError
from recyclelora.training.init_from import WarmStart
from recyclelora.training.run import Run
from recyclelora.training.trainer import Trainer

from .test_run import execute, stop_after, without_time

PLAIN = [o for o in TINY if not o.startswith("adapter.")] + ["optimizer.lr=1e-2"]
METHODS = {
    "soma": ["adapter.main.rank=4", "adapter.blocks='2:'"],
    "lora": ["adapter.main.rank=4"],
    "dora": ["adapter.rank=4"],
    "vera": ["adapter.rank=8"],
    "adalora": ["adapter.init_rank=4", "adapter.target_rank=2"],
    "rein": ["adapter.num_tokens=10"],
}
IMAGES = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", METHODS)
def test_the_adapter_file_brings_the_trained_model_back(make_config, gta2city, monkeypatch, name):
    config = make_config(*PLAIN, f"adapter={name}", *METHODS[name])
    trained, hold = {}, Trainer.hold_kept_weights

    def watched(self):
        hold(self)
        states = [trainable_state(self.segmenter.train(mode)) for mode in (True, False)]
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
        trained["numbers"] = sum(t.numel() for t in states[0].values())
        trained["logits"] = self.segmenter(IMAGES)

    monkeypatch.setattr(Trainer, "hold_kept_weights", watched)
    path = execute(config)
    assert torch.equal(recyclelora.load(path).segmenter(IMAGES), trained["logits"])
    tensors = load_file(path / "adapter.safetensors")
    stored = {kind: [k for k in tensors if k.startswith(kind)] for kind in ("trained/", "initial/")}
    assert len(stored["trained/"]) + len(stored["initial/"]) == len(tensors)
    assert sum(tensors[k].numel() for k in stored["trained/"]) == trained["numbers"]
    parts = {k.rpartition(".")[2] for k in stored["initial/"]}
    assert parts == ({"lora_a", "lora_b"} if name == "soma" else set())
    (path / "adapter.safetensors").unlink()  # then it comes from the last checkpoint
    assert torch.equal(recyclelora.load(path).segmenter(IMAGES), trained["logits"])


def stopped_and_resumed(make_config, tmp_path, monkeypatch, options: list[str], steps: tuple[int, ...]) -> Path:
    """Run to the end, and with a stop after each of ``steps`` in turn; every end must be the same to the last bit."""
    options = [*PLAIN, *options, "trainer.max_steps=8", "trainer.eval_every=8"]
    whole = execute(make_config(*options, f"output_dir={tmp_path / 'whole'}"))
    parted = make_config(*options, f"output_dir={tmp_path / 'parted'}")
    for step in steps:
        with monkeypatch.context() as patch:
            stop_after(patch, step)
            with pytest.raises(Interrupted):
                Run.identify(parted, None).execute()
    path = execute(parted)
    assert without_time(path) == without_time(whole)
    for file in ("adapter.safetensors", "checkpoints/step_000008/optimizer.safetensors"):
        assert (path / file).read_bytes() == (whole / file).read_bytes()
    return path


def test_rein_goes_on_as_if_it_had_not_stopped(make_config, gta2city, tmp_path, monkeypatch):
    stopped_and_resumed(make_config, tmp_path, monkeypatch, ["adapter=rein", *METHODS["rein"]], (3,))


@pytest.mark.slow
def test_eomt_goes_on_as_if_it_had_not_stopped(make_config, gta2city, tmp_path, monkeypatch):
    """Also between steps in which some queries are masked and some are not, with recomputed blocks and an average."""
    decoder = ["decoder=eomt", "decoder.num_blocks=2", "decoder.num_queries=20", "decoder.loss.num_points=64"]
    options = ["adapter=recyclelora", "adapter.main.rank=4", "adapter.sub.rank=2", *decoder]
    options += ["trainer.checkpointing=true", "trainer.ema=0.2"]
    path = stopped_and_resumed(make_config, tmp_path, monkeypatch, options, (3,))
    segmenter = recyclelora.load(path).segmenter
    assert torch.equal(recyclelora.load(path).segmenter(IMAGES), segmenter(IMAGES))
    assert not [name for name in trainable_state(segmenter) if name.endswith("model.norm.weight")]


def test_adalora_goes_on_as_if_it_had_not_stopped(make_config, gta2city, tmp_path, monkeypatch):
    schedule = ["adapter.t_init=1", "adapter.t_final=2", "adapter.delta_t=2"]
    # with averaged weights, which are the ones that are kept: they have the budget, too
    options = ["adapter=adalora", *METHODS["adalora"], *schedule, "trainer.ema=0.2"]
    # while ranks are shared out, and after the last time
    path = stopped_and_resumed(make_config, tmp_path, monkeypatch, options, (3, 7))
    tensors = load_file(path / "adapter.safetensors")
    values = [tensor for name, tensor in tensors.items() if name.endswith(".lora_e")]
    assert len(values) == 16 and sum(int(v.count_nonzero()) for v in values) == 16 * 2
    assert not [name for name in tensors if "sensitivity" in name or "kept" in name]
    early, late = (load_checkpoint(path / "checkpoints" / f"step_{n:06d}").tensors["adapter"] for n in (3, 7))
    assert {name.partition(".")[0] for name in early} == {"sensitivity", "uncertainty"}
    assert {name.partition(".")[0] for name in late} == {"kept"}
    points = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert all(p["loss_adapter"] > 0 for p in points if "loss_ce" in p)


def test_a_link_is_refused_where_the_decoder_has_no_queries(make_config, gta2city):
    with pytest.raises(ConfigError, match=r"adapter\.link=True: needs a decoder with queries, which linear has not"):
        make_config(*PLAIN, "decoder=linear", "adapter=rein", "adapter.link=true")
    config = make_config(*PLAIN, "decoder=linear", "adapter=rein")
    config.adapter.link = True
    with pytest.raises(UserError, match=r"link=true: the decoder has no queries .*; use adapter.link=false"):
        Run.identify(config, None).execute()


def test_vera_does_not_start_from_vectors_of_other_projections(make_config):
    first, again = (make_config(*PLAIN, "adapter=vera", f"adapter.projection_seed={seed}") for seed in (0, 1))
    start = WarmStart(Path("first"), Weights({}, {}, 0), first, None, "")
    start.check(first, None)
    with pytest.raises(UserError, match="projection_seed is 0 there and 1 here"):
        start.check(again, None)


class QueryDecoder(LinearDecoder):
    """A decoder that takes queries."""

    def forward(self, features, size, query=None):
        assert query is not None and query.shape == (10, 16)
        return super().forward(features, size) + query.mean()

    def losses(self, features, labels, ignore_index, query=None, norm=None):
        return {"loss": self(features, (labels.shape[-2], labels.shape[-1]), query).square().mean()}


def test_queries_reach_the_decoder_and_learn():
    backbone = create_backbone(
        "vit_tiny_patch16_224", patch_size=16, image_size=(64, 64), levels=None, weights=None,
        model_args={"embed_dim": 32, "depth": 4, "num_heads": 2},
    )  # fmt: skip
    adapted = Rein(ReinConfig(num_tokens=10, token_rank=4, query_width=16)).apply(
        backbone.model, AdapterContext(has_queries=True)
    )
    segmenter = Segmenter(
        backbone,
        QueryDecoder([32] * 4, 19, LinearDecoderConfig()),
        mean=[0.5] * 3,
        std=[0.2] * 3,
        ignore_index=255,
        query=adapted.query,
    )
    segmenter(IMAGES, torch.zeros(2, 64, 96, dtype=torch.long))["loss"].backward()
    assert all(backbone.model.get_parameter(name).grad is not None for name in adapted.rules)
    assert segmenter(IMAGES).shape == (2, 19, 64, 96)


def test_buffers_that_an_adapter_adds_are_stored_and_those_of_the_backbone_are_not():
    backbone = create_backbone(
        "vit_tiny_patch16_224", patch_size=16, image_size=(64, 64), levels=None, weights=None,
        model_args={"embed_dim": 32, "depth": 4, "num_heads": 2},
    )  # fmt: skip
    backbone.own_buffers = frozenset({"model.pretrained"})  # as if the transformer had come with one
    backbone.model.register_buffer("pretrained", torch.ones(1))
    backbone.model.register_buffer("added", torch.ones(1))
    backbone.model.register_buffer("passing", torch.ones(1), persistent=False)
    backbone.requires_grad_(False)
    segmenter = Segmenter(backbone, torch.nn.BatchNorm2d(3), mean=[0.5] * 3, std=[0.2] * 3, ignore_index=255)
    state = {name: tensor.clone() for name, tensor in trainable_state(segmenter).items()}
    norm = {f"decoder.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    assert state.keys() == {"backbone.model.added"} | norm
    backbone.model.added.zero_()
    load_trainable_state(segmenter, state)
    assert backbone.model.added == 1
