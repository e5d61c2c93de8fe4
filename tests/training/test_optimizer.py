from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from recyclelora.system.parameter_rule import ParameterRule
from recyclelora.training.optimizer import (
    adamw,
    load_optimizer_state,
    optimizer_state,
    parameter_groups,
)
from recyclelora.training.schedule import Schedule


def test_poly_by_hand():
    schedule = Schedule(max_steps=40_000, power=0.9)
    assert schedule.lr_factor(0) == 1.0
    assert schedule.lr_factor(20_000) == pytest.approx(0.5**0.9)
    assert schedule.lr_factor(40_000) == 0.0


def test_warm_up_is_linear_and_poly_starts_behind_it():
    schedule = Schedule(max_steps=110, warmup_steps=10, warmup_ratio=0.1)
    assert [schedule.lr_factor(t) for t in (0, 5, 10)] == pytest.approx([0.1, 0.55, 1.0])
    assert schedule.lr_factor(60) == pytest.approx(0.5**0.9)


def test_schedules_and_warm_ups_by_hand():
    cosine = Schedule(max_steps=100, decay="cosine", lr_end=0.1)
    assert [cosine.lr_factor(t) for t in (0, 50, 100)] == pytest.approx([1.0, 0.55, 0.1])
    constant = Schedule(max_steps=110, decay="constant", warmup="constant", warmup_steps=10, warmup_ratio=0.25)
    assert [constant.lr_factor(t) for t in (0, 9, 10, 109)] == [0.25, 0.25, 1.0, 1.0]
    exponential = Schedule(max_steps=110, warmup="exponential", warmup_steps=10, warmup_ratio=0.01)
    assert [exponential.lr_factor(t) for t in (0, 5, 10)] == pytest.approx([0.01, 0.1, 1.0])
    assert Schedule(max_steps=100, lr_end=0.5).lr_factor(50) == pytest.approx(0.5 + 0.5 * 0.5**0.9)


def test_weight_decay_follows_half_a_cosine_and_zero_stays_zero():
    schedule = Schedule(max_steps=100, weight_decay_end=1e-5)
    assert schedule.weight_decay(0.05, 0) == pytest.approx(0.05)
    assert schedule.weight_decay(0.05, 50) == pytest.approx((0.05 + 1e-5) / 2)
    assert schedule.weight_decay(0.05, 100) == pytest.approx(1e-5)
    assert schedule.weight_decay(0.05, 25) == pytest.approx(1e-5 + (0.05 - 1e-5) * (1 + math.cos(math.pi / 4)) / 2)
    assert schedule.weight_decay(0.0, 50) == 0.0
    assert Schedule(max_steps=100).weight_decay(0.05, 50) == 0.05


def model_and_rules():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    norm, head = ParameterRule(1.0, 0.0, "norm"), ParameterRule(0.5, None, "head")
    return model, {"1.weight": norm, "1.bias": norm, "2.weight": head, "2.bias": head}


def test_every_trainable_parameter_is_in_one_group():
    model, rules = model_and_rules()
    groups = parameter_groups(model.named_parameters(), rules, lr=0.1, weight_decay=0.05)
    assert [(g["name"], g["names"], g["lr"], g["weight_decay"]) for g in groups] == [
        ("norm", ["1.weight", "1.bias"], 0.1, 0.0),
        ("head", ["2.weight", "2.bias"], 0.05, 0.05),
    ]


def test_a_parameter_without_rule_or_a_rule_without_parameter_is_an_error():
    model, rules = model_and_rules()
    del rules["2.bias"]
    with pytest.raises(ValueError, match=r"2\.bias"):
        parameter_groups(model.named_parameters(), rules, lr=0.1, weight_decay=0.05)
    model, rules = model_and_rules()
    rules["0.weight"] = ParameterRule(1.0, 0.0, "norm")
    with pytest.raises(ValueError, match=r"0\.weight"):
        parameter_groups(model.named_parameters(), rules, lr=0.1, weight_decay=0.05)
    model, rules = model_and_rules()
    rules["2.bias"] = ParameterRule(0.7, None, "head")
    with pytest.raises(ValueError, match="disagrees"):
        parameter_groups(model.named_parameters(), rules, lr=0.1, weight_decay=0.05)


def step(model, optimizer, seed):
    torch.manual_seed(seed)
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_the_state_before_the_first_step_is_empty_and_goes_back():
    optimizers = []
    for _ in range(2):
        model, rules = model_and_rules()
        groups = parameter_groups(model.named_parameters(), rules, lr=0.1, weight_decay=0.05)
        optimizers.append((model, adamw(groups, betas=(0.9, 0.999), eps=1e-8)))
    (_, first), (model, second) = optimizers
    assert optimizer_state(first) == {}  # in float16 every step so far may have overflowed
    load_optimizer_state(second, {})
    step(model, second, 1)
    assert optimizer_state(second)


def test_schedule_sets_every_group_and_optimizer_state_round_trips():
    torch.manual_seed(0)
    model, rules = model_and_rules()
    optimizer = adamw(
        parameter_groups(model.named_parameters(), rules, lr=0.1, weight_decay=0.05), betas=(0.9, 0.999), eps=1e-8
    )
    Schedule(max_steps=10, weight_decay_end=0.0).apply(optimizer, 5)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.1 * 0.5**0.9, 0.05 * 0.5**0.9])
    assert [g["weight_decay"] for g in optimizer.param_groups] == pytest.approx([0.0, 0.025])
    step(model, optimizer, 1)
    stored = optimizer_state(optimizer)
    assert set(stored) == {f"{n}.{k}" for n in rules for k in ("step", "exp_avg", "exp_avg_sq")}

    twin, _ = model_and_rules()
    twin.load_state_dict(model.state_dict())
    other = adamw(
        parameter_groups(twin.named_parameters(), rules, lr=0.1, weight_decay=0.05), betas=(0.9, 0.999), eps=1e-8
    )
    load_optimizer_state(other, stored)
    Schedule(max_steps=10, weight_decay_end=0.0).apply(other, 5)
    step(model, optimizer, 2)
    step(twin, other, 2)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("fused", [False, True])
def test_steps_are_those_of_torchs_own_loop(fused: bool):
    """One operation for all parameters rounds as one for each; the fused kernel does nearly, and resumes, too."""
    models = []
    for make in (lambda groups: torch.optim.AdamW(groups, eps=1e-8, foreach=False, fused=False), None):
        torch.manual_seed(0)
        model, rules = model_and_rules()
        groups = parameter_groups(model.named_parameters(), rules, lr=0.1, weight_decay=0.05)
        optimizer = make(groups) if make else adamw(groups, betas=(0.9, 0.999), eps=1e-8, fused=fused)
        step(model, optimizer, 1)
        load_optimizer_state(optimizer, optimizer_state(optimizer))
        step(model, optimizer, 2)
        models.append(model)
    for expected, found in zip(*(m.parameters() for m in models), strict=True):
        assert torch.equal(found, expected) or (fused and torch.allclose(found, expected, rtol=1e-5, atol=1e-6))
