"""What a run adds to its pretrained backbone, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from recyclelora.system.distributed import is_first, placed, whole
from recyclelora.system.errors import UserError


def trainable_state(segmenter: nn.Module) -> dict[str, Tensor]:
    """Every trainable parameter and every persistent buffer but those the pretrained backbone came with, by name."""
    pretrained = {f"backbone.{name}" for name in getattr(segmenter.backbone, "own_buffers", ())}
    trained = {name: p.detach() for name, p in segmenter.named_parameters() if p.requires_grad}
    stored = segmenter.state_dict().keys() - pretrained
    return trained | {name: buffer for name, buffer in segmenter.named_buffers() if name in stored}


def whole_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that processes may share, whole, in the first process; in the others nothing. All processes must ask."""
    kept: dict[str, Tensor] = {}
    for name, value in state.items():
        found = whole(value)
        if is_first():
            kept[name] = found if found is value else found.cpu()
    return kept


def load_trainable_state(segmenter: nn.Module, state: dict[str, Tensor]) -> None:
    """Put back what :func:`trainable_state` gave.

    Raises:
        UserError: the names or shapes are not the model's.
    """
    own = trainable_state(segmenter)
    wrong = sorted(own.keys() ^ state.keys()) or [name for name in own if own[name].shape != state[name].shape]
    if wrong:
        raise UserError(f"the stored state does not fit the model, beginning with {wrong[:3]}")
    for name, value in own.items():
        value.copy_(placed(state[name], value))


def parameter_counts(segmenter: nn.Module) -> dict[str, int]:
    """Parameters of the backbone that train, of the decoder, and of the whole model."""

    def count(parameters: Iterable[nn.Parameter]) -> int:
        return sum(parameter.numel() for parameter in parameters)

    backbone, decoder = segmenter.get_submodule("backbone"), segmenter.get_submodule("decoder")
    return {
        "backbone_trainable": count(p for p in backbone.parameters() if p.requires_grad),
        "decoder": count(decoder.parameters()),
        "total": count(segmenter.parameters()),
    }
