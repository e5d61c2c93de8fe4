import types

import peft
import pytest
import torch
from torch import nn

from recyclelora.adapters.adalora import AdaLoRA, Orthogonality, TripletLinear
from recyclelora.adapters.config import AdaLoraConfig
from recyclelora.adapters.method import AdapterContext
from recyclelora.adapters.rank_budget import BudgetSchedule, RankAllocator
from recyclelora.adapters.state import merge

from .models import tiny_vit

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TARGETS = r"blocks.*\.(qkv|proj|fc1|fc2)"


def small(alpha: float = 4.0, **options: object) -> AdaLoRA:
    return AdaLoRA(AdaLoraConfig(init_rank=4, target_rank=2, alpha=alpha, **options))


def adalora_layers(model: nn.Module) -> dict[str, TripletLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, TripletLinear)}


def with_peft(total: int, t_init: int, t_final: int, delta_t: int):
    """The same tiny model adapted by us and by PEFT, with the same factors."""
    ours = tiny_vit().eval()
    adapted = AdaLoRA(
        AdaLoraConfig(init_rank=4, target_rank=2, alpha=6.0, t_init=t_init, t_final=t_final, delta_t=delta_t)
    ).apply(ours, AdapterContext(max_steps=total))
    config = peft.AdaLoraConfig(
        init_r=4, target_r=2, lora_alpha=6, tinit=t_init, tfinal=t_final, deltaT=delta_t, total_step=total,
        target_modules=TARGETS,
    )  # fmt: skip
    tuner = peft.get_peft_model(tiny_vit(), config).base_model
    theirs = tuner.model.eval()
    generator = torch.Generator().manual_seed(1)
    for name, layer in adalora_layers(ours).items():
        other = theirs.get_submodule(name)
        layer.lora_e.data.normal_(generator=generator)
        other.lora_A["default"].data.copy_(layer.lora_a)
        other.lora_B["default"].data.copy_(layer.lora_b)
        other.lora_E["default"].data.copy_(layer.lora_e[:, None])
    return ours, adapted, theirs, tuner


def test_forward_gradients_and_merged_weights_are_pefts_at_the_same_factors():
    ours, _, theirs, _ = with_peft(20, 2, 5, 3)
    outputs = [model.forward_features(IMAGES) for model in (ours, theirs)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)  # PEFT divides by rank + 1e-5
    for output in outputs:
        output.square().mean().backward()
    for name, layer in adalora_layers(ours).items():
        other = theirs.get_submodule(name)
        for mine, its in (
            (layer.lora_a, other.lora_A["default"]),
            (layer.lora_b, other.lora_B["default"]),
            (layer.lora_e, other.lora_E["default"]),
        ):
            torch.testing.assert_close(mine.grad, its.grad.view_as(mine), atol=1e-7, rtol=1e-4)
    merged = merge(ours)
    for name in adalora_layers(ours):
        other = theirs.get_submodule(name)
        other.merge()
        torch.testing.assert_close(merged.get_submodule(name).weight, other.base_layer.weight, atol=1e-5, rtol=1e-4)


def test_a_whole_schedule_of_share_outs_keeps_what_peft_keeps():
    ours, adapted, theirs, tuner = with_peft(20, 2, 5, 3)
    models = (ours, theirs)
    optimizers = [torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=0.5) for m in models]
    used = []
    for step in range(1, 21):
        images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(step))
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            model.forward_features(images).exp().mean().backward()
            optimizer.step()
        adapted.after_step(step)
        tuner.update_and_allocate(step)
        for name, layer in adalora_layers(ours).items():
            their_values = theirs.get_submodule(name).lora_E["default"].view(-1)
            assert torch.equal(layer.lora_e == 0, their_values == 0), (step, name)
        used.append(sum(int(layer.lora_e.count_nonzero()) for layer in adalora_layers(ours).values()))
    assert used[:2] == [32, 32] and used[14:] == [16] * 6  # 8 layers of 4 triplets, 2 on average at the end
    schedule = adapted.training_state.schedule
    assert used[5] == schedule.budget(6) < 32  # the first share-out


@pytest.mark.parametrize(
    ("step", "budget", "due"),
    [
        (1, 40, False),
        (10, 40, False),
        (15, 20 + int(20 * 0.9**3), True),  # a tenth of the way from 10 to 60
        (16, 20 + int(20 * 0.88**3), False),
        (35, 22, True),  # 20 + 20 / 8 = 22.5
        (60, 20, True),
        (61, 20, False),
        (100, 20, False),
    ],
)
def test_the_budget_falls_by_a_cubic_between_warm_up_and_the_end(step, budget, due):
    schedule = BudgetSchedule(40, 20, 100, t_init=10, t_final=40, delta_t=5)
    assert (schedule.budget(step), schedule.due(step)) == (budget, due)


def test_the_schedule_follows_the_length_of_the_run_unless_it_is_set():
    def schedule(method: AdaLoRA, max_steps: int) -> BudgetSchedule:
        return method.apply(tiny_vit(), AdapterContext(max_steps=max_steps)).training_state.schedule

    assert schedule(small(), 40_000) == BudgetSchedule(32, 16, 40_000, 4_000, 20_000, 100)
    assert schedule(small(), 1) == BudgetSchedule(32, 16, 1, 0, 0, 1)
    assert schedule(small(t_init=5, t_final=7, delta_t=2), 20) == BudgetSchedule(32, 16, 20, 5, 7, 2)
    model = tiny_vit()
    with pytest.raises(ValueError, match=r"t_init=15 and t_final=5: together they must be fewer than the 20 steps"):
        small(t_init=15, t_final=5).apply(model, AdapterContext(max_steps=20))
    assert all(p.requires_grad for p in model.parameters())


def triplets(values: list[float]) -> types.SimpleNamespace:
    rank = len(values)
    return types.SimpleNamespace(
        lora_a=nn.Parameter(torch.ones(rank, 3)),
        lora_e=nn.Parameter(torch.tensor(values)),
        lora_b=nn.Parameter(torch.ones(5, rank)),
    )


def test_importance_by_hand():
    layer = triplets([2.0, 1.0])
    allocator = RankAllocator({"x": layer}, BudgetSchedule(2, 1, 10, 0, 5, 1), beta1=0.5, beta2=0.5)
    layer.lora_e.grad = torch.tensor([3.0, -1.0])
    layer.lora_a.grad = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    layer.lora_b.grad = torch.zeros(5, 2)
    allocator._watch()
    # |w g| = 6 and 1; mean 3 and 0.5; deviation 3 and 0.5, averaged 1.5 and 0.25; rows: |w g| = 1, 2, 3, a quarter of
    # whose squares is 1/8, 1/2 and 9/8 -> mean 7/12
    torch.testing.assert_close(allocator.importance("x"), torch.tensor([3 * 1.5 + 7 / 12, 0.5 * 0.25]))
    kept = allocator.share_out(1)
    assert kept["x"].tolist() == [True, False] and layer.lora_e.tolist() == [2.0, 0.0]


def test_among_equals_the_budget_is_still_exact():
    layers = {"x": triplets([1.0, 1.0, 1.0]), "y": triplets([1.0, 1.0, 1.0])}
    allocator = RankAllocator(layers, BudgetSchedule(6, 4, 10, 0, 5, 1))
    kept = allocator.share_out(4)
    assert [mask.tolist() for mask in kept.values()] == [[True, True, True], [True, False, False]]


def test_what_is_switched_off_at_the_end_stays_off():
    layer = triplets([1.0, 2.0])
    allocator = RankAllocator({"x": layer}, BudgetSchedule(2, 1, 4, 0, 3, 1))
    layer.lora_e.grad, layer.lora_a.grad, layer.lora_b.grad = torch.ones(2), torch.ones(2, 3), torch.ones(5, 2)
    allocator.after_step(1)
    (off,) = (layer.lora_e == 0).nonzero().view(-1).tolist()
    layer.lora_e.data[off] = 7.0
    allocator.after_step(2)
    assert layer.lora_e[off] == 0
    assert set(allocator.state_dict()) == {"kept.x"}  # nothing to average any more


def test_the_state_brings_back_the_averages():
    def one(steps: range, state: dict | None) -> tuple[RankAllocator, list[float]]:
        allocator = RankAllocator({"x": layer}, BudgetSchedule(2, 1, 9, 1, 2, 2))
        if state is not None:
            allocator.load_state_dict(state)
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            for parameter in (layer.lora_e, layer.lora_a, layer.lora_b):
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            allocator.after_step(step)
            layer.lora_e.data += 0.1
        return allocator, layer.lora_e.tolist()

    layer = triplets([1.0, 2.0])
    whole, values = one(range(1, 9), None)
    layer = triplets([1.0, 2.0])
    first, _ = one(range(1, 4), None)
    stored = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    assert len(stored) == 2 * 3
    second, again = one(range(4, 9), stored)
    assert again == values and torch.equal(second.kept["x"], whole.kept["x"])


def test_the_penalty_by_hand():
    layer = TripletLinear(nn.Linear(2, 2), p=2 * torch.eye(2), values=torch.zeros(2), q=torch.eye(2), scale=1.0)
    penalty = Orthogonality((layer,), gamma=0.5).penalty()
    torch.testing.assert_close(penalty, torch.tensor(0.5 * (0 + 18**0.5) / 2))  # |4 I - I| = 3 sqrt 2
    penalty.backward()
    assert torch.isfinite(layer.lora_a.grad).all() and layer.lora_b.grad.any()
    assert small(orthogonality=0).apply(tiny_vit(), AdapterContext()).penalty is None


def test_other_values_of_the_triplets_keep_the_budget_of_the_last_share_out_and_no_other():
    """Such as a running mean, in which what was switched off late would only fade."""
    _, adapted, *_ = with_peft(20, 2, 5, 3)
    allocator = adapted.training_state
    other = {f"{name}.lora_e": torch.ones(4) for name in allocator.layers}
    adapted.constrain(other)
    assert all(value.all() for value in other.values())  # before the last share-out nothing is off for good
    for layer in allocator.layers.values():
        for parameter in (layer.lora_a, layer.lora_e, layer.lora_b):
            parameter.grad = torch.ones_like(parameter)
    for step in range(1, 16):
        adapted.after_step(step)
    adapted.constrain(other)
    assert sum(int(value.count_nonzero()) for value in other.values()) == 2 * len(allocator.layers)
    for name, kept in allocator.kept.items():
        assert torch.equal(other[f"{name}.lora_e"] != 0, kept)
