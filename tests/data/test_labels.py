from __future__ import annotations

import numpy as np
import pytest

from recyclelora.data import labels
from recyclelora.data.datasets.mapillary import VERSIONS
from recyclelora.data.labels import (
    CITYSCAPES_IDS,
    CITYSCAPES_KNOWN,
    IGNORE,
    SYNTHIA_ABSENT,
    SYNTHIA_IDS,
    SYNTHIA_KNOWN,
    UNKNOWN,
    URBANSYN_KNOWN,
    explicit_table,
    identity_table,
    lookup_table,
    table_classes,
)

NAMES = ["road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
         "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]  # fmt: skip

# The datasets' own names by id, written down here a second time and independently of the tables.
CITYSCAPES = """unlabeled;ego vehicle;rectification border;out of roi;static;dynamic;ground;road;sidewalk;parking;
rail track;building;wall;fence;guard rail;bridge;tunnel;pole;polegroup;traffic light;traffic sign;vegetation;terrain;
sky;person;rider;car;truck;bus;caravan;trailer;train;motorcycle;bicycle;license plate""".replace("\n", "").split(";")
SYNTHIA = """void;sky;building;road;sidewalk;fence;vegetation;pole;car;traffic sign;person;bicycle;motorcycle;
parking-slot;road-work;traffic light;terrain;rider;truck;bus;train;wall;lanemarking""".replace("\n", "").split(";")

MAPILLARY_CLASSES = {
    "road": ["construction--flat--bike-lane", "construction--flat--crosswalk-plain", "construction--flat--parking",
             "construction--flat--parking-aisle", "construction--flat--road", "construction--flat--service-lane"],
    "sidewalk": ["construction--barrier--curb", "construction--flat--curb-cut", "construction--flat--pedestrian-area",
                 "construction--flat--sidewalk"],
    "building": ["construction--structure--building"],
    "wall": ["construction--barrier--wall"],
    "fence": ["construction--barrier--fence"],
    "pole": ["object--street-light", "object--support--pole", "object--support--pole-group",
             "object--support--utility-pole"],
    "traffic sign": ["object--support--traffic-sign-frame", "object--sign--back"],
    "vegetation": ["nature--vegetation"],
    "terrain": ["nature--terrain"],
    "sky": ["nature--sky"],
    "person": ["human--person", "human--person--individual"],
    "rider": ["human--rider--bicyclist", "human--rider--motorcyclist", "human--rider--other-rider"],
    "car": ["object--vehicle--car"],
    "truck": ["object--vehicle--truck"],
    "bus": ["object--vehicle--bus"],
    "train": ["object--vehicle--on-rails"],
    "motorcycle": ["object--vehicle--motorcycle"],
    "bicycle": ["object--vehicle--bicycle"],
}  # fmt: skip
MAPILLARY_FAMILIES = {
    "marking": "road",
    "object--traffic-light": "traffic light",
    "object--traffic-sign": "traffic sign",
}


def by_name(names: list[str], table: np.ndarray) -> dict[str, str]:
    """Stored name -> name of its train id, of all that have one."""
    return {name: NAMES[table[index]] for index, name in enumerate(names) if table[index] < UNKNOWN}


def test_cityscapes_maps_every_evaluated_class_to_its_own_name():
    table = lookup_table(CITYSCAPES_IDS, CITYSCAPES_KNOWN)
    assert by_name(CITYSCAPES, table) == {name: name for name in NAMES}
    assert len(CITYSCAPES) == CITYSCAPES_KNOWN and (table[CITYSCAPES_KNOWN:255] == UNKNOWN).all()


def test_synthia_maps_names_and_knows_its_16_classes():
    table = lookup_table(SYNTHIA_IDS, SYNTHIA_KNOWN, size=1 << 16)
    assert by_name(SYNTHIA, table) == {name: name for name in NAMES}
    assert [int(table[i]) for i in (0, 13, 14, 22)] == [IGNORE] * 4
    assert len(SYNTHIA) == SYNTHIA_KNOWN
    assert {NAMES[i] for i in SYNTHIA_ABSENT} == {"terrain", "truck", "train"}
    assert table[256 + 3] == UNKNOWN  # not wrapped to road


def test_urbansyn_stores_train_ids_and_void():
    table = identity_table(19, URBANSYN_KNOWN)
    assert table[:20].tolist() == [*range(19), IGNORE]
    assert table[20] == UNKNOWN


@pytest.mark.parametrize("version", ["v1.2", "v2.0"])
def test_mapillary_maps_the_right_names(version):
    names = VERSIONS[version].names
    assert len(names) == len(set(names)) == {"v1.2": 66, "v2.0": 124}[version]
    expected = {name: train for train, members in MAPILLARY_CLASSES.items() for name in members if name in names}
    expected |= {n: train for n in names for family, train in MAPILLARY_FAMILIES.items() if n.startswith(family)}
    assert by_name(names, VERSIONS[version].table) == expected
    assert set(expected.values()) == set(NAMES)


def test_what_published_converters_get_wrong_in_mapillary_v2():
    table = VERSIONS["v2.0"].table
    trains = by_name(VERSIONS["v2.0"].names, table)
    assert "object--parking-meter" not in trains
    assert trains["object--traffic-light--cyclists"] == trains["object--traffic-light--pedestrians"] == "traffic light"
    assert (table[124:255] == UNKNOWN).all()


def test_a_users_table():
    table = explicit_table({300: 0, 7: 1}, 2, {255}, ignore_others=False)
    assert [int(table[i]) for i in (300, 7, 255, 44, 65535)] == [0, 1, IGNORE, UNKNOWN, UNKNOWN]
    assert explicit_table({300: 0}, 2, {255}, ignore_others=True)[44] == IGNORE  # 300 - 256
    assert explicit_table({}, 3, {9}, ignore_others=False)[[0, 1, 2, 3, 9]].tolist() == [0, 1, 2, UNKNOWN, IGNORE]
    assert explicit_table({255: 1, 0: 0}, 2, {255}, ignore_others=False)[255] == 1  # masks of 0 and 255
    assert table_classes(table) == {0, 1}


def test_datasets_of_other_classes_meet_by_name_and_by_what_a_class_contains():
    names = ["road", "vehicles", "green"]
    contains = {"vehicles": ["car", "truck", "bicyclist"], "green": ["vegetation", "terrain"]}
    city = labels.by_name(names, labels.CITYSCAPES_CLASSES, contains)
    assert {labels.CITYSCAPES_CLASSES[own]: to for own, to in enumerate(city) if to != 255} == {
        "road": 0, "car": 1, "truck": 1, "vegetation": 2, "terrain": 2,
    }  # fmt: skip
    camvid = labels.by_name(names, labels.CAMVID_CLASSES, contains)
    assert {labels.CAMVID_CLASSES[own]: to for own, to in enumerate(camvid) if to != 255} == {
        "road": 0, "car": 1, "bicyclist": 1, "vegetation": 2,
    }  # fmt: skip
    assert labels.by_name(labels.CAMVID_CLASSES, labels.CAMVID_CLASSES) is None
    assert labels.by_name([*labels.CITYSCAPES_CLASSES, "more"]) is None
    assert labels.by_name(labels.CITYSCAPES_CLASSES, contains={"road": ["sidewalk"]})[1] == 0
