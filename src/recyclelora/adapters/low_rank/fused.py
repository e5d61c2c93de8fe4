"""One frozen linear layer and all its low-rank branches as a single autograd function with low-rank gradients.

For g = dL/dy, with the branches stacked into A (rank, in) and B (out, rank):

    y = x W^T + b + s (x A^T) B^T
    dL/dx = g W + s (g B) A,   dL/dA = s (g B)^T x,   dL/dB = s g^T (x A^T),   dL/db = sum of g over the tokens

No gradient of W's size is formed, and what nobody needs is not computed. Between forward and backward only x (in the
dtype of the products) and x A^T are kept, each only where a gradient needs it. W and the factors are kept as the
parameters they are; casting and stacking them again in the backward costs about 1 % of a step and saves a second copy
of all weights under autocast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Gradients = tuple[Tensor | None, ...]


def fused_low_rank(
    x: Tensor, weight: Tensor, bias: Tensor | None, scale: float, a: Sequence[Tensor], b: Sequence[Tensor]
) -> Tensor:
    """x W^T + b + s sum_i (x A_i^T) B_i^T, with gradients for everything but W.

    Args:
        x: (..., in), in W's dtype unless under autocast.
        weight: W (out, in), frozen.
        bias: b (out,) or None.
        scale: s.
        a: the A_i (rank_i, in), in one dtype.
        b: the B_i (out, rank_i), in one dtype.

    Returns:
        (..., out) in W's dtype, or in the autocast dtype. Gradients have the dtype of what they belong to. Second
        derivatives are right, except that they are refused where every A is frozen: x is not kept then.

    Raises:
        ValueError: W asks for a gradient.
    """
    if weight.requires_grad and torch.is_grad_enabled():
        raise ValueError("the weight of a low-rank layer is frozen: set its requires_grad to False")
    # Cast and reshaped out here: a second derivative reaches saved inputs only, and what a Function returns may be
    # changed in place only if it is no view (timm's EVA adds its bias in place).
    tokens = autocasted(x).reshape(-1, x.shape[-1])
    y: Tensor = _FusedLowRank.apply(tokens, weight, bias, scale, *a, *b)
    return y.view(*x.shape[:-1], y.shape[-1])


def autocasted(tensor: Tensor) -> Tensor:
    """``tensor`` in the autocast dtype of its device; itself outside autocast."""
    device = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else tensor


class _FusedLowRank(torch.autograd.Function):
    """Hidden states are held as (rank, tokens), the layout in which the thin products run fastest."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, scale: float, *factors: Tensor) -> Tensor:
        """See `fused_low_rank`, but for x (tokens, in) as it is multiplied; ``factors`` are all A_i, then all B_i."""
        ctx.scale, ctx.bias_dtype = scale, None if bias is None else bias.dtype
        a, b = _stacked(factors, bias, x.dtype)
        hidden = _rows(x, len(a)).addmm_(a, x.t(), beta=0, alpha=scale)
        # The large product is added to the small one: a pass over y less, and in bfloat16 the small one is rounded.
        start = (hidden if bias is None else _with_ones(hidden)).t() @ b
        y = start.addmm_(x, autocasted(weight).t())
        need_a, need_b = _needed(ctx)
        ctx.save_for_backward(x if need_a else None, hidden if need_b else None, weight, *factors)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Gradients of x, b and the factors."""
        (grad,) = grads
        with torch.autocast(grad.device.type, enabled=False):  # whoever calls backward() under autocast
            return _gradients(ctx, grad)


def _gradients(ctx: Any, grad: Tensor) -> Gradients:
    """The formulas of the module, for grad (tokens, out)."""
    x, hidden, weight, *factors = ctx.saved_tensors
    need_x, _, need_bias = ctx.needs_input_grad[:3]
    need_a, need_b = _needed(ctx)
    half = len(factors) // 2
    ranks = [len(factor) for factor in factors[:half]]
    a, b = _stacked(factors, None, grad.dtype)
    grad_hidden = _rows(grad, len(b)).addmm_(b, grad.t(), beta=0, alpha=ctx.scale)
    grad_x: Tensor | None = None
    grad_bias: Tensor | None = None
    grad_a: Gradients = (None,) * half
    grad_b: Gradients = (None,) * half
    if need_x:
        grad_x = (grad_hidden.t() @ a).addmm_(grad, weight.to(grad.dtype))
    if need_bias:
        grad_bias = grad.sum(0, dtype=ctx.bias_dtype)
    if need_a:
        grad_a = (grad_hidden @ x).to(factors[0].dtype).split(ranks)
    if need_b:
        hidden = _differentiable(x, a, ctx.scale) if torch.is_grad_enabled() else hidden
        grad_b = tuple(part.t() for part in (hidden @ grad).to(factors[-1].dtype).split(ranks))
    return grad_x, None, grad_bias, None, *grad_a, *grad_b


def _stacked(factors: Sequence[Tensor], bias: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """All A (rank, in), and all B^T (rank, out) with the bias as one row more."""
    half = len(factors) // 2
    rows = [factor.t() for factor in factors[half:]]
    b = torch.cat(rows if bias is None else [*rows, bias.to(rows[0].dtype)[None]])
    return torch.cat([*factors[:half]]).to(dtype), b.to(dtype)


def _with_ones(hidden: Tensor) -> Tensor:
    """A row of ones below: the bias, as the last row of B^T, then costs no pass over y. Not kept for the backward."""
    rows = _rows(hidden.t(), len(hidden) + 1)
    rows[:-1] = hidden
    rows[-1] = 1
    return rows


def _rows(like: Tensor, rows: int) -> Tensor:
    """An unfilled matrix (rows, tokens); each row starts at a multiple of 8 elements, as tensor cores ask for."""
    tokens = len(like)
    return like.new_empty(rows, -(-tokens // 8) * 8)[:, :tokens]


def _needed(ctx: Any) -> tuple[bool, bool]:
    """Whether any A, and whether any B, wants a gradient."""
    factors = ctx.needs_input_grad[4:]
    half = len(factors) // 2
    return any(factors[:half]), any(factors[half:])


def _differentiable(x: Tensor | None, a: Tensor, scale: float) -> Tensor:
    """The hidden states once more, as a function of x and A: a second derivative (create_graph) goes through them."""
    if x is None:
        raise RuntimeError("a low-rank layer whose every A is frozen has no second derivative: x is not kept for it")
    return (a @ x.t()) * scale
