import hashlib

import numpy as np
import peft
import torch
from torch import nn

from recyclelora.adapters.config import VeraConfig
from recyclelora.adapters.method import AdapterContext
from recyclelora.adapters.state import merge
from recyclelora.adapters.vera import Projections, VeRA, VeRALinear

from .models import stored, tiny_vit

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def vera_layers(model: nn.Module) -> dict[str, VeRALinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, VeRALinear)}


def test_forward_gradients_and_merged_weights_are_pefts_at_the_same_projections():
    ours = tiny_vit().eval()
    VeRA(VeraConfig(rank=8)).apply(ours, AdapterContext())
    config = peft.VeraConfig(r=8, target_modules=r"blocks.*\.(qkv|proj|fc1|fc2)", projection_prng_key=0)
    theirs = peft.get_peft_model(tiny_vit(), config).base_model.model.eval()
    generator = torch.Generator().manual_seed(1)
    for name, layer in vera_layers(ours).items():
        other = theirs.get_submodule(name)
        assert other.vera_A["default"].shape == layer.projections.a.shape
        other.vera_A["default"], other.vera_B["default"] = layer.projections.a, layer.projections.b
        assert torch.equal(other.vera_lambda_d["default"], layer.vera_d)
        assert torch.equal(other.vera_lambda_b["default"], layer.vera_b)
        layer.vera_b.data.normal_(generator=generator)
        layer.vera_d.data.normal_(generator=generator)
        other.vera_lambda_b["default"].data.copy_(layer.vera_b)
        other.vera_lambda_d["default"].data.copy_(layer.vera_d)
    outputs = [model.forward_features(IMAGES) for model in (ours, theirs)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    for output in outputs:
        output.square().mean().backward()
    for name, layer in vera_layers(ours).items():
        other = theirs.get_submodule(name)
        torch.testing.assert_close(layer.vera_b.grad, other.vera_lambda_b["default"].grad, atol=1e-7, rtol=1e-4)
        torch.testing.assert_close(layer.vera_d.grad, other.vera_lambda_d["default"].grad, atol=1e-7, rtol=1e-4)
    merged = merge(ours)
    for name in vera_layers(ours):
        other = theirs.get_submodule(name)
        other.merge()
        torch.testing.assert_close(merged.get_submodule(name).weight, other.base_layer.weight, atol=2e-6, rtol=1e-5)


def test_the_pair_comes_back_bit_for_bit_from_its_seed_and_is_in_no_state():
    linears = [nn.Linear(4, 6), nn.Linear(8, 2)]
    pair = Projections(3, linears, seed=5)
    assert pair.a.shape == (3, 8) and pair.b.shape == (6, 3)
    assert not pair.state_dict()
    draws = iter(np.random.PCG64(5).random_raw(3 * 8 + 6 * 3).tolist())
    for factor, bound in ((pair.a, (6 / 8) ** 0.5), (pair.b, (6 / 3) ** 0.5)):
        # the upper 24 of the 64 bits, row by row, as a number from -bound up to bound
        by_hand = [[bound * ((next(draws) // 2**40) / 2**23 - 1) for _ in row] for row in factor]
        np.testing.assert_array_equal(factor.numpy(), np.array(by_hand, np.float32))
    digest = hashlib.sha256(pair.a.numpy().tobytes() + pair.b.numpy().tobytes()).hexdigest()
    assert digest.startswith(
        "ff9ae52961576e97"
    )  # NumPy's PCG64 stream is fixed; another value would make every stored VeRA run wrong
    assert not torch.equal(Projections(3, linears, seed=6).a, pair.a)
    model = tiny_vit()
    VeRA(VeraConfig(rank=8)).apply(model, AdapterContext(seed=1))
    again = tiny_vit()
    VeRA(VeraConfig(rank=8)).apply(again, AdapterContext(seed=2))
    first, second = (next(iter(vera_layers(m).values())).projections for m in (model, again))
    assert torch.equal(first.a, second.a)  # the run's seed is another thing
    assert sum(t.numel() for t in stored(model).values()) == 2 * (4 * 8 + 192 + 64 + 256 + 64)


def test_the_pair_is_uniform_within_its_bounds():
    pair = Projections(64, [nn.Linear(512, 512)], seed=0)
    for factor, bound in ((pair.a, (6 / 512) ** 0.5), (pair.b, (6 / 64) ** 0.5)):
        assert -bound <= factor.min() < -0.999 * bound and 0.999 * bound < factor.max() <= bound
        assert abs(factor.mean()) < 0.02 * bound and abs(factor.std() / bound - 3**-0.5) < 0.01


def test_all_layers_share_one_pair_also_in_a_copy():
    import copy

    model = tiny_vit()
    VeRA(VeraConfig(rank=8)).apply(model, AdapterContext())
    for one in (model, copy.deepcopy(model).to(torch.float32)):
        assert len({id(layer.projections) for layer in vera_layers(one).values()}) == 1
