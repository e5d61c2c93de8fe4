from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fixture_data import make_mapillary
from PIL import Image

from recyclelora.data.datasets import open_dataset
from recyclelora.data.datasets.mapillary import VERSIONS
from recyclelora.system.errors import UserError


def renamed(config: Path, index: int, name: str) -> None:
    content = json.loads(config.read_text())
    content["labels"][index]["name"] = name
    config.write_text(json.dumps(content))


@pytest.mark.parametrize("version", ["v1.2", "v2.0"])
@pytest.mark.parametrize("versioned", [True, False])
def test_both_versions_in_both_layouts(version, versioned, tmp_path: Path):
    make_mapillary(tmp_path, version=version, versioned=versioned)
    dataset = open_dataset("mapillary", "val", root=tmp_path, variant=version)
    stored = np.asarray(Image.open(dataset.items[0].label))
    np.testing.assert_array_equal(dataset.load(0).label, VERSIONS[version].table[stored])
    assert dataset.load(0).image.shape == (81, 121, 3) and dataset.load(1).image.shape == (83, 121, 3)


def test_v12_is_what_published_figures_use(tmp_path: Path):
    make_mapillary(tmp_path, version="v2.0")
    make_mapillary(tmp_path, version="v1.2")
    assert "/v1.2/" in str(open_dataset("mapillary", "val", root=tmp_path).items[0].label)


@pytest.mark.parametrize("version", ["v1.2", "v2.0"])
def test_names_that_disagree_with_the_table_are_refused(version, tmp_path: Path):
    make_mapillary(tmp_path, version=version)
    config = tmp_path / f"mapillary/config_{version}.json"
    renamed(config, 1, "construction--flat--road")
    with pytest.raises(
        UserError, match=rf"config_{version}\.json: label 1 is '.*', where {version} has 'animal--ground"
    ):
        open_dataset("mapillary", "val", root=tmp_path, variant=version)


def test_names_of_one_class_may_change_places(tmp_path: Path):
    make_mapillary(tmp_path, version="v2.0")
    config, names = tmp_path / "mapillary/config_v2.0.json", VERSIONS["v2.0"].names
    renamed(config, 90, names[94])
    renamed(config, 94, names[90])
    assert len(open_dataset("mapillary", "val", root=tmp_path, variant="v2.0")) == 2


def test_the_other_version_or_no_configuration_is_refused(tmp_path: Path):
    make_mapillary(tmp_path, version="v1.2", versioned=False)
    with pytest.raises(UserError, match=r"config\.json: 66 labels, but v2\.0 has 124: another version"):
        open_dataset("mapillary", "val", root=tmp_path, variant="v2.0")
    (tmp_path / "mapillary/config.json").write_text("{}")
    with pytest.raises(UserError, match="not Mapillary's list of labels"):
        open_dataset("mapillary", "val", root=tmp_path)
    (tmp_path / "mapillary/config.json").unlink()
    with pytest.raises(UserError, match=r"v2\.0 needs config_v2\.0\.json"):
        open_dataset("mapillary", "val", root=tmp_path, variant="v2.0")
    assert len(open_dataset("mapillary", "val", root=tmp_path)) == 2


def test_ids_of_the_other_version_are_refused_not_wrapped(tmp_path: Path):
    make_mapillary(tmp_path, version="v2.0", versioned=False)
    (tmp_path / "mapillary/config.json").unlink()
    dataset = open_dataset("mapillary", "val", root=tmp_path, variant="v1.2")
    with pytest.raises(UserError, match=r"label ids \[.*\] are not defined"):
        for index in range(len(dataset)):
            dataset.load(index)
