"""What authors of adapters, decoders and losses let their options go through, as ours do: ``recyclelora.testing``.

Each check takes options as an option file or a command line would make them, needs a second or two on a CPU, and raises
an AssertionError that says what was promised.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from recyclelora.adapters.calibration.measure import ImagePass
from recyclelora.adapters.low_rank.config import BranchConfig, LowRankConfig
from recyclelora.adapters.method import Adapted, AdapterContext
from recyclelora.adapters.state import initial_state, merge, unmergeable
from recyclelora.config.build import build_decoder, build_loss
from recyclelora.models.losses.loss import LossInputs, with_extras
from recyclelora.models.timm_library import VisionTransformer
from recyclelora.system.checks import accept

IGNORED, PATCH, SIZE = 255, 16, (64, 96)
State = dict[str, Tensor]


def tiny_vit(seed: int = 0) -> nn.Module:
    """A timm ViT of width 64 with two blocks and random weights, for images of 32 pixels."""
    torch.manual_seed(seed)
    return VisionTransformer(img_size=32, patch_size=PATCH, embed_dim=64, depth=2, num_heads=4, num_classes=0)


def shown_images(model: nn.Module) -> ImagePass:
    """Random images that an adapter may look at before it starts: more tokens than the model is wide."""
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(6))

    def loss(number: int) -> Tensor:
        image = images[number][None].to(next(model.parameters()).dtype)
        return model.forward_features(image).float().exp().mean()  # type: ignore[operator,no-any-return]

    return ImagePass(len(images), "random images", loss, loss)


# --- adapters -----------------------------------------------------------------------------------------------------


def check_adapter(options: Any, *, tolerance: float | None = 2e-5, has_queries: bool = False) -> None:
    """Names and rules, the start, gradients, what is stored, resuming and merging, on `tiny_vit`.

    Args:
        options: of the group ``adapter``
        tolerance: by which the adapted model may differ from the pretrained one at the start; None promises nothing
        has_queries: whether the decoder has any to lend queries to
    """
    accept(options)
    context = AdapterContext(seed=3, max_steps=6, has_queries=has_queries)
    with torch.device("meta"):
        getattr(options.method(), "check", lambda model: None)(tiny_vit())
    model, adapted = _adapted(options, context)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == set(adapted.rules), f"trainable and rules differ: {sorted(trainable ^ set(adapted.rules))[:5]}"
    if tolerance is not None:
        expected = tiny_vit().eval().forward_features(_images())  # type: ignore[operator]
        torch.testing.assert_close(_features(model), expected, atol=tolerance, rtol=0)
    if trainable:
        _check_training(options, context)


def _check_training(options: Any, context: AdapterContext) -> None:
    """Every parameter learns; the stored state, a run cut in two and the merged weights give the same model."""
    whole = _Training(options, context)
    frozen = {n: p.detach().clone() for n, p in whole.model.named_parameters() if not p.requires_grad}
    whole.run(4)
    touched = [name for name, value in frozen.items() if not torch.equal(whole.model.get_parameter(name), value)]
    assert not touched, f"frozen parameters were changed: {touched[:5]}"
    whole.loss().backward()  # type: ignore[no-untyped-call]
    idle = [n for n, p in whole.model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not idle, f"these get no gradient: {idle[:5]}"

    first = _Training(options, context)
    first.run(2)
    second = _Training(options, context, resumed=first)
    second.run(2)
    for name, value in _stored(whole.model).items():
        assert torch.equal(value, _stored(second.model)[name]), f"{name} differs in a run that was resumed"
    assert torch.equal(_features(whole.model), _features(second.model)), "the resumed model computes something else"
    assert torch.equal(_features(copy.deepcopy(whole.model)), _features(whole.model)), "a deep copy computes otherwise"
    if unmergeable(whole.model) is None:
        _check_merging(whole.model)


def _check_merging(model: nn.Module) -> None:
    """The merged model has the pretrained one's tensors, no others, and computes what the adapted one does."""
    merged = merge(model)
    odd = sorted(merged.state_dict().keys() ^ tiny_vit().state_dict().keys())
    assert not odd, f"merging leaves or lacks {odd[:5]}: offer merged(), or derive from Unmergeable"
    close = torch.allclose(_features(merged), _features(model), atol=1e-4, rtol=1e-4)
    assert close, "merged it computes otherwise: merged() lacks something of forward()"


class _Training:
    """A few steps of AdamW on whatever trains, as a run takes them."""

    model: nn.Module

    def __init__(self, options: Any, context: AdapterContext, resumed: _Training | None = None) -> None:
        if resumed is not None:
            context = AdapterContext(**{**vars(context), "initial": initial_state(resumed.model)})
        self.model, self.adapted = _adapted(options, context)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer, self.step = torch.optim.AdamW(parameters, lr=1e-2), 0
        if resumed is not None:
            state, memory = _stored(resumed.model), resumed.adapted.training_state
            missing, unexpected = self.model.load_state_dict(state, strict=False)
            lost = [*unexpected, *(name for name in missing if name in state)]
            assert not lost, f"the stored state does not fit a model that is built again: {lost[:5]}"
            self.optimizer.load_state_dict(copy.deepcopy(resumed.optimizer.state_dict()))
            self.step = resumed.step
            if self.adapted.training_state is not None and memory is not None:
                self.adapted.training_state.load_state_dict(copy.deepcopy(memory.state_dict()))

    def loss(self) -> Tensor:
        loss: Tensor = self.model.train().forward_features(_images()).exp().mean()  # type: ignore[operator]
        for extra in (self.adapted.query, self.adapted.penalty):
            if extra is not None:
                loss = loss + extra().square().mean()
        return loss

    def run(self, steps: int) -> None:
        for _ in range(steps):
            torch.manual_seed(self.step)
            self.loss().backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.step += 1
            if self.adapted.after_step is not None:
                self.adapted.after_step(self.step)
            self.optimizer.zero_grad()


def _adapted(options: Any, context: AdapterContext) -> tuple[nn.Module, Adapted]:
    model = tiny_vit()
    return model, options.method().apply(model, replace(context, calibration=shown_images(model)))


def _stored(model: nn.Module) -> State:
    """What a run keeps: trainable parameters and persistent buffers."""
    names = {name for name, p in model.named_parameters() if p.requires_grad} | {
        name for name, _ in model.named_buffers()
    }
    return {name: value.clone() for name, value in model.state_dict().items() if name in names}


def _features(model: nn.Module) -> Tensor:
    features: Tensor = model.eval().forward_features(_images()).detach()  # type: ignore[operator]
    return features


def _images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


# --- decoders and losses ------------------------------------------------------------------------------------------


def check_decoder(options: Any, channels: Sequence[int] = (32,) * 4, num_classes: int = 5) -> None:
    """Shapes, losses, gradients, and the names a decoder gives of its parameters.

    Args:
        options: of the group ``decoder``
        channels: of the levels
        num_classes: of the data
    """
    accept(options)
    torch.manual_seed(0)
    decoder = build_decoder(options, list(channels), num_classes)
    own = {name for name, _ in decoder.named_parameters()}
    features, labels = _levels(channels), _labels(num_classes)
    losses = decoder.losses(features, labels, IGNORED)  # type: ignore[operator]
    _check_losses(losses)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    idle = [name for name, parameter in decoder.named_parameters() if parameter.grad is None]
    assert not idle, f"these get no gradient: {idle[:5]}"
    _check_losses(decoder.losses(features, torch.full_like(labels, IGNORED), IGNORED))  # type: ignore[operator]
    for method in ("undecayed", "per_class"):
        unknown = sorted(getattr(decoder, method)() - own)
        assert not unknown, f"{method}() names what is no parameter: {unknown[:5]}"
    decoder.eval()
    with torch.no_grad():
        scores = decoder(features, SIZE)
        assert scores.shape == (2, num_classes, *SIZE), f"scores have the shape {tuple(scores.shape)}"
        alone = torch.cat([decoder([level[[image]] for level in features], SIZE) for image in range(2)])
        torch.testing.assert_close(alone, scores, atol=1e-4, rtol=1e-4)  # an image's scores are its own
        probabilities = decoder.probabilities(scores)  # type: ignore[operator]
        torch.testing.assert_close(probabilities.sum(1), torch.ones(2, *SIZE))
        assert torch.equal(probabilities.argmax(1), scores.argmax(1)), "probabilities() prefers other classes"


def check_loss(options: Any, channels: Sequence[int] = (32,) * 4, num_classes: int = 5) -> None:
    """Named finite scalars with a gradient, also where nothing is labelled.

    Args:
        options: of the group ``losses``
        channels: of the levels
        num_classes: of the data
    """
    accept(options)
    loss = build_loss(options, list(channels), num_classes)
    features, labels = _levels(channels), _labels(num_classes)
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(4))
    scores = torch.randn(2, num_classes, *SIZE, generator=torch.Generator().manual_seed(5)).requires_grad_()
    adapted = tiny_vit()
    LowRankConfig(main=BranchConfig("gaussian", 2), sub=BranchConfig("gaussian", 2)).method().apply(
        adapted, AdapterContext()
    )
    reached = False
    for step, truth in ((0, labels), (10_000, labels), (10_000, torch.full_like(labels, IGNORED))):
        losses = with_extras({}, [loss], _loss_inputs(images, truth, features, step, scores, adapted))
        _check_losses(losses)
        total = torch.stack(list(losses.values())).sum()
        if total.requires_grad:
            trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
            gradients = torch.autograd.grad(total, [*features, scores, *trained], allow_unused=True)
            known = [gradient for gradient in gradients if gradient is not None]
            assert all(torch.isfinite(gradient).all() for gradient in known), "a gradient is not finite"
            reached = reached or any(bool(gradient.any()) for gradient in known)
    assert reached, "it has no gradient at the features, the scores or an adapter: nothing would learn from it"


def _loss_inputs(
    images: Tensor, labels: Tensor, features: list[Tensor], step: int, scores: Tensor, backbone: nn.Module
) -> LossInputs:
    """As a segmenter gives them, of a decoder that adds the levels up and a backbone that adds the image's greys."""
    greys = nn.functional.avg_pool2d(images.mean(1, keepdim=True), PATCH)

    def encoded(others: Tensor) -> list[Tensor]:
        changed = nn.functional.avg_pool2d(others.mean(1, keepdim=True), PATCH) - greys
        return [level + changed * level.sin() for level in features]

    def decoded(levels: Sequence[Tensor]) -> Tensor:
        total = torch.stack([level.mean(1) for level in levels]).sum(0)[:, None]
        return scores * nn.functional.interpolate(total, size=SIZE)

    return LossInputs(
        images, labels, IGNORED, features, step, lambda: scores, decoded, encoded, lambda s: s.softmax(1), backbone
    )


def _check_losses(losses: State) -> None:
    assert losses, "there is no loss"
    for name, value in losses.items():
        assert name.startswith("loss"), f"a loss is named {name!r}: it must begin with loss, to be logged as one"
        assert value.ndim == 0 and torch.isfinite(value), f"{name} is no finite scalar"


def _levels(channels: Sequence[int]) -> list[Tensor]:
    """Four levels at the stride of a patch, for two images."""
    generator = torch.Generator().manual_seed(1)
    sides = [side // PATCH for side in SIZE]
    return [torch.randn(2, c, *sides, generator=generator).requires_grad_() for c in channels]


def _labels(num_classes: int) -> Tensor:
    """A class for every patch, the first of each image ignored."""
    ids = torch.randint(0, num_classes, (2, *(s // PATCH for s in SIZE)), generator=torch.Generator().manual_seed(2))
    ids[:, 0, 0] = IGNORED
    return ids.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
