from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import TINY, compose_config, make_cityscapes, make_gta, save_rgb
from fixture_data import make_acdc, make_camvid, make_everything, make_idd_lite, make_own, save_ids16
from omegaconf import OmegaConf
from PIL import Image

from recyclelora.config.compose import ConfigError, load_config, to_yaml, typed
from recyclelora.data.build import build_datasets
from recyclelora.data.classes import distinct_colours
from recyclelora.data.config import DATASETS, DataConfig
from recyclelora.data.datasets import READERS, Corrupted, Subset, digest, seeded_subset
from recyclelora.data.labels import CITYSCAPES_CLASSES, IGNORE
from recyclelora.data.open import describe_datasets, mask_kinds
from recyclelora.data.preparation import scenes_to_render
from recyclelora.evaluation.scores import Scores, result_json
from recyclelora.reports.inspection.writing import inspect_pair
from recyclelora.runs.identity import Identity, signature
from recyclelora.system.errors import UserError
from recyclelora.system.progress import Reporter


@pytest.fixture(scope="module")
def folder_data(tmp_path_factory):
    """``data=folder`` as it is composed, once for all tests here."""
    return compose_config(tmp_path_factory.mktemp("composed"), *TINY, "data=folder")


@pytest.fixture
def own(folder_data, tmp_path):
    """``own(key=value)``: the configuration of ``data=folder`` in ``tmp_path/own`` as if a YAML had given these values.

    Keys are below ``data``, with ``__`` for dots.
    """

    def changed(**values: Any):
        node = OmegaConf.structured(folder_data)
        for key, value in {"folder__root": str(tmp_path / "own"), **values}.items():
            OmegaConf.update(node, "data." + key.replace("__", "."), value, force_add=True)
        return typed(node)

    return changed


def opened(config):
    return build_datasets(config.data, config.cache)


def test_subsets_variants_and_corruptions_are_opened_and_described(make_config, tmp_path):
    make_everything(tmp_path / "data")
    target = "{dataset: acdc, split: val, variant: fog, corruption: {name: fog, severity: 2}}"
    config = make_config(*TINY, "data=gta2acdc", "data.sources.0.subset=4", f"data.targets=[{target}]")
    assert [t.label for t in config.data.targets] == ["acdc_fog_fog2"]
    datasets = opened(config)
    (source,) = datasets.sources
    assert isinstance(source, Subset) and len(source) == 4 and isinstance(datasets.scored["acdc_fog_fog2"], Corrupted)
    first, val, foggy = describe_datasets(config.data, datasets.all)
    assert (first["role"], first["dataset"], first["images"]) == ("source", "gta", 4)
    assert (first["subset"]["of"], first["subset"]["seed"], len(first["subset"]["indices_sha256"])) == (9, 0, 64)
    assert (val["role"], val["subset"], val["labelled"]) == ("source_val", None, True)
    assert (foggy["name"], foggy["variant"], foggy["corruption"]["severity"]) == ("acdc_fog_fog2", "fog", 2)
    config.data.subset_seed = 1
    assert (
        describe_datasets(config.data, opened(config).all)[0]["subset"]["indices_sha256"]
        != (first["subset"]["indices_sha256"])
    )


def test_which_of_cityscapes_masks_are_read_is_chosen_by_the_shipped_pairs_and_recorded(make_config, tmp_path):
    make_gta(tmp_path / "data")
    make_cityscapes(tmp_path / "data", 1)
    config = make_config(*TINY, "data=gta2city")
    assert config.data.cityscapes_labels == "labelTrainIds" and DataConfig().cityscapes_labels == "labelIds"
    assert mask_kinds(opened(config).scored) == {"cityscapes": "labelIds"}
    (ids,) = (tmp_path / "data/cityscapes").rglob("*_labelIds.png")
    save_rgb(ids.with_name(ids.name.replace("labelIds", "labelTrainIds")), np.zeros((96, 192), np.uint8))
    assert mask_kinds(opened(config).scored) == {"cityscapes": "labelTrainIds"}
    assert describe_datasets(config.data, opened(config).all)[-1]["masks"] == "labelTrainIds"
    begun_earlier = replace(config, data=replace(config.data, cityscapes_labels="labelIds"))
    assert mask_kinds(opened(begun_earlier).scored) == {"cityscapes": "labelIds"}
    nothing = Identity(None, "", "", 1)
    assert signature(config, nothing) == signature(begun_earlier, nothing)  # the files that are read tell them apart


def test_everything_that_is_missing_is_listed(make_config):
    with pytest.raises(UserError) as refusal:
        opened(make_config(*TINY, "data=gsu2cbm"))
    for name in ("gta", "synthia", "urbansyn", "cityscapes", "bdd100k", "mapillary"):
        assert f"{name} is not at" in str(refusal.value)


def test_the_classes_that_sources_hold(make_config, tmp_path):
    make_everything(tmp_path / "data")
    names = make_config(*TINY).data.classes.names
    held = opened(make_config(*TINY, "data=synthia2cbm")).source_classes(19)
    assert {names[i] for i in set(range(19)) - held} == {"terrain", "truck", "train"}
    assert opened(make_config(*TINY, "data=gs2cbm")).source_classes(19) is None


def test_a_source_needs_labels(make_config, tmp_path):
    make_gta(tmp_path / "data")
    make_acdc(tmp_path / "data", split="test")
    source = "data.sources=[{dataset: acdc, split: test}]"
    with pytest.raises(UserError, match="acdc has no masks in the split 'test', so that it can only be a target"):
        opened(make_config(*TINY, "data=gta2acdc", source, "data.targets=[{dataset: gta, split: val}]"))


def test_a_corrupted_street_is_rendered_once_before_training(make_config):
    target = "{dataset: streets, split: fog, subset: 2, corruption: {name: snow}}"
    config = make_config(*TINY, "data=streets", f"data.targets=[{target}]")
    dataset = opened(config).scored["streets_snow3"]
    assert len(scenes_to_render([dataset])) == 2


# --- own folders ------------------------------------------------------------------------------------------------------


def test_ids_by_name_number_and_ignore(own, tmp_path):
    make_own(tmp_path / "own", [300, 7, 9], save_ids16)
    classes = {"names": ["street", "house"], "colours": []}
    datasets = opened(own(classes=classes, folder__coding__ids={300: "street", 7: 1, 9: "ignore"}))
    label = datasets.sources[0].load(0).label
    assert set(np.unique(label)) == {0, 1, IGNORE}
    assert list(datasets.scored) == ["source_val", "test"]


def test_the_users_ignore_id_is_255_inside(own, tmp_path):
    make_own(tmp_path / "own", [0, 1, 200], save_ids16)
    datasets = opened(own(classes={"names": ["a", "b"], "colours": [], "ignore_index": 200}))
    assert set(np.unique(datasets.sources[0].load(0).label)) == {0, 1, IGNORE}


def test_masks_in_the_colours_of_the_classes_and_others(own, tmp_path):
    palette = np.array([[128, 64, 128], [70, 70, 70], [0, 0, 0], [1, 1, 1]], np.uint8)
    make_own(tmp_path / "own", [0, 1, 2, 3], lambda path, ids: save_rgb(path, palette[ids]))
    coding = {"kind": "colours", "colours": {"#000000": "ignore", "1,1,1": "sky"}}
    label = opened(own(folder__coding=coding)).sources[0].load(0).label
    assert set(np.unique(label)) == {0, 2, 10, IGNORE}
    classes = {"names": ["road", "sky"], "colours": [[128, 64, 128], [70, 70, 70]]}
    assert set(np.unique(opened(own(folder__coding=coding, classes=classes)).sources[0].load(0).label)) == {
        0,
        1,
        IGNORE,
    }


def test_a_split_may_be_coded_differently(own, tmp_path):
    make_own(tmp_path / "own", [0, 1], save_ids16, splits=["train", "val"])
    make_own(tmp_path / "own", [50, 60], save_ids16, splits=["test"])
    datasets = opened(own(folder__splits__test__coding={"ids": {50: "road", 60: "car"}}))
    assert set(np.unique(datasets.scored["test"].load(0).label)) == {0, 13}
    assert datasets.source_classes(19) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"folder": None}, ["data.folder", "conf/data/folder.yaml"]),
        ({"source_val__split": "dev"}, ["data.folder.splits", "no split 'dev'", "train, val, test"]),
        ({"folder__splits__val__masks": "masks/*/*.png"}, ["data.folder.splits.val.masks", "same wildcards"]),
        ({"folder__splits__val__images": "/etc/*"}, ["data.folder.splits.val.images", "below data.folder.root"]),
        ({"folder__coding__kind": "rgb"}, ["data.folder.coding.kind", "ids, colours"]),
        ({"folder__coding__others": "skip"}, ["data.folder.coding.others", "refuse, ignore"]),
        ({"folder__coding__ids": {7: "raod"}}, ["data.folder.coding.ids", "'raod' is no class"]),
        ({"folder__coding__ids": {7: 19}}, ["data.folder.coding.ids", "19 is no class"]),
        ({"folder__coding__ids": {70000: "road"}}, ["data.folder.coding.ids", "0 to 65535"]),
        ({"folder__coding__colours": {"#12": "road"}}, ["data.folder.coding.colours", "#rrggbb"]),
        ({"folder__coding__colours": {"1,2,256": "road"}}, ["data.folder.coding.colours", "#rrggbb"]),
        ({"source_val__corruption": {"name": "jpg_compression"}}, ["corruption.name", "did you mean jpeg_compression"]),
        ({"source_val__corruption": {"name": "fog", "severity": 9}}, ["corruption.severity=9", "between 1 and 5"]),
        ({"source_val__name": "../x"}, ["data.source_val.name", "letters"]),
        ({"protocol__fit": {"mapillary": [9, 3]}}, ["data.protocol.fit.mapillary", "short edge, long edge"]),
        ({"protocol__sizes": {"mapillary": [3, 9]}}, ["data.protocol.fit.mapillary", "beside sizes"]),
        ({"classes__names": ["a"]}, ["data.classes.names", "2 to 254"]),
        ({"classes__names": ["a", "b", "c"]}, ["data.classes.colours", "3 names; [] has them made"]),
    ],
)
def test_mistakes_are_refused_by_key(own, values, words):
    with pytest.raises(ConfigError) as refusal:
        own(**values)
    for word in words:
        assert word in str(refusal.value)


def test_made_colours_are_different_and_never_black():
    for count in (2, 40, 254):
        colours = {tuple(colour) for colour in distinct_colours(count)}
        assert len(colours) == count and (0, 0, 0) not in colours


def test_the_16_classes_of_synthia_by_hand():
    iou = [0.5] * 19
    iou[9], iou[14], iou[16] = 0.0, 0.0, None
    scores = {"last": Scores(1, {"source_val": [0.25] * 19, "city": iou})}
    held = set(range(19)) - {9, 14, 16}
    result = result_json(scores, "source_val", [str(i) for i in range(19)], {}, held)
    assert result["miou"]["targets"]["city"] == pytest.approx(8 / 18)
    assert result["miou"]["source_classes"] == {"targets": {"city": 0.5}, "mean": 0.5, "source_val": 0.25}
    assert len(result["source_classes"]) == 16 and "9" not in result["source_classes"]
    assert "source_classes" not in result_json(scores, "source_val", ["a"] * 19, {})["miou"]


def test_a_density_may_be_written_as_a_number(own):
    config = own(source_val={"dataset": "foggy_cityscapes", "split": "val", "variant": 0.02})
    assert config.data.source_val.variant == "0.02" and config.data.source_val.label == "foggy_cityscapes_0.02"


def test_a_file_name_that_is_no_utf_8_is_data_like_any_other(own, tmp_path):
    root = make_own(tmp_path / "own", [0, 1], save_ids16)
    for folder, suffix in (("images", "jpg"), ("masks", "png")):
        (root / folder / f"train/001.{suffix}").rename(root / folder / f"train/stra\udcdfe.{suffix}")
    config = own(decode_cache=1.0, source_val__corruption={"name": "fog"})
    config.cache = str(tmp_path / "cache")
    source = opened(config).sources[0]
    assert len(digest([source])) == 64
    names = [source.load(index).name for index in range(3) for _ in range(2)]  # decoded, and from the cache
    assert set(names) == {"images/train/000.jpg", "images/train/002.jpg", "images/train/stra\\xdfe.jpg"}
    (root / "masks/train/000.png").write_bytes(b"")
    (root / "masks/train/002.png").rename(root / "masks/train/\udcff.png")
    with pytest.raises(UserError):
        inspect_pair(config.data, config.cache, tmp_path / "out", 0, Reporter(enabled=False))
    report = json.loads((tmp_path / "out/inspect/folder/report.json").read_text())
    kinds = {(d["kind"], d["file"]) for d in report["defects"]}
    assert ("not used: masks without an image", "masks/train/\\xff.png") in kinds
    assert ("unreadable mask", "masks/train/000.png") in kinds
    assert len((tmp_path / "out/inspect/folder/index.html").read_text()) > 1000


# --- class lists and protocols that fit the datasets ------------------------------------------------------------------


def test_a_class_list_of_ones_own_is_read_by_name(make_config, tmp_path):
    make_everything(tmp_path / "data")
    classes = ["data.classes.names=[car,road,sky]", "data.classes.colours=[]"]
    for pair in ("gta2city", "synthia2cbm", "streets"):
        sources = [opened(make_config(*TINY, f"data={pair}", *more)).sources[0] for more in ([], classes)]
        whole, chosen = (source.load(0).label for source in sources)
        expected = np.full(whole.shape, IGNORE, np.uint8)
        for own, cityscapes in enumerate((13, 0, 10)):
            expected[whole == cityscapes] = own
        np.testing.assert_array_equal(chosen, expected)
        assert sources[1].classes == {0, 1, 2} and len(set(np.unique(chosen))) > 2
        assert digest([sources[0]]) != digest([sources[1]])  # version 0.1.0 read them by number


def test_classes_beside_a_users_own(own, tmp_path):
    make_gta(tmp_path / "data")
    make_own(tmp_path / "own", [0, 1], save_ids16)
    sources = [{"dataset": "folder", "split": "train"}, {"dataset": "gta", "split": "train"}]
    config = own(root=str(tmp_path / "data"), sources=sources, classes={"names": ["crane", "sky"], "colours": []})
    mine, gta = opened(config).sources
    assert mine.classes == {0, 1} and gta.classes == {1}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("[road,sidewalk,buildings]", ["'buildings'", "did you mean building", "streets have no class"]),
        ("[ground,plant]", ["no class 'ground', 'plant'"]),
        (str([*CITYSCAPES_CLASSES[1:], "road"]).replace("'", ""), ["in another order"]),
    ],
)
def test_names_that_no_dataset_has_are_refused_while_composing(make_config, names, words):
    with pytest.raises(ConfigError) as refusal:
        make_config(*TINY, "data=streets", f"data.classes.names={names}", "data.classes.colours=[]")
    for word in ["data.classes.names", *words]:
        assert word in str(refusal.value)


def test_the_known_names_are_those_of_the_files_and_readers(make_config):
    assert tuple(make_config(*TINY).data.classes.names) == CITYSCAPES_CLASSES
    assert set(DATASETS) == {*READERS, "streets", "folder"} and list(DATASETS) == sorted(DATASETS)


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ({"half": ["mapilary"]}, ["data.protocol.half", "'mapilary' is no dataset and no target", "mean mapillary"]),
        ({"sizes": {"city": [512, 1024]}}, ["data.protocol.sizes", "'city' is no dataset"]),
        ({"fit": {"tests": [512, 1024]}}, ["data.protocol.fit", "mean test"]),
        ({"sizes": {"gta": [512, 1024]}}, ["data.protocol.sizes", "'gta' is a dataset and the name of a target"]),
    ],
)
def test_names_that_a_protocol_would_ignore_are_refused(own, protocol, words):
    targets = [
        {"dataset": "folder", "split": "test", "name": "test"},
        {"dataset": "folder", "split": "val", "name": "gta"},
    ]
    with pytest.raises(ConfigError) as refusal:
        own(targets=targets, protocol={"name": "mine", "half": [], "fit": {}, "sizes": {}} | protocol)
    for word in words:
        assert word in str(refusal.value)


def test_a_run_of_an_earlier_version_is_read_whatever_it_names(own, tmp_path):
    config = own()
    config.data.protocol.half = ["mapilary"]
    config.data.classes.names = [*CITYSCAPES_CLASSES[1:], "road"]
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "config.yaml").data.protocol.half == ["mapilary"]


def test_a_protocol_knows_targets_of_one_dataset_apart(own, tmp_path):
    make_own(tmp_path / "own", [0, 1], save_ids16)
    targets = [{"dataset": "folder", "split": split, "name": split} for split in ("test", "train")]
    config = own(targets=targets, protocol={"name": "mine", "half": ["test"], "sizes": {"source_val": [24, 24]}})
    protocol = config.data.protocol
    scored = opened(config).scored
    size = {name: protocol.prepared(dataset).load(0).label.shape for name, dataset in scored.items()}
    assert size == {"source_val": (48, 96), "test": (24, 48), "train": (48, 96)}
    shown = {name: protocol.shown_size(protocol.key(dataset), (48, 96)) for name, dataset in scored.items()}
    assert shown == {"source_val": (24, 24), "test": (48, 96), "train": (48, 96)}
    whole = replace(config.data.protocol, half=["folder"])
    assert whole.prepared(seeded_subset(scored["train"], 1, 0)).load(0).label.shape == (24, 48)


def test_pairs_of_photographs_meet_in_the_classes_of_the_pair(make_config, tmp_path):
    make_camvid(tmp_path / "data")
    make_idd_lite(tmp_path / "data", split="train")
    make_idd_lite(tmp_path / "data")
    dusk = opened(make_config("data=camvid_dusk", "backbone=vit_tiny_test", "decoder=linear"))
    assert [len(d) for d in dusk.sources] == [1, 2]
    assert {name: len(d) for name, d in dusk.scored.items()} == {"source_val": 2, "dusk": 3, "other_town": 1}
    config = make_config("data=idd2camvid", "backbone=vit_tiny_test", "decoder=linear")
    pair = opened(config)
    target = pair.scored["dusk"]
    assert target.classes == frozenset(range(7))
    own = np.asarray(Image.open(target.items[0].label))
    to = [6, 5, 4, 0, 1, 5, 4, 4, 3, 2, 2, IGNORE]  # sky, building, pole, ... of CamVid in IDD-Lite's order
    np.testing.assert_array_equal(target.load(0).label, np.array(to)[own])


def test_a_class_that_holds_an_absent_one_and_another_is_there(make_config, tmp_path):
    make_everything(tmp_path / "data")
    green = [
        "data.classes.names=[road,green]",
        "data.classes.colours=[]",
        "+data.classes.contains.green=[vegetation,terrain]",
    ]
    source = opened(make_config(*TINY, "data=synthia2cbm", *green)).sources[0]
    assert source.classes == {0, 1}
    only = ["data.classes.names=[road,terrain]", "data.classes.colours=[]"]
    assert opened(make_config(*TINY, "data=synthia2cbm", *only)).sources[0].classes == {0}


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ("names=[road,sign]", "have no class 'sign'"),
        ("contains.cars=[car]", "'cars' is no class.*did you mean car"),
        ("contains.road=[sidewalk]", "'sidewalk' is a class of its own"),
        ("contains.road=[kerb]", "have no class 'kerb'"),
    ],
)
def test_classes_that_no_dataset_has_are_refused(make_config, classes, told):
    with pytest.raises(ConfigError, match=told):
        make_config(*TINY, "data=gta2city", f"++data.classes.{classes}", "data.classes.colours=[]")
