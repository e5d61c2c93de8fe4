"""Where updates lie among the directions of the data, which the pretrained model is shown once more."""

from __future__ import annotations

import torch
from torch import nn

from recyclelora.adapters.calibration.statistics import GRADIENTS, MOMENTS, of_part, whole_layer
from recyclelora.adapters.changes import changed_layers
from recyclelora.config.build import calibration_pass
from recyclelora.config.run import Config
from recyclelora.models.backbones.timm import TimmBackbone
from recyclelora.models.shown import ShownImages
from recyclelora.reports.analysis.measure import Measured, data_share_rows

TABLE = "data_shares"


def add_data_shares(
    found: Measured, adapted: nn.Module, pretrained: TimmBackbone, config: Config, images: ShownImages,
    device: torch.device,
) -> None:  # fmt: skip
    """Add the table, layer by layer, holding the sums of as many layers as a calibration pass does.

    Args:
        found: what was measured on the weights; the layers are its own.
        adapted: the backbone's model after training.
        pretrained: the backbone as the run found it.
        config: of the run.
        images: see `models.shown.ShownImages`; without labels there are no gradients.
        device: where float64 is computed.

    Raises:
        ValueError: inputs or gradients of a layer are not finite.
    """
    names = dict.fromkeys(whole_layer(row.layer) for row in found.tables.get("size", []))
    what = (MOMENTS, GRADIENTS) if images.labelled else (MOMENTS,)
    model = pretrained.model
    assert isinstance(model, nn.Module)
    with calibration_pass(pretrained, config, images) as calibration:
        for part in calibration.statistics(model, list(names), what):
            for layer in changed_layers(adapted, model, device, only=part):
                data = of_part(part[whole_layer(layer.name)], layer.name, len(layer.weight))
                found.add(TABLE, data_share_rows(layer, data))
