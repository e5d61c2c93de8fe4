"""Parameter groups by rule, and AdamW over them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.table import Table
from torch import Tensor, nn

from recyclelora.config.training import OptimizerConfig
from recyclelora.system.distributed import placed
from recyclelora.system.parameter_rule import ParameterRule


def build_optimizer(
    segmenter: nn.Module, rules: dict[str, ParameterRule], options: OptimizerConfig, fabric: Fabric
) -> torch.optim.AdamW:
    """AdamW over the groups of the rules, in one kernel on CUDA."""
    groups = parameter_groups(segmenter.named_parameters(), rules, lr=options.lr, weight_decay=options.weight_decay)
    # a gradient scaler, float16's, unscales gradients before the norm is taken: a fused step would do so again
    fused = fabric.device.type == "cuda" and getattr(fabric.strategy.precision, "scaler", None) is None
    return adamw(groups, betas=(options.betas[0], options.betas[1]), eps=options.eps, fused=fused)


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], rules: dict[str, ParameterRule], *, lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Put every trainable parameter into the one group of its rule.

    Args:
        parameters: names and parameters; frozen ones are left out
        rules: parameter name -> rule
        lr: base learning rate
        weight_decay: of groups whose rule names none

    Raises:
        ValueError: a trainable parameter without a rule, a rule without its trainable parameter, or two rules of
            one group that disagree.
    """
    trainable = {name: parameter for name, parameter in parameters if parameter.requires_grad}
    if trainable.keys() != rules.keys():
        without = sorted(trainable.keys() - rules.keys())[:3]
        dangling = sorted(rules.keys() - trainable.keys())[:3]
        raise ValueError(f"trainable parameters without a rule: {without}; rules without a parameter: {dangling}")
    groups: dict[str, dict[str, Any]] = {}
    first: dict[str, ParameterRule] = {}
    for name, parameter in trainable.items():
        rule = rules[name]
        if first.setdefault(rule.group, rule) != rule:
            raise ValueError(f"{name}: {rule} disagrees with {first[rule.group]}")
        group = groups.setdefault(rule.group, _new_group(rule, lr, weight_decay))
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def _new_group(rule: ParameterRule, lr: float, weight_decay: float) -> dict[str, Any]:
    decay = weight_decay if rule.weight_decay is None else rule.weight_decay
    base_lr = lr * rule.lr_mult
    return {
        "name": rule.group, "names": [], "params": [],
        "lr": base_lr, "base_lr": base_lr, "weight_decay": decay, "base_weight_decay": decay,
    }  # fmt: skip


def adamw(
    groups: list[dict[str, Any]], *, betas: tuple[float, float], eps: float, fused: bool = False
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019) over the groups of :func:`parameter_groups`.

    Args:
        groups: parameters by rule
        betas, eps: its own
        fused: one kernel for all parameters, which rounds otherwise; else one operation for all at once, which does not
    """
    return torch.optim.AdamW(groups, betas=betas, eps=eps, **({"fused": True} if fused else {"foreach": True}))


def described(optimizer: Any) -> list[dict[str, Any]]:
    """Every group of an optimizer: name, learning rate and weight decay at the start, number of parameters."""
    return [
        {
            "name": group["name"],
            "lr": group["base_lr"],
            "weight_decay": group["base_weight_decay"],
            "parameters": sum(p.numel() for p in group["params"]),
        }
        for group in optimizer.param_groups
    ]


def group_table(groups: list[dict[str, Any]]) -> Table:
    """What :func:`described` says, for people."""
    table = Table("parameter group", title="optimizer", title_justify="left")
    for heading in ("lr", "weight decay", "parameters"):
        table.add_column(heading, justify="right")
    for g in groups:
        table.add_row(g["name"], f"{g['lr']:g}", f"{g['weight_decay']:g}", f"{g['parameters']:,}")
    return table


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's own tensors, named ``<parameter>.<moment>``."""
    state: dict[str, Tensor] = {}
    for name, parameter in _named(optimizer):
        for key, value in optimizer.state[parameter].items():
            state[f"{name}.{key}"] = value.detach()
    return state


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    """Put back what :func:`optimizer_state` gave; a parameter that has made no step yet has no state."""
    fused = optimizer.defaults.get("fused")
    for name, parameter in _named(optimizer):
        if f"{name}.step" not in state:
            continue
        for key in ("step", "exp_avg", "exp_avg_sq"):
            value = state[f"{name}.{key}"].clone()
            here = key == "step" and not fused  # AdamW keeps its step counts on the CPU, unless it is fused
            optimizer.state[parameter][key] = value if here else placed(value, parameter)


def _named(optimizer: torch.optim.Optimizer) -> list[tuple[str, nn.Parameter]]:
    return [pair for group in optimizer.param_groups for pair in zip(group["names"], group["params"], strict=True)]
