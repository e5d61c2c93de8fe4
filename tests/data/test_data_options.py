"""Every ``data=`` option trains and is scored, and a user's own data reach everything a run leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml
from conftest import TINY, compose_config, save_rgb
from fixture_data import make_everything, make_own, save_ids16
from PIL import Image

import recyclelora
from recyclelora.config.commands import ReportConfig
from recyclelora.config.compose import home
from recyclelora.reports.writing import write_report
from recyclelora.system.progress import Reporter
from recyclelora.training.run import Run

SCHEMA = json.loads((Path(recyclelora.__file__).parent / "runs/result.schema.json").read_text())
PAIRS = sorted(path.stem for path in (home() / "conf/data").glob("*.yaml"))
QUICKLY = ("gta2cbm", "synthia2cbm", "camvid_dusk", "folder", "streets")
"""With every reader but those of single targets, which `data.datasets.test_readers` reads."""
QUICK = [*TINY, "trainer.max_steps=2", "trainer.eval_every=2",
         "++data.protocol.fit.mapillary=[64,128]"]  # fmt: skip
SMALL = {
    "streets": ["data.sources.0.subset=4", "data.source_val.subset=1", "data.augment.crop=[64,64]",
                "data.targets=[{dataset: streets, split: night, name: night, subset: 1}]"],
    "folder": ["data.folder.coding.others=ignore"],
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = make_everything(tmp_path_factory.mktemp("everything"))
    make_own(root / "folder", range(19), lambda path, ids: save_rgb(path, ids.astype(np.uint8)))
    return root


def execute(config) -> tuple[Path, dict]:
    Run.identify(config, None).execute()
    (path,) = (Path(config.output_dir) / "runs").iterdir()
    result = json.loads((path / "result.json").read_text())
    jsonschema.validate(result, SCHEMA)
    return path, result


@pytest.mark.parametrize("pair", [p if p in QUICKLY else pytest.param(p, marks=pytest.mark.slow) for p in PAIRS])
def test_every_pair_trains_and_is_scored(pair, data, tmp_path):
    config = compose_config(tmp_path, f"data={pair}", *QUICK, f"data.root={data}", *SMALL.get(pair, []))
    path, result = execute(config)
    assert set(result["miou"]["targets"]) == {target.label for target in config.data.targets}
    assert None not in result["miou"]["targets"].values()
    assert result["protocol_settings"]["name"] == result["protocol"] == config.data.protocol.name
    about = json.loads((path / "run.json").read_text())["datasets"]
    assert [d["role"] for d in about].count("source") == len(config.data.sources)
    assert all(d["images"] > 0 and d["labelled"] for d in about)
    if pair == "synthia2cbm":
        restricted = result["miou"]["source_classes"]
        assert len(result["source_classes"]) == 16 and restricted["targets"].keys() == result["miou"]["targets"].keys()
        assert "mean of targets, 16 source classes" in (path / "train.log").read_text()
    else:
        assert result["source_classes"] is None


def own_conf(folder: Path, name: str, values: dict) -> Path:
    """A user's ``--config-dir`` with one option for the group ``data``, which starts from ``folder``."""
    (folder / "data").mkdir(parents=True)
    text = yaml.safe_dump({"defaults": ["folder", "_self_"], "name": name, **values}, sort_keys=False)
    (folder / "data" / f"{name}.yaml").write_text(text)
    return folder


@pytest.mark.parametrize("count", [2, 40])
def test_own_classes_reach_everything_a_run_leaves(count, tmp_path):
    """40 classes as 16-bit ids, two as colours; the target has no masks."""
    names = [f"thing {index}" for index in range(count)]
    colours = [[60, 9, 200], [0, 90, 33]] if count == 2 else []
    stored = {1000 + 7 * index: name for index, name in enumerate(names)} | {0: "ignore"}
    palette = np.array([*colours, [255, 255, 255]], np.uint8)
    save = save_ids16 if count == 40 else lambda path, ids: save_rgb(path, palette[ids])
    make_own(tmp_path / "mine", [*stored] if count == 40 else [0, 1, 2], save, unlabelled=["test"])
    coding = {"ids": stored} if count == 40 else {"kind": "colours", "colours": {"#ffffff": "ignore"}}
    conf = own_conf(tmp_path / "conf", "mine", {
        "classes": {"names": names, "colours": colours},
        "folder": {"root": str(tmp_path / "mine"), "splits": {"test": {"masks": None}}, "coding": coding},
        "targets": [{"dataset": "folder", "split": "test", "name": "new"},
                    {"dataset": "folder", "split": "val", "name": "known"}],
    })  # fmt: skip
    options = [f"hydra.searchpath=[file://{conf}]", "data=mine", *QUICK, "trainer.num_figures=1"]
    path, result = execute(compose_config(tmp_path, *options))
    assert result["classes"] == names
    assert {len(row) for row in result["iou_per_class"].values()} == {count}
    assert result["miou"]["targets"]["new"] is None and result["miou"]["targets"]["known"] is not None
    assert result["miou"]["mean"] == result["miou"]["targets"]["known"]  # of those that are scored
    for index in range(3):
        ids = np.asarray(Image.open(path / f"predictions/new/ids/images/test/{index:03d}.png"))
        assert ids.shape == (48, 96) and ids.max() < count
        assert (path / f"predictions/new/overlays/images/test/{index:03d}.png").is_file()
    assert not (path / "predictions/known").exists()
    assert "new has no labels and is not scored" in (path / "train.log").read_text()
    assert {p.name for p in (path / "figures").iterdir()} >= {"predictions_new.png", "predictions_known.png"}
    adapter = json.loads((path / "adapter_config.json").read_text())
    assert adapter["classes"] == names
    weights = recyclelora.load(path, accelerator="cpu")
    assert list(weights.classes.names) == names and len(weights.classes.colours) == count
    assert (count,) in {tuple(p.shape) for p in weights.segmenter.decoder.parameters()}


def test_a_run_whose_targets_have_no_labels_at_all(tmp_path):
    make_own(tmp_path / "data/folder", range(19), lambda p, ids: save_rgb(p, ids.astype(np.uint8)), unlabelled=["test"])
    path, result = execute(compose_config(tmp_path, "data=folder", *QUICK, "data.folder.splits.test.masks=null"))
    assert result["miou"]["targets"] == {"test": None} and result["miou"]["mean"] is None
    assert result["miou"]["source_val"] is not None and set(result["selection"]) == {"last", "best_source"}
    assert len(list((path / "predictions/test/ids").rglob("*.png"))) == 3


def test_own_data_may_move(tmp_path):
    make_own(tmp_path / "a", range(19), lambda path, ids: save_rgb(path, ids.astype(np.uint8)))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first, second = (
        Run.identify(compose_config(tmp_path, "data=folder", *QUICK, f"data.folder.root={tmp_path / name}"), None)
        for name in ("a", "b")
    )
    assert first.signature == second.signature


def test_train_and_validation_without_targets_speak_of_none(tmp_path):
    make_own(
        tmp_path / "mine", range(3), lambda path, ids: save_rgb(path, ids.astype(np.uint8)), splits=["all"], count=10
    )
    where = {"images": "images/all/*.jpg", "masks": "masks/all/*.png"}
    conf = own_conf(tmp_path / "conf", "yard", {
        "classes": {"names": ["a", "b", "c"], "colours": []},
        "folder": {"root": str(tmp_path / "mine"),
                   "splits": {"train": {**where, "share": 0.7}, "val": {**where, "share": 0.3}}},
        "targets": [],
    })  # fmt: skip
    losses = ["decoder.loss.dice=0.5", "decoder.loss.balance=median", "+decoder.loss.class_weights={b: 2.0}"]
    options = [f"hydra.searchpath=[file://{conf}]", "data=yard", *QUICK, "trainer.num_figures=1", *losses]
    config = compose_config(tmp_path, *options, "trainer.max_steps=100", "trainer.epochs=2", "trainer.batch_size=2")
    path, result = execute(config)
    assert result["steps"] == 7  # 2 x 7 images in batches of 2
    assert result["miou"]["targets"] == {} and result["miou"]["source_val"] is not None
    about = json.loads((path / "run.json").read_text())["datasets"]
    assert [(d["role"], d["name"], d["images"]) for d in about] == [("source", "yard", 7), ("source_val", "yard", 3)]
    log = (path / "train.log").read_text()
    assert "target" not in log and "validation" in log and "7 steps of 2, 2.0 times through 7 images" in log
    logged = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert any({"loss_ce", "loss_dice"} <= {key.rpartition("/")[2] for key in point} for point in logged)
    report = write_report(ReportConfig(runs=[str(path)], output=str(tmp_path / "report"), resamples=10), Reporter())
    for name in ("table.md", "table.csv", "table.tex"):
        told = (report / name).read_text().replace("tuned_on_targets", "").replace("target_mean", "")
        assert "target" not in told.lower(), name
    assert "| validation |" in (report / "table.md").read_text()
