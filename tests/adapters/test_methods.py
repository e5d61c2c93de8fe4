"""What every method has to do, whatever its mathematics: one matrix of behaviours and methods."""

import copy
import io
import itertools

import pytest
import torch
from low_rank import low_rank
from torch import nn
from torch.utils.checkpoint import checkpoint

from recyclelora.adapters.adalora import AdaLoRA
from recyclelora.adapters.config import (
    AdaLoraConfig,
    AdaptFormerConfig,
    CausalTuneConfig,
    DeloraConfig,
    DoraConfig,
    FullConfig,
    HiraConfig,
    KasaConfig,
    LoraXsConfig,
    NormsConfig,
    OploraConfig,
    ReinConfig,
    SetConfig,
    SvftConfig,
    VeraConfig,
    VptConfig,
)
from recyclelora.adapters.controls.adaptformer import AdaptFormer
from recyclelora.adapters.controls.vpt import Vpt
from recyclelora.adapters.controls.whole import Frozen, Full, Norms
from recyclelora.adapters.dora import DoRA
from recyclelora.adapters.fixed_directions import SVFT, LoRAXS, OPLoRA
from recyclelora.adapters.low_rank.config import BranchConfig
from recyclelora.adapters.low_rank.inject import LowRank
from recyclelora.adapters.method import Adapted, AdapterContext, Method
from recyclelora.adapters.products.delora import DeLoRA
from recyclelora.adapters.products.hira import HiRA
from recyclelora.adapters.products.kasa import KaSA
from recyclelora.adapters.state import initial_state, merge, unmergeable
from recyclelora.adapters.tokens.rein import Rein
from recyclelora.adapters.tokens.spectral import SET, CausalTune
from recyclelora.adapters.vera import VeRA
from recyclelora.config.testing import shown_images

from .models import load, stored, tiny_vit

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LINEARS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
SPLIT = ("attn.qkv.q", "attn.qkv.k", "attn.qkv.v", "attn.proj", "mlp.fc1", "mlp.fc2")


def layers(parts: tuple[str, ...], names: tuple[str, ...] = LINEARS, blocks: tuple[int, ...] = (0, 1)) -> set[str]:
    return {f"blocks.{b}.{name}.{part}" for b, name, part in itertools.product(blocks, names, parts)}


AB = ("main.lora_a", "main.lora_b")
REIN = {"rein.token_a", "rein.token_b", "rein.scale"} | {
    f"rein.{layer}.{part}" for layer in ("token_to_feature", "feature_to_feature") for part in ("weight", "bias")
}
AMPLITUDE = {"set.amplitude_tokens"} | {
    f"set.amplitude_to_{layer}.{part}" for layer in ("feature", "amplitude") for part in ("weight", "bias")
}
LINK = {f"rein.{layer}.{part}" for layer in ("token_to_query", "merge_queries") for part in ("weight", "bias")}

METHODS: dict[str, tuple[Method, set[str]]] = {
    "frozen": (Frozen(), set()),
    "full": (Full(FullConfig()), {name for name, _ in tiny_vit().named_parameters()}),
    "lora": (LowRank(low_rank(BranchConfig("kaiming", 4), residual=False)), layers(AB)),
    "pissa": (LowRank(low_rank(BranchConfig("svd_major", 4), alpha=4.0)), layers(AB)),
    "soma": (
        LowRank(low_rank(BranchConfig("svd_minor", 4), alpha=4.0, split_qkv=True, train_bias=True, blocks="1:")),
        layers((*AB, "bias"), SPLIT, (1,)),
    ),
    "recyclelora": (
        LowRank(low_rank(BranchConfig("rrqr_minor", 4), BranchConfig("rrqr_major", 2, lr_mult=0.5))),
        layers((*AB, "sub.lora_a", "sub.lora_b")),
    ),
    "recyclelora_data": (
        LowRank(low_rank(BranchConfig("rrqr_minor_data", 4), BranchConfig("rrqr_major_data", 2), split_qkv=True)),
        layers((*AB, "sub.lora_a", "sub.lora_b"), SPLIT),
    ),
    "recyclelora_null": (
        LowRank(low_rank(BranchConfig("rrqr_null", 4), BranchConfig("rrqr_major_data", 2))),
        layers((*AB, "sub.lora_a", "sub.lora_b")),
    ),
    "lora_null": (LowRank(low_rank(BranchConfig("lora_null", 4), alpha=4.0)), layers(AB)),
    "lora_null_v2": (LowRank(low_rank(BranchConfig("lora_null", 4, train_a=False), alpha=4.0)), layers(AB[1:])),
    "corda": (LowRank(low_rank(BranchConfig("corda_kpm", 4), alpha=4.0)), layers(AB)),
    "corda_ipm": (LowRank(low_rank(BranchConfig("corda_ipm", 4), alpha=4.0)), layers(AB)),
    "eva": (LowRank(low_rank(BranchConfig("eva", 4), alpha=4.0, residual=False, rho=1.0)), layers(AB)),
    "lora_ga": (LowRank(low_rank(BranchConfig("lora_ga", 4), alpha=4.0, split_qkv=True)), layers(AB, SPLIT)),
    "lora_one": (LowRank(low_rank(BranchConfig("lora_one", 4), alpha=4.0, residual=False)), layers(AB)),
    "dora": (DoRA(DoraConfig(rank=4, alpha=4.0)), layers(("lora_a", "lora_b", "magnitude"))),
    "lora_xs": (LoRAXS(LoraXsConfig(rank=4)), layers(("coefficients",))),
    "svft": (SVFT(SvftConfig()), layers(("coefficients",))),
    "oplora": (OPLoRA(OploraConfig(rank=4, alpha=4.0, protected=3)), layers(("lora_a", "lora_b"))),
    "kasa": (KaSA(KasaConfig(rank=4, alpha=4.0)), layers(("lora_a", "lora_e", "lora_b"))),
    "delora": (DeLoRA(DeloraConfig(rank=4, strength=1.0)), layers(("lora_a", "lora_b", "lora_lambda"))),
    "hira": (HiRA(HiraConfig(rank=4)), layers(("lora_a", "lora_b"))),
    "vera": (VeRA(VeraConfig(rank=8, targets=["*.attn.*"])), layers(("vera_d", "vera_b"), LINEARS[:2])),
    "adalora": (AdaLoRA(AdaLoraConfig(init_rank=4, target_rank=2, alpha=4.0)), layers(("lora_a", "lora_e", "lora_b"))),
    "norms": (
        Norms(NormsConfig()),
        layers(("bias",), (*LINEARS, "norm1", "norm2")) | layers(("weight",), ("norm1", "norm2")),
    ),
    "adaptformer": (
        AdaptFormer(AdaptFormerConfig(width=8)),
        layers(("weight", "bias"), ("adaptformer.down", "adaptformer.up")),
    ),
    "vpt": (Vpt(VptConfig(num_prompts=3, dropout=0.0)), {"vpt.table"}),
    "rein": (Rein(ReinConfig(num_tokens=10, token_rank=4)), REIN),
    "rein_link": (Rein(ReinConfig(num_tokens=10, token_rank=4, query_width=16, link=True)), REIN | LINK),
    "set": (SET(SetConfig(num_tokens=10, token_rank=4)), {name.replace("rein", "set") for name in REIN} | AMPLITUDE),
    "causal_tune": (
        CausalTune(CausalTuneConfig(num_tokens=10, token_rank=4)),
        {name.replace("rein", "causal_tune") for name in REIN},
    ),
}
REFUSED = {
    "rein": "rein",
    "rein_link": "rein",
    "set": "set",
    "causal_tune": "causal_tune",
    "adaptformer": "adaptformer",
    "vpt": "vpt",
}
"""What cannot be merged, and the name by which it is refused."""
STARTS = {
    "frozen": 0,
    "full": 0,
    "norms": 0,
    "adaptformer": 0,
    "rein": 5e-3,
    "rein_link": 5e-3,
    "set": 5e-3,
    "causal_tune": 5e-3,
    "lora_one": 1.0,
    "lora_xs": 1e-3,
}
"""How far the adapted model may be from the pretrained one where this is not rounding: Rein's scale starts at 0.001,
LoRA-One one step down the gradient, LoRA-XS at numbers of 1e-5."""
CHANGED_AT_THE_START = {"vpt", "kasa"}
"""Prompts are seen from the start, and KaSA drops a part of the weight, see `test_products`."""
OTHER_STARTS = {"recyclelora_null", "lora_null_v2", "corda_ipm", "lora_one"}
"""Methods that differ from another one in where they start alone."""
every_method = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in OTHER_STARTS else name for name in METHODS]
)
IN_PLACE = {"full", "norms"}


def context(name: str, model: nn.Module, **given: object) -> AdapterContext:
    """What every method is given here; what starts from data looks at random images."""
    options = {"seed": 3, "max_steps": 6, "has_queries": name == "rein_link", **given}
    return AdapterContext(**options, calibration=shown_images(model))


def adapted(name: str, train: bool = False) -> tuple[nn.Module, Adapted]:
    model = tiny_vit()
    result = METHODS[name][0].apply(model, context(name, model))
    if train:
        train_steps(model, result)
    return model, result


def loss_of(model: nn.Module, result: Adapted) -> torch.Tensor:
    loss = model.forward_features(IMAGES).exp().mean()
    for extra in (result.query, result.penalty):
        if extra is not None:
            loss = loss + extra().square().mean()
    return loss


def train_steps(model: nn.Module, result: Adapted, steps: int = 3) -> None:
    parameters = [p for p in model.parameters() if p.requires_grad] or [nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    for step in range(1, steps + 1):
        if result.rules:
            loss_of(model, result).backward()
        optimizer.step()
        if result.after_step is not None:
            result.after_step(step)
        optimizer.zero_grad()


@every_method
def test_exactly_these_parameters_train_and_each_has_a_rule(name):
    model, result = adapted(name)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == METHODS[name][1] == set(result.rules)
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("name", [name for name in METHODS if name not in CHANGED_AT_THE_START])
def test_the_adapted_model_starts_as_the_pretrained_one(name):
    expected = tiny_vit().eval().forward_features(IMAGES)
    model, _ = adapted(name)
    torch.testing.assert_close(model.eval().forward_features(IMAGES), expected, atol=STARTS.get(name, 2e-5), rtol=0)


@every_method
def test_pretrained_tensors_stay_as_they_are_to_the_last_bit(name):
    model = tiny_vit()
    state = model.state_dict()  # the very tensors
    before = copy.deepcopy(state)
    result = METHODS[name][0].apply(model, context(name, model))
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    train_steps(model, result)
    for parameter, value in frozen.items():
        assert torch.equal(model.get_parameter(parameter), value), parameter
    if name not in IN_PLACE:
        assert all(torch.equal(state[n], before[n]) for n in before)


@every_method
def test_every_trainable_parameter_gets_a_gradient_and_no_other(name):
    model, result = adapted(name)
    if result.rules:
        loss_of(model, result).backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    train_steps(model, result, 2)  # what starts at zero holds others back for one step
    if result.rules:
        loss_of(model, result).backward()
    assert all(p.grad.count_nonzero() for p in model.parameters() if p.requires_grad)


@every_method
def test_training_changes_the_output(name):
    model, _ = adapted(name)
    trained, _ = adapted(name, train=True)
    same = torch.equal(model.eval().forward_features(IMAGES), trained.eval().forward_features(IMAGES))
    assert same == (name == "frozen")


@every_method
def test_a_merged_model_equals_the_adapted_one_or_is_refused_by_name(name):
    model, _ = adapted(name, train=True)
    model.eval()
    before = copy.deepcopy(model.state_dict())
    assert (unmergeable(model) is None) == (name not in REFUSED)
    if name in REFUSED:
        with pytest.raises(ValueError, match=rf"^{REFUSED[name]} cannot be merged"):
            merge(model)
        return
    merged = merge(model)
    expected = model.forward_features(IMAGES)
    torch.testing.assert_close(merged.forward_features(IMAGES), expected, atol=1e-4, rtol=1e-4)
    pretrained = tiny_vit()
    assert merged.state_dict().keys() == pretrained.state_dict().keys()
    assert [type(m) for m in merged.modules()] == [type(m) for m in pretrained.modules()]
    for parameter in merged.parameters():
        parameter.data.zero_()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@every_method
@pytest.mark.parametrize("training", [True, False])
def test_a_state_saved_in_any_mode_loads_to_the_same_output(name, training):
    model, _ = adapted(name, train=True)
    model.train(training)
    state, initial = stored(model), initial_state(model)
    expected = model.eval().forward_features(IMAGES)
    assert METHODS[name][1] == state.keys()
    fresh = tiny_vit()
    METHODS[name][0].apply(fresh, AdapterContext(3, 6, initial=initial, has_queries=name == "rein_link"))
    load(fresh.train(training), state)
    assert torch.equal(fresh.eval().forward_features(IMAGES), expected)


@every_method
def test_copies_and_pickles_are_models_of_their_own(name):
    model, result = adapted(name, train=True)
    model.eval()
    expected = model.forward_features(IMAGES)
    buffer = io.BytesIO()
    torch.save((model, result.query), buffer)
    buffer.seek(0)
    copies = [copy.deepcopy((model, result.query)), torch.load(buffer, weights_only=False)]
    queries = None if result.query is None else result.query().clone()
    for parameter in model.parameters():
        parameter.data.zero_()
    for other, query in copies:
        assert torch.equal(other.forward_features(IMAGES), expected)
        assert (query is None) if queries is None else torch.equal(query(), queries)


@every_method
def test_gradient_checkpointing_changes_no_gradient(name):
    plain, result = adapted(name)
    saving, other = adapted(name)
    saving.set_grad_checkpointing(True)
    for model, its in ((plain, result), (saving, other)):
        if its.rules:
            loss_of(model, its).backward()
    for (key, a), (_, b) in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        assert a.grad is b.grad is None or torch.equal(a.grad, b.grad), key


@pytest.mark.parametrize(
    "name", ["dora", "vera", "adalora", "rein", "set", "causal_tune", "norms", "adaptformer", "vpt"]
)
def test_compiled_models_compute_the_same(name):
    model, _ = adapted(name, train=True)
    model.eval()
    torch.compiler.reset()
    compiled = torch.compile(model.forward_features, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(IMAGES), model.forward_features(IMAGES))


@every_method
def test_autocast_and_bfloat16_backbones_stay_near_float32(name):
    model, _ = adapted(name, train=True)
    model.eval()
    expected = model.forward_features(IMAGES)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model.forward_features(IMAGES).float(), expected, atol=0.15, rtol=0.1)
    low = tiny_vit().to(torch.bfloat16).eval()
    METHODS[name][0].apply(low, context(name, low))
    reference = adapted(name)[0].eval().forward_features(IMAGES)
    found = low.forward_features(IMAGES.to(torch.bfloat16))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), reference, atol=0.15, rtol=0.1)
    added = [p for n, p in low.named_parameters() if n in METHODS[name][1]]
    assert name == "full" or all(p.dtype == torch.float32 for p in added if p.requires_grad and p.ndim > 1)


class Stack(nn.Module):
    """Nothing but blocks, as a benchmark uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = tiny_vit().blocks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return x

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self(images.reshape(len(images), -1, 64))


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("set", "causal_tune")])  # need a map
def test_a_bare_stack_of_blocks_can_be_adapted(name):
    model = Stack()
    result = METHODS[name][0].apply(model, context(name, model))
    output = model(torch.randn(2, 5, 64))
    assert output.shape == (2, 5, 64) and output.requires_grad == bool(result.rules)


@pytest.mark.parametrize("name", ["dora", "vera", "adalora", "rein", "set", "norms", "adaptformer", "vpt"])
def test_a_refused_selection_leaves_the_model_alone(name):
    model = tiny_vit()
    wrong = {
        "dora": DoRA(DoraConfig(rank=65)),
        "vera": VeRA(VeraConfig(targets=["*.qvk"])),
        "adalora": AdaLoRA(AdaLoraConfig(init_rank=65)),
        "rein": Rein(ReinConfig(blocks="2:")),
        "set": SET(SetConfig(blocks="2:")),
        "norms": Norms(NormsConfig(blocks="2:")),
        "adaptformer": AdaptFormer(AdaptFormerConfig(blocks="2:")),
        "vpt": Vpt(VptConfig(blocks="2:")),
    }
    with pytest.raises(ValueError, match=r"allowed are 1 to 64|matches no linear layer|'2:' is empty"):
        wrong[name].apply(model, AdapterContext())
    assert all(p.requires_grad for p in model.parameters()) and not hasattr(model, "rein")
    assert type(model.blocks[0].attn.qkv) is nn.Linear


def test_full_fine_tuning_spares_one_dimensional_parameters_unless_everything_decays():
    model = tiny_vit()
    spared = {name for name, p in model.named_parameters() if p.ndim < 2}
    assert any(name.endswith(".norm1.weight") for name in spared) and any(".bias" in name for name in spared)
    for decay_all in (False, True):
        rules = Full(FullConfig(decay_all=decay_all)).apply(model, AdapterContext()).rules
        assert {name for name, rule in rules.items() if rule.weight_decay == 0.0} == (set() if decay_all else spared)
        assert {rule.lr_mult for rule in rules.values()} == {0.1} and len(rules) == len(list(model.parameters()))


def test_what_packages_of_the_first_release_import_is_there():
    from recyclelora.adapters.method import Setting
    from recyclelora.adapters.replacing import AdaptedLinear, replace, selected_linears
    from recyclelora.adapters.state import ParameterRule, Unmergeable, uniform_rules

    assert Setting(seed=1, max_steps=2, has_queries=True) == AdapterContext(1, 2, has_queries=True)
    assert ParameterRule(0.5, None, "all").lr_mult == 0.5
    assert all(map(callable, (AdaptedLinear, replace, selected_linears, Unmergeable, uniform_rules)))
