import peft
import torch
from torch import nn

from recyclelora.adapters.config import DoraConfig
from recyclelora.adapters.dora import DoRA, DoRALinear
from recyclelora.adapters.low_rank.factors import Factors
from recyclelora.adapters.method import AdapterContext
from recyclelora.adapters.state import merge

from .models import tiny_vit

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def scattered(model: nn.Module) -> None:
    """Give every trainable parameter a value far from its start."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)


def test_forward_gradients_and_merged_weights_are_pefts_at_the_same_factors():
    ours = tiny_vit().eval()
    DoRA(DoraConfig(rank=4, alpha=6.0)).apply(ours, AdapterContext())
    scattered(ours)
    config = peft.LoraConfig(r=4, lora_alpha=6, use_dora=True, target_modules=r"blocks.*\.(qkv|proj|fc1|fc2)")
    theirs = peft.get_peft_model(tiny_vit(), config).base_model.model.eval()
    pairs = {}
    for name, layer in ours.named_modules():
        if isinstance(layer, DoRALinear):
            other = theirs.get_submodule(name)
            pairs |= {
                f"{name}.lora_a": (layer.lora_a, other.lora_A["default"].weight),
                f"{name}.lora_b": (layer.lora_b, other.lora_B["default"].weight),
                f"{name}.magnitude": (layer.magnitude, other.lora_magnitude_vector["default"].weight),
            }
    for mine, its in pairs.values():
        its.data.copy_(mine)
    outputs = [model.forward_features(IMAGES) for model in (ours, theirs)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    for output in outputs:
        output.square().mean().backward()
    assert len(pairs) == 2 * 4 * 3
    for name, (mine, its) in pairs.items():
        torch.testing.assert_close(mine.grad, its.grad, atol=1e-7, rtol=1e-4, msg=lambda text, name=name: name + text)
    merged = merge(ours)
    for name in {name.rpartition(".")[0] for name in pairs}:
        other = theirs.get_submodule(name)
        other.merge()
        torch.testing.assert_close(merged.get_submodule(name).weight, other.base_layer.weight, atol=2e-6, rtol=1e-5)


def layer(weight: torch.Tensor, b: torch.Tensor, a: torch.Tensor, scale: float) -> DoRALinear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data.copy_(weight)
    return DoRALinear(linear, Factors(b=b, a=a), scale)


def test_a_row_by_hand():
    # W0 = [3 4], s B A = 2 * 1 * [0 4] = [0 8]: direction [3 12], norm sqrt 153; magnitude |W0| = 5
    made = layer(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0]]), torch.tensor([[0.0, 4.0]]), 2.0)
    torch.testing.assert_close(made.norms(), torch.tensor([153.0]).sqrt())
    expected = 5 / 153**0.5 * (3 * 1 + 12 * 10)
    torch.testing.assert_close(made(torch.tensor([[1.0, 10.0]])), torch.tensor([[expected]]))
    torch.testing.assert_close(made.merged_weight(), torch.tensor([[15.0, 60.0]]).double() / 153**0.5)


def test_norms_are_those_of_the_sum_and_carry_no_gradient():
    torch.manual_seed(0)
    weight, b, a = torch.randn(7, 5), torch.randn(7, 2), torch.randn(2, 5)
    made = layer(weight, b, a, 0.5)
    torch.testing.assert_close(made.norms(), (weight + 0.5 * b @ a).norm(dim=1))
    assert not made.norms().requires_grad


def test_untouched_rows_keep_a_factor_of_exactly_one_and_empty_rows_stay_finite():
    weight = torch.cat([torch.randn(3, 4), torch.zeros(1, 4)])
    made = layer(weight, torch.zeros(4, 2), torch.randn(2, 4), 1.0)
    assert torch.equal((made.magnitude / made.norms())[:3], torch.ones(3))
    output = made(torch.randn(5, 4))
    output.sum().backward()
    assert torch.isfinite(output).all() and not output[:, 3].any()
    assert torch.isfinite(made.merged_weight()).all()
