"""Transformers that their own frameworks export to ONNX come back to the last bit."""

import copy
import warnings
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from recyclelora.models.backbones.layouts import own_layout
from recyclelora.models.backbones.onnx_file import read_onnx
from recyclelora.models.backbones.timm import create_backbone
from recyclelora.models.backbones.weights import WeightsFile, WeightsUnreadable, read_weights

SIZE = {"img_size": 32, "patch_size": 16, "embed_dim": 64, "depth": 4, "num_heads": 4}
IMAGES = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def filled(model: nn.Module) -> nn.Module:
    """Random numbers everywhere: exporters let equal tensors share a name."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return model.eval()


def plain(**changes: object) -> nn.Module:
    return filled(timm.models.vision_transformer.VisionTransformer(**SIZE, init_values=1.0, **changes))


def export(model: nn.Module, path: Path, dynamo: bool) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"external_data": False, "verbose": False} if dynamo else {}
        torch.onnx.export(copy.deepcopy(model), (IMAGES,), path, dynamo=dynamo, **options)
    return path


class Inside(nn.Module):
    """A transformer within something larger."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = encoder, filled(nn.Conv2d(64, 3, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.backbone.forward_features(images)[:, 1:]
        return self.head(tokens.transpose(1, 2).unflatten(2, (2, 2)))


@pytest.mark.parametrize(
    ("changes", "dynamo"),
    [
        ({"num_classes": 0}, True),
        pytest.param({"num_classes": 0}, False, marks=pytest.mark.slow),
        pytest.param({"num_classes": 0, "reg_tokens": 4, "no_embed_class": True}, True, marks=pytest.mark.slow),
        pytest.param({"num_classes": 0, "class_token": False, "global_pool": "avg"}, True, marks=pytest.mark.slow),
    ],
)
def test_a_transformer_of_timm_comes_back(tmp_path, changes, dynamo):
    model = plain(**changes)
    found = own_layout(read_onnx(export(model, tmp_path / "vit.onnx", dynamo)))
    expected = model.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.slow
def test_one_inside_a_larger_model_fills_a_backbone(tmp_path):
    model = Inside(plain(num_classes=0))
    weights = read_onnx(export(model, tmp_path / "larger.onnx", True))
    assert not any(name.startswith("head.") for name in weights)
    backbone = create_backbone(
        "vit_tiny_patch16_224", patch_size=16, image_size=(32, 32), levels=None, weights=weights,
        model_args={"embed_dim": 64, "depth": 4, "num_heads": 4, "init_values": 1.0},
    ).eval()  # fmt: skip
    (deepest,) = model.backbone.forward_intermediates(IMAGES, indices=[3], norm=False, intermediates_only=True)
    assert torch.equal(backbone(IMAGES)[-1], deepest)


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [True, False])
def test_a_transformer_of_hugging_face_comes_back(tmp_path, dynamo):
    from transformers import Dinov2Config, Dinov2Model

    options = Dinov2Config(hidden_size=64, num_hidden_layers=4, num_attention_heads=4, image_size=32, patch_size=16)
    model = filled(Dinov2Model(options))
    found = own_layout(read_onnx(export(model, tmp_path / "dino.onnx", dynamo)))
    expected = own_layout({k: v for k, v in model.state_dict().items() if not k.endswith("mask_token")})
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_a_graph_without_one_transformer_is_refused(tmp_path):
    import onnx

    def saved(*kernels: str) -> WeightsFile:
        weights = [onnx.helper.make_tensor(name, 1, (1, 1, 1, 1), [1.0]) for name in kernels]
        nodes = [onnx.helper.make_node("Conv", ["x", name], [f"y{i}"]) for i, name in enumerate(kernels)]
        model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "other", [], [], weights))
        onnx.save(model, tmp_path / "w.onnx")
        return WeightsFile(tmp_path / "w.onnx", "", "checkpoint")

    for kernels in ((), ("conv1.weight",), ("a.patch_embed.proj.weight",)):  # nobody wraps a transformer in ``a.``
        with pytest.raises(WeightsUnreadable, match="holds 0 patch embeddings under the names of timm or Hugging Face"):
            read_weights(saved(*kernels))
    with pytest.raises(WeightsUnreadable, match="holds 2 patch embeddings"):
        read_weights(saved("patch_embed.proj.weight", "teacher.patch_embed.proj.weight"))
