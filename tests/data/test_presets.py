from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY

from recyclelora.config.compose import ConfigError
from recyclelora.config.run import Config
from recyclelora.data.build import build_augmentation, build_datasets
from recyclelora.data.datasets import FolderDataset
from recyclelora.data.decode_cache import CachedDataset
from recyclelora.data.extra_augmentation import ExtraAugmentation
from recyclelora.data.photometric import Photometric
from recyclelora.data.transforms import Augmentation

MakeConfig = Callable[..., Config]
PUBLISHED = (256, 307, 358, 409, 460, 512, 563, 614, 665, 716, 768, 819, 870, 921, 972, 1024)


def test_the_default_is_the_published_chain_and_nothing_else(make_config: MakeConfig):
    data = make_config("data=gta2city").data
    assert build_augmentation(data) == Augmentation(
        (512, 512), PUBLISHED, 2048, 0.75, 10, 0.5, Photometric(hue_half_open=True), padding="first"
    )
    assert Photometric() == Photometric(32.0, (0.5, 1.5), (0.5, 1.5), 18, 0.5, False)
    assert not ExtraAugmentation(data.augment).active
    assert data.rare_classes.temperature is None and data.decode_cache is None


@pytest.mark.parametrize(
    ("preset", "changed"),
    [
        ("photometric", {"brightness", "contrast", "saturation", "hue", "photometric"}),
        ("style", {"style_jitter", "style_mix"}),
        ("corruption", {"corruption"}),
        ("fourier", {"fourier"}),
        ("classmix", {"class_mix"}),
    ],
)
@pytest.mark.parametrize("pair", ["gta2city", "streets"])
def test_each_preset_changes_its_own_keys(make_config: MakeConfig, preset: str, changed: set[str], pair: str):
    plain = dataclasses.asdict(make_config(f"data={pair}").data.augment)
    other = dataclasses.asdict(make_config(f"data={pair}", f"data/augment={preset}").data.augment)
    assert {name for name in plain if plain[name] != other[name]} == changed
    assert ExtraAugmentation(make_config(f"data/augment={preset}").data.augment).active == (preset != "photometric")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.augment.class_mix=1.2", r"data\.augment\.class_mix=1\.2: must lie in \[0, 1\]"),
        ("data.augment.fourier_beta=0.5", "fourier_beta=0.5: must lie between 0 and 0.5"),
        ("data.augment.corruption_kinds=[blurr]", r"corruption_kinds.*did you mean blur\?"),
        ("data.augment.padding=end", "padding=.end.: must be one of first, last"),
        ("data.augment.max_redraws=-1", "max_redraws=-1: must be a finite number of at least 0"),
        ("data.rare_classes.temperature=0", "rare_classes.temperature=0.*above 0"),
        ("data.decode_cache=0", "data.decode_cache=0.*above 0"),
    ],
)
def test_bad_values_are_refused_by_name(make_config: MakeConfig, override: str, told: str):
    with pytest.raises(ConfigError, match=told):
        make_config(override)


def test_the_decode_cache_stands_before_files_only(gta2city: Path, make_config: MakeConfig):
    opened = build_datasets(make_config("data.decode_cache=0.001", "data.root=" + str(gta2city)).data, str(gta2city))
    assert all(isinstance(dataset, CachedDataset) for dataset in opened.all)
    assert opened.sources[0].cache.max_bytes == 1_000_000
    plain = build_datasets(make_config("data.root=" + str(gta2city)).data, str(gta2city))
    assert all(isinstance(dataset, FolderDataset) for dataset in plain.all)
    for kept, read in zip(opened.all, plain.all, strict=True):
        np.testing.assert_array_equal(kept.load(0).label, read.load(0).label)


def test_a_run_with_every_option(gta2city: Path, make_config: MakeConfig):
    from recyclelora.training.run import Run

    overrides = [
        *TINY, "data.augment.style_jitter=0.5", "data.augment.style_mix=0.5", "data.augment.fourier=0.5",
        "data.augment.class_mix=0.5", "data.augment.corruption=0.5", "data.rare_classes.temperature=0.01",
        "trainer.num_workers=1", "trainer.num_figures=1", "data.augment.padding=last",
        "data.augment.short_edges=[48,64]",
    ]  # fmt: skip
    run = Run.identify(make_config(*overrides, "data.decode_cache=0.1"), None)
    run.execute()
    points = [json.loads(line) for line in (run.directory.path / "metrics.jsonl").read_text().splitlines()]
    assert {"data_wait_share", "data_wait_seconds"} <= points[0].keys()
    assert list((gta2city.parent / "cache/class_counts").glob("*.counts"))
    assert list((gta2city.parent / "cache/decoded").glob("*/*.raw"))
    # a cache changes no result: the same run, which is finished
    assert Run.identify(make_config(*overrides), None).directory.path == run.directory.path
