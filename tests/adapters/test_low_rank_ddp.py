"""Two processes that see half a batch each take the step of one process that sees all of it."""

import pytest
import torch
from low_rank import inject, low_rank
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import in_two_processes

from recyclelora.adapters.low_rank.config import BranchConfig

from .models import tiny_vit

SPEC = low_rank(BranchConfig("rrqr_minor", 4), BranchConfig("rrqr_major", 2, train_a=False), train_bias=True)
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Features(nn.Module):
    """The features' mean square as a loss: DDP wraps a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.model = tiny_vit()
        inject(self.model, SPEC)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model.forward_features(images).exp().mean()


def gradients(module: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    module(images).backward()
    found = {name.removeprefix("module."): parameter.grad for name, parameter in module.named_parameters()}
    return {name: grad for name, grad in found.items() if grad is not None}


def train(rank: int, directory: str) -> None:
    module = DistributedDataParallel(Features())
    torch.save(gradients(module, IMAGES[2 * rank : 2 * rank + 2]), f"{directory}/{rank}.pt")


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path):
    in_two_processes(tmp_path, train, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    expected = gradients(Features(), IMAGES)
    assert set(first) == set(second) == set(expected) and len(expected) == 8 * 4
    for name, grad in expected.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], grad, atol=1e-6, rtol=1e-4)
