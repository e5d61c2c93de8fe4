"""The fused layer against the published two-branch form through plain autograd."""

import itertools

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from recyclelora.adapters.low_rank.fused import fused_low_rank
from recyclelora.adapters.low_rank.layer import LowRankLinear

from .layers import formula, linear, make, shake, wanted


def adapted(dtype=torch.float32, **options) -> LowRankLinear:
    layer = make(linear(bias=options.pop("bias", True)), **options).to(dtype)
    shake(layer)
    return layer


def tokens(dtype=torch.float32, requires_grad=True) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, 3, 24, generator=generator, dtype=dtype).requires_grad_(requires_grad)


def gradients(y: torch.Tensor, inputs: list[torch.Tensor], **options) -> list[torch.Tensor]:
    return list(torch.autograd.grad(y.square().sum(), inputs, **options))


def assert_same(found, expected, **tolerance):
    for left, right in zip(found, expected, strict=True):
        assert left.dtype == right.dtype
        torch.testing.assert_close(left, right, **tolerance)


FACTORS = (("a", "b"), ("a",), ("b",), ())


@pytest.mark.parametrize(
    ("train", "x_needs_it"), [case for case in itertools.product(FACTORS, (True, False)) if any(case)]
)
@pytest.mark.parametrize("bias", ["none", "frozen", "trained"])
def test_gradients_are_those_of_two_branches(train, x_needs_it, bias):
    layer = adapted(torch.float64, train=train, bias=bias != "none", train_bias=bias == "trained")
    x = tokens(torch.float64, x_needs_it)
    inputs = wanted(layer) + [x] * x_needs_it
    assert len(inputs) == 2 * len(train) + (bias == "trained") + x_needs_it
    assert_same(gradients(layer(x), inputs), gradients(formula(layer, x), inputs))


def test_first_and_second_derivatives_agree_with_finite_differences():
    layer = make(linear(5, 7), ranks=(2, 1), train_bias=True).double()
    shake(layer)
    factors = [parameter for branch in layer.branches().values() for parameter in branch.parameters()]

    def function(x, bias, a_1, b_1, a_2, b_2):
        return fused_low_rank(x, layer.weight, bias, layer.scale, [a_1, a_2], [b_1, b_2])

    inputs = (tokens(torch.float64)[0, :, :5], layer.bias, *factors)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_a_second_derivative_that_cannot_be_right_is_refused():
    layer = adapted(train=("b",))
    with pytest.raises(RuntimeError, match="every A is frozen has no second derivative"):
        gradients(layer(tokens()), wanted(layer), create_graph=True)


def test_a_weight_that_asks_for_a_gradient_is_refused():
    layer = adapted()
    layer.weight.requires_grad_()
    with pytest.raises(ValueError, match="frozen: set its requires_grad to False"):
        layer(tokens())


@pytest.mark.parametrize(
    ("train", "expected"),
    [(("a", "b"), {(6, 24), (6, 6)}), (("a",), {(6, 24)}), (("b",), {(6, 6)}), ((), set())],
)
def test_only_what_a_gradient_needs_is_kept(train, expected):
    layer = adapted(train=train)
    own = {parameter.data_ptr() for parameter in layer.parameters()}
    kept = set()

    def pack(tensor):
        if tensor.data_ptr() not in own:
            kept.add(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(tokens())
    assert kept == expected  # x: 6 tokens of 24; hidden states: 6 ranks of 6 tokens


def test_autocast_keeps_no_copy_of_the_weights():
    layer, x = adapted(), tokens()
    kept = []
    with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(kept.append, lambda t: t):
        layer(x)
    low = [tensor for tensor in kept if tensor.dtype == torch.bfloat16]
    assert sorted(tensor.numel() for tensor in low) == [6 * 6, 6 * 24]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backward_under_autocast", [False, True])
def test_autocast_has_the_dtypes_of_a_frozen_linear_and_float32_gradients(dtype, backward_under_autocast):
    layer, x = adapted(), tokens()
    inputs = [x, *wanted(layer)]
    with torch.autocast("cpu", dtype):
        y = layer(x)
        assert y.dtype == linear()(x).dtype == dtype
    with torch.autocast("cpu", dtype, enabled=backward_under_autocast):
        found = gradients(y, inputs)
    expected = gradients(formula(layer, x), inputs)
    for left, right in zip(found, expected, strict=True):
        assert left.dtype == torch.float32
        # Every factor of a product is rounded once: a few units of 2^-8 relative to the size of the gradient.
        assert (left - right).norm() < 8 * torch.finfo(dtype).eps * right.norm()


def test_backward_of_a_float32_forward_ignores_autocast():
    layer, x = adapted(), tokens()
    y = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(y, x, torch.ones_like(y))
    assert torch.equal(found[0], torch.autograd.grad(layer(x), x, torch.ones_like(y))[0])


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing(use_reentrant):
    layer, x = adapted(), tokens()
    layer(x).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in wanted(layer)]
    layer.zero_grad()
    checkpoint(layer, x, use_reentrant=use_reentrant).square().sum().backward()
    assert_same([parameter.grad for parameter in wanted(layer)], expected, rtol=0, atol=0)


def test_two_calls_before_one_backward():
    layer, x = adapted(torch.float64), tokens(torch.float64)
    inputs = [x, *wanted(layer)]
    found = gradients(layer(x)[..., :24] + layer(2 * x)[..., 16:], inputs)
    assert_same(found, gradients(formula(layer, x)[..., :24] + formula(layer, 2 * x)[..., 16:], inputs))
    assert_same(
        gradients(layer(layer(x)[..., :24]), inputs), gradients(formula(layer, formula(layer, x)[..., :24]), inputs)
    )


def test_a_graph_can_be_used_twice():
    layer, x = adapted(), tokens()
    y = layer(x)
    first = gradients(y, wanted(layer), retain_graph=True)
    assert_same(gradients(y, wanted(layer)), first, rtol=0, atol=0)


def test_a_step_between_forward_and_backward_is_noticed():
    layer = adapted()
    y = layer(tokens())
    with torch.no_grad():
        layer.main.lora_b.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_strided_inputs_and_gradients():
    layer = adapted(torch.float64)
    x = torch.randn(24, 5, 2, dtype=torch.float64).transpose(0, 2).requires_grad_()
    inputs = [x, *wanted(layer)]
    assert_same(torch.autograd.grad(layer(x).sum(), inputs), torch.autograd.grad(formula(layer, x).sum(), inputs))


def test_outputs_may_be_changed_in_place():
    layer, x = adapted(torch.float64), tokens(torch.float64)
    inputs = [x, *wanted(layer)]
    y = layer(x)
    y += 1
    assert_same(gradients(y, inputs), gradients(formula(layer, x) + 1, inputs))


def test_without_gradients_nothing_is_recorded():
    layer, x = adapted(), tokens(requires_grad=False)
    expected = layer(x).detach()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            y = layer(x)
            assert y.grad_fn is None and torch.equal(y, expected)


@pytest.fixture(name="compiler")
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("train", "autocast"), [(("a", "b"), False), (("a", "b"), True), (("a",), False), (("b",), False)]
)
def test_compiles_to_one_graph(compiler, train, autocast):
    layer, x = adapted(train=train, train_bias=True), tokens()
    traced = torch.compile(layer, backend="aot_eager", fullgraph=True)
    inputs = [x, *wanted(layer)]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found, expected = traced(x), layer(x)
    assert torch.equal(found, expected)
    assert_same(gradients(found, inputs), gradients(expected, inputs))
    with torch.no_grad():
        assert torch.equal(traced(x[:1]), layer(x[:1]))  # another number of tokens


@pytest.mark.slow
def test_inductor_computes_the_same(compiler):
    layer, x = adapted(train_bias=True), tokens()
    inputs = [x, *wanted(layer)]
    traced = torch.compile(layer, fullgraph=True)
    assert_same(gradients(traced(x), inputs), gradients(layer(x), inputs))


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("autocast", "tolerance"), [(False, 1e-5), (True, 2e-2)])
def test_a_gpu_computes_the_same(compiler, autocast, compiled, tolerance):
    layer, x = adapted(torch.float64, train_bias=True), tokens(torch.float64)
    expected = gradients(formula(layer, x), [x, *wanted(layer)])
    layer, x = layer.float().cuda(), x.detach().float().cuda().requires_grad_()
    with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        y = (torch.compile(layer, fullgraph=True) if compiled else layer)(x)
    for left, right in zip(gradients(y.float(), [x, *wanted(layer)]), expected, strict=True):
        assert (left.double().cpu() - right).norm() < tolerance * right.norm()
