"""How far a run has moved the weights of its backbone."""

from __future__ import annotations

import torch
from torch import nn

from recyclelora.adapters.changes import movement
from recyclelora.config.build import build_backbone
from recyclelora.config.run import Config
from recyclelora.models.backbones.weights import WeightsFile
from recyclelora.system.devices import exact_device


@torch.no_grad()
def backbone_movement(config: Config, weights: WeightsFile | None, adapted: nn.Module) -> float | None:
    """See `adapters.changes.movement`: of an adapted backbone's model, against the one that its run started from.

    Raises:
        WeightsUnreadable: the file of the weights is no longer what it was.
    """
    exact = exact_device(next(adapted.parameters()).device)
    pretrained = build_backbone(config, weights).model
    assert isinstance(pretrained, nn.Module)
    return movement(adapted, pretrained, exact)
