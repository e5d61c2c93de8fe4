"""The images that an adapter looks at, in a run: which they are, that they are part of it, and that it resumes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import TINY, save_rgb

import recyclelora
from recyclelora.config.build import build_model
from recyclelora.config.compose import ConfigError
from recyclelora.data.build import build_datasets
from recyclelora.runs.identity import Identity, signature
from recyclelora.system.errors import UserError
from recyclelora.training.calibration import CalibrationImages
from recyclelora.training.run import Run

from .test_method_runs import PLAIN, stopped_and_resumed

DATA = [*TINY, "adapter=recyclelora_data", "adapter.calibration.images=3"]


ONE_BRANCH = [option for option in TINY if not option.startswith("adapter.sub")]


def images_of(config) -> CalibrationImages | None:
    return CalibrationImages.of(config, build_datasets(config.data, config.cache))


def sign(config) -> str:
    return signature(config, Identity(None, "", "32-true", 1, None, images_of(config).digest))


def test_a_run_says_what_it_looked_at_and_resumes_bit_for_bit(make_config, gta2city, tmp_path, monkeypatch):
    options = ["adapter=eva", "adapter.main.rank=4", "adapter.calibration.images=3"]
    path = stopped_and_resumed(make_config, tmp_path, monkeypatch, options, (3,))
    about = json.loads((path / "run.json").read_text())
    assert about["calibration"] == {
        "images": 3,
        "of": ["gta"],
        "crop": [64, 64],
        "digest": about["calibration"]["digest"],
    }
    assert "calibration: looking at 3 crops of gta" in (path / "train.log").read_text()
    again = make_config(
        *PLAIN, *options, "trainer.max_steps=8", "trainer.eval_every=8", f"output_dir={tmp_path}/parted"
    )
    assert Run.identify(again, None).directory.path == path
    recyclelora.load(path)  # which has no images, and needs none


def test_images_are_part_of_which_run_it_is_and_unused_ones_are_not(make_config, gta2city):
    first = make_config(*DATA)
    others = ["adapter.calibration.images=4", "adapter.calibration.seed=1"]
    assert len({sign(first), *(sign(make_config(*DATA, other)) for other in others)}) == 3
    nothing = Identity(None, "", "32-true", 1)
    plain, unused = make_config(*TINY), make_config(*TINY, "adapter.calibration.images=4")
    assert signature(plain, nothing) == signature(unused, nothing) and images_of(unused) is None
    assert "calibration" not in nothing.as_dict()


def test_a_folder_of_photographs_counts_by_what_is_in_it(make_config, gta2city, tmp_path):
    photos = tmp_path / "photos"
    for index in range(3):
        image = torch.randint(0, 256, (80, 100, 3), generator=torch.Generator().manual_seed(index))
        save_rgb(photos / f"{index}.JPG", image.numpy().astype("uint8"))
    config = make_config(*DATA, f"adapter.calibration.folder={photos}")
    shutil.copytree(photos, tmp_path / "moved")
    assert sign(config) == sign(make_config(*DATA, f"adapter.calibration.folder={tmp_path / 'moved'}"))
    (tmp_path / "moved/2.JPG").unlink()
    assert sign(config) != sign(make_config(*DATA, f"adapter.calibration.folder={tmp_path / 'moved'}"))
    assert images_of(config).describe()["of"] == ["calibration"]
    build_model(config, None, images=images_of(config).on("cpu"))


def test_targets_are_never_looked_at(make_config, gta2city, tmp_path):
    targets = tmp_path / "data/cityscapes/leftImg8bit"
    with pytest.raises(UserError, match=r"adapter\.calibration\.folder=.*holds images of cityscapes.*scored"):
        images_of(make_config(*DATA, f"adapter.calibration.folder={targets}"))
    for folder, words in ((tmp_path / "none", "no such folder"), (tmp_path / "outputs", "no image in it")):
        (tmp_path / "outputs").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=words):
            Run.identify(make_config(*DATA, f"adapter.calibration.folder={folder}"), None)
    with pytest.raises(ConfigError, match=r"adapter\.calibration\.folder=.*gradients need labels"):
        make_config(*ONE_BRANCH, "adapter=lora_ga", "adapter.calibration.folder=photos")


@pytest.mark.parametrize("adapter", ["recyclelora_data", "lora_ga"])
def test_precision_and_seed_leave_the_start_as_it_is_and_images_do_not(make_config, gta2city, adapter):
    options = [*ONE_BRANCH, f"adapter={adapter}"]

    def start(precision: str = "32-true", **changes: object) -> dict[str, torch.Tensor]:
        config = make_config(*options)
        config.adapter.calibration = replace(config.adapter.calibration, images=3, **changes)
        torch.manual_seed(0)
        return build_model(config, None, precision=precision, images=images_of(config).on("cpu")).initial()

    first, mixed, other = start(), start("bf16-mixed"), start(seed=1)
    assert all(torch.equal(value, mixed[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


def test_the_decoder_is_the_one_that_training_begins_with(make_config, gta2city):
    """The gradient's decoder is built beside the run's own, whose random numbers it must not take."""
    config = make_config(*ONE_BRANCH, "adapter=lora_ga", "adapter.calibration.images=2")
    torch.manual_seed(0)
    looked = build_model(config, None, images=images_of(config).on("cpu"))
    config = make_config(*TINY)
    torch.manual_seed(0)
    plain = build_model(config, None)
    for name, value in plain.segmenter.decoder.state_dict().items():
        assert torch.equal(value, looked.segmenter.decoder.state_dict()[name]), name
