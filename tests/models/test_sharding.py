"""A model that two processes share: what each holds, and forwards that only one of them makes."""

from __future__ import annotations

import gc
import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from conftest import TINY, compose_config
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from two_processes import in_two_processes

from recyclelora.config.build import build_model
from recyclelora.evaluation.equal_forwards import EqualForwards
from recyclelora.models.segmenter import Segmenter
from recyclelora.models.sharding import send_buffers, shard
from recyclelora.models.state import load_trainable_state, trainable_state, whole_state

IMAGES = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, 19, (2, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def built(folder: str, *options: str) -> Segmenter:
    torch.manual_seed(0)
    return build_model(compose_config(Path(folder), *TINY, *options), None).segmenter


def bytes_in_use() -> int:
    """Of all tensors of this process, without the wrappers of those that are shared."""
    gc.collect()
    tensors = [found for found in gc.get_objects() if type(found) in (Tensor, nn.Parameter)]
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors if not tensor.is_meta}
    return sum(storage.nbytes() for storage in storages.values())


def share(rank: int, folder: str) -> None:
    mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
    segmenter = built(f"{folder}/{rank}")
    segmenter.decoder.register_buffer("running", torch.tensor(float(rank)))
    with torch.inference_mode():
        expected = segmenter.eval().logits(IMAGES)
    state = {name: value.clone() for name, value in trainable_state(segmenter).items()}
    state["decoder.running"].zero_()
    frozen = sum(p.nbytes for p in segmenter.parameters() if not p.requires_grad)
    found = {"all": sum(p.nbytes for p in segmenter.parameters()), "frozen": frozen, "before": bytes_in_use()}
    shard(segmenter, mesh)
    found["after"] = bytes_in_use()
    found["frozen_here"] = sum(p.to_local().nbytes for p in segmenter.parameters() if not p.requires_grad)
    equal = EqualForwards(segmenter, (16, 16), torch.device("cpu"), nullcontext)
    for _ in range(2):
        with equal.together(), torch.inference_mode():
            assert all(torch.equal(segmenter.logits(IMAGES), expected) for _ in range(3 * rank))
    found["evaluated"] = bytes_in_use()
    load_trainable_state(segmenter, state)
    kept = whole_state(trainable_state(segmenter))
    assert kept.keys() == (set() if rank else state.keys())
    assert all(torch.equal(value, state[name]) for name, value in kept.items())
    del kept
    sum(segmenter.train()(IMAGES, LABELS).values()).backward()
    assert all(p.grad.to_local().shape == p.to_local().shape for p in segmenter.parameters() if p.requires_grad)
    found["stepped"] = bytes_in_use() - sum(p.grad.to_local().nbytes for p in segmenter.parameters() if p.requires_grad)
    segmenter.decoder.running.fill_(rank)
    send_buffers(segmenter)
    assert segmenter.decoder.running == 0
    Path(f"{folder}/{rank}.json").write_text(json.dumps(found))


def test_each_of_two_processes_holds_half_of_the_weights_and_makes_forwards_of_its_own(tmp_path: Path):
    in_two_processes(tmp_path, share, str(tmp_path))
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["frozen_here"] == pytest.approx(found["frozen"] / 2, rel=0.01)
        for moment in ("after", "evaluated", "stepped"):
            assert found["before"] - found[moment] == pytest.approx(found["all"] / 2, rel=0.05), moment


def trained_positions(rank: int, folder: str) -> None:
    """A position embedding that learns, at another size than that of training, before and after it changed."""
    mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
    plain = [option for option in TINY if not option.startswith("adapter.")]
    config = compose_config(Path(f"{folder}/{rank}"), *plain, "adapter=full")
    torch.manual_seed(0)
    alone, shared = (build_model(config, None).segmenter.eval() for _ in range(2))
    load_trainable_state(shared, trainable_state(alone))
    shard(shared, mesh)
    for change in (0.0, 1.0):
        with torch.no_grad():
            for segmenter in (alone, shared):
                segmenter.backbone.model.pos_embed.add_(change)
        with torch.inference_mode():
            assert torch.equal(shared.logits(IMAGES), alone.logits(IMAGES))


@pytest.mark.slow
def test_a_shared_position_embedding_that_learns_is_never_an_old_one(tmp_path: Path):
    in_two_processes(tmp_path, trained_positions, str(tmp_path))
