"""Every defect of a data set is found, by file name, in one pass."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from conftest import make_cityscapes, make_gta, picture, save_palette, save_rgb
from PIL import Image

from recyclelora.config.compose import register_schemas
from recyclelora.reports.inspection.writing import inspect_pair
from recyclelora.system.errors import Interrupted, UserError
from recyclelora.system.progress import Reporter

CITY = "cityscapes/leftImg8bit/val/lindau/lindau_{:06d}_000019_leftImg8bit.png"
CITY_MASK = "cityscapes/gtFine/val/lindau/lindau_{:06d}_000019_gtFine_labelIds.png"


def break_gta(root: Path) -> None:
    """One file for each kind of damage; image 2 is shipped with a taller mask already."""
    images, labels = root / "gta/images", root / "gta/labels"
    ids = np.full((96, 192), 7, np.uint8)
    rng = np.random.default_rng(0)
    (labels / "00001.png").unlink()  # no mask
    data = (images / "00003.png").read_bytes()
    (images / "00003.png").write_bytes(data[: len(data) // 2])  # truncated image
    (images / "00004.png").write_bytes(b"")  # empty image
    data = (labels / "00005.png").read_bytes()
    (labels / "00005.png").write_bytes(data[: len(data) // 2])  # truncated mask
    save_rgb(labels / "00006.png", picture(rng, ids))  # colours instead of ids
    Image.fromarray(np.full((96, 192), 300, np.uint16)).save(labels / "00007.png")  # 16 bit
    save_palette(labels / "00008.png", np.full((96, 192), 99))  # unknown ids
    save_palette(labels / "00009.png", np.zeros((96, 192)))  # nothing labelled
    save_palette(labels / "00010.png", np.full((40, 60), 7))  # another image's mask
    save_rgb(images / "00011.png", picture(rng, ids)[:48, :48])  # smaller than the crop, but the chain scales it first
    save_palette(labels / "00011.png", ids[:48, :48])
    (images / "00012.png").write_bytes((root / CITY.format(0)).read_bytes())  # a test image among the training ones


@pytest.fixture
def broken(tmp_path: Path, make_config):
    make_gta(tmp_path / "data")
    make_cityscapes(tmp_path / "data")
    break_gta(tmp_path / "data")
    config = make_config("data.augment.crop=[64,64]", "data.sources.0.split=all")
    with pytest.raises(UserError) as refused:
        inspect_pair(config.data, config.cache, tmp_path / "out", 0, Reporter(enabled=False), num_samples=2)
    return json.loads((tmp_path / "out/inspect/gta2city/report.json").read_text()), str(refused.value)


def found(report: dict, severity: str) -> set[tuple[str, str]]:
    """(kind, last part of the file's name) of all defects of files of the training set and the target."""
    return {
        (d["kind"], Path(d["file"]).name)
        for d in report["defects"]
        if d["severity"] == severity and d["dataset"] in ("gta (source)", "cityscapes") and d["file"]
    }


def test_all_damage_is_found_in_one_pass(broken):
    report, _ = broken
    assert found(report, "error") == {
        ("no mask", "00001.png"),
        ("unreadable image", "00003.png"),
        ("unreadable image", "00004.png"),
        ("unreadable mask", "00005.png"),
        ("unreadable mask", "00006.png"),
        ("unreadable mask", "00007.png"),
        ("unknown ids", "00008.png"),
        ("size mismatch", "00010.png"),
        ("scored image is trained on", "lindau_000000_000019_leftImg8bit.png"),
    }
    assert found(report, "warning") == {
        ("size mismatch", "00002.png"),
        ("nothing labelled", "00009.png"),
    }


def test_details_say_what_is_wrong(broken):
    report, message = broken
    details = {(d["kind"], Path(d["file"]).name): d["detail"] for d in report["defects"]}
    assert details["unknown ids", "00008.png"] == "99 in 18,432 pixels"
    assert details["size mismatch", "00010.png"] == "60x40 pixels, but its image has 192x96: not its mask"
    assert details["size mismatch", "00002.png"] == "192x104, its image 192x96 pixels: cut or padded"
    assert details["scored image is trained on", "lindau_000000_000019_leftImg8bit.png"].endswith("images/00012.png")
    first, *shown = message.splitlines()
    errors = sum(d["severity"] == "error" for d in report["defects"])
    assert first == f"{errors} errors in the data:" and shown[-1] == f"and {errors - 5} more"


def test_frequencies_by_hand(tmp_path: Path, make_config):
    root = tmp_path / "data"
    ids = np.full((96, 192), 7, np.uint8)  # road
    ids[:24] = 23  # sky in a quarter
    ids[24:48] = 0  # ignored in another
    rng = np.random.default_rng(0)
    for index in range(1, 5):
        save_rgb(root / f"gta/images/{index:05d}.png", picture(rng, ids))
        save_palette(root / f"gta/labels/{index:05d}.png", ids)
    make_cityscapes(root)
    config = make_config("data.augment.crop=[64,64]")
    inspect_pair(config.data, config.cache, tmp_path / "out", 2, Reporter(enabled=False))
    report = json.loads((tmp_path / "out/inspect/gta2city/report.json").read_text())
    source, source_val, _ = report["datasets"]
    assert (source["images"], source_val["images"]) == (3, 1)
    assert source["ignored"] == 0.25 and source["sizes"] == {"192x96": 3}
    assert source["frequencies"]["road"] == pytest.approx(2 / 3)
    assert source["frequencies"]["sky"] == pytest.approx(1 / 3)
    assert source["images_with_class"]["sky"] == 3 and source["images_with_class"]["car"] == 0
    assert report["dataset_digest"] is not None
    never = [d["file"] for d in report["defects"] if d["kind"] == "class never trained"]
    assert len(never) == 17 and "road" not in never


def test_what_training_would_refuse_as_nothing_to_learn_is_an_error(tmp_path: Path, make_config):
    root = tmp_path / "data"
    ids, rng = np.full((96, 192), 7, np.uint8), np.random.default_rng(0)
    for index in range(1, 5):
        save_rgb(root / f"gta/images/{index:05d}.png", picture(rng, ids))
        save_palette(root / f"gta/labels/{index:05d}.png", ids)
    make_cityscapes(root)
    config = make_config("data.augment.crop=[64,64]")
    with pytest.raises(UserError, match="the 3 training images show only one class, road: there is nothing to learn"):
        inspect_pair(config.data, config.cache, tmp_path / "out", 0, Reporter(enabled=False))


def test_padding_is_what_the_configured_chain_does(tmp_path: Path, make_config):
    """The chain scales by the short edge before it crops: size alone tells nothing, shape and edges do."""
    root = tmp_path / "data"
    for index, (height, width) in enumerate([(24, 24), (48, 96), (40, 400), (40, 400)], start=1):
        save_rgb(root / f"gta/images/{index:05d}.png", np.zeros((height, width, 3), np.uint8))
        save_palette(root / f"gta/labels/{index:05d}.png", np.full((height, width), 7))
    make_cityscapes(root)
    chain = ["data.augment.crop=[64,64]", "data.augment.short_edges=[48,64,80,96]", "data.augment.max_long_edge=320"]
    config = make_config(*chain, "data.sources.0.split=all", "data.sources.0.subset=null")
    with contextlib.suppress(UserError):
        inspect_pair(config.data, config.cache, tmp_path / "out", 0, Reporter(enabled=False))
    report = json.loads((tmp_path / "out/inspect/gta2city/report.json").read_text())
    # a square is too small at edge 48 of four; 400x40 is at most 320x32
    assert report["datasets"][0]["padded"] == pytest.approx((0.25 + 0.25 + 1 + 1) / 4)
    assert {d["padded"] for d in report["datasets"][1:]} == {None}
    never = [(d["file"], d["detail"]) for d in report["defects"] if d["kind"] == "never fills the crop"]
    assert never == [(f"images/0000{i}.png", "400x40 pixels: padded to 64x64 in every draw") for i in (3, 4)]


def test_two_sources_of_one_dataset_are_counted_apart(tmp_path: Path, make_config):
    make_gta(tmp_path / "data")
    make_cityscapes(tmp_path / "data")
    sources = "[{dataset: gta, split: all, subset: 2}, {dataset: gta, split: train}]"
    config = make_config("data.augment.crop=[64,64]", f"data.sources={sources}")
    with contextlib.suppress(UserError):  # the samples have defects of their own
        inspect_pair(config.data, config.cache, tmp_path / "out", 0, Reporter(enabled=False))
    found = json.loads((tmp_path / "out/inspect/gta2city/report.json").read_text())["datasets"]
    images = {dataset["name"]: dataset["images"] for dataset in found if dataset["role"] == "source"}
    assert set(images) == {"gta (source, all)", "gta (source, train)"} and images["gta (source, all)"] == 2
    assert {d["name"]: sum(d["sizes"].values()) for d in found if d["role"] == "source"} == images


def test_one_set_under_several_corruptions_is_no_duplicate(tmp_path: Path, make_config):
    make_gta(tmp_path / "data")
    make_cityscapes(tmp_path / "data")
    city = "dataset: cityscapes, split: val"
    targets = f"[{{{city}}}, {{{city}, corruption: {{name: fog}}}}, {{{city}, name: again}}]"
    config = make_config("data.augment.crop=[64,64]", f"data.targets={targets}")
    with contextlib.suppress(UserError):  # the samples have defects of their own
        inspect_pair(config.data, config.cache, tmp_path / "out", 0, Reporter(enabled=False))
    report = json.loads((tmp_path / "out/inspect/gta2city/report.json").read_text())
    assert {d["dataset"] for d in report["defects"] if d["kind"] == "duplicate"} == {"again"}


def test_a_link_to_nothing_is_named_and_hides_nothing(tmp_path: Path, make_config):
    root = tmp_path / "data"
    make_gta(root)
    make_cityscapes(root)
    (root / "gta/images/00002.png").unlink()
    (root / "gta/images/00002.png").symlink_to("nowhere.png")
    config = make_config("data.augment.crop=[64,64]", "data.sources.0.split=all")
    with pytest.raises(UserError):
        inspect_pair(config.data, config.cache, tmp_path / "out", 0, Reporter(enabled=False))
    report = json.loads((tmp_path / "out/inspect/gta2city/report.json").read_text())
    unreadable = {d["file"] for d in report["defects"] if d["kind"] == "unreadable image"}
    assert unreadable == {"images/00002.png"} and report["dataset_digest"] is None


def test_a_missing_dataset_does_not_hide_the_others(tmp_path: Path, make_config):
    make_cityscapes(tmp_path / "data")
    (tmp_path / "data" / CITY_MASK.format(1)).unlink()
    config = make_config()
    with pytest.raises(UserError, match="gta is not at"):
        inspect_pair(config.data, config.cache, tmp_path / "out", 0, Reporter(enabled=False))
    report = json.loads((tmp_path / "out/inspect/gta2city/report.json").read_text())
    errors = {(d["dataset"], d["kind"]) for d in report["defects"] if d["severity"] == "error"}
    assert errors == {
        ("gta (source)", "cannot be opened"),
        ("source_val", "cannot be opened"),
        ("cityscapes", "no mask"),
    }
    assert report["dataset_digest"] is None and [d["images"] for d in report["datasets"]] == [2]
    page = (tmp_path / "out/inspect/gta2city/index.html").read_text()
    assert "lindau_000001_000019" in page and page.count("<img") == 4


def test_a_pair_that_is_not_there_is_told_without_empty_tables(make_config, tmp_path: Path, capsys):
    config = make_config()
    with pytest.raises(UserError) as refusal:
        inspect_pair(config.data, config.cache, tmp_path / "out", 0, Reporter())
    lines = str(refusal.value).splitlines()
    assert lines[1].startswith("gta (source): cannot be opened: gta is not at") and len(lines) == 5
    assert "DATA_ROOT" in lines[-1] and "docs/licences.md" in lines[-1]
    said = capsys.readouterr().out
    assert "class frequencies" not in said and "never trained" not in said and "None" not in said


def test_nothing_is_written_beside_the_data(tmp_path: Path, make_config, gta2city: Path):
    register_schemas()
    before = sorted(p for p in gta2city.rglob("*"))
    config = make_config("data.augment.crop=[64,64]")
    inspect_pair(config.data, config.cache, tmp_path / "out", 0, Reporter(enabled=False))
    assert sorted(p for p in gta2city.rglob("*")) == before


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stopped_inspection_reports_what_it_has_seen(make_config, gta2city, tmp_path, monkeypatch, workers):
    from recyclelora.reports.inspection import pair

    config, told = make_config(), []

    def signalled(*args, advance, **options):
        def advancing(count):
            advance(count)
            told.append(count)
            if len(told) == 2:
                os.kill(os.getpid(), signal.SIGINT)

        return inspecting(*args, advance=advancing, **options)

    inspecting = pair.inspect
    monkeypatch.setattr(pair, "inspect", signalled)
    with pytest.raises(Interrupted, match=r"stopped by signal 2; .*inspect.* tells of what was looked at"):
        inspect_pair(config.data, config.cache, tmp_path / "out", workers, Reporter(enabled=False))
    report = json.loads(next((tmp_path / "out").rglob("report.json")).read_text())
    assert sum(dataset["images"] for dataset in report["datasets"]) == 2
    (defect,) = [d for d in report["defects"] if d["kind"] == "not finished"]
    assert defect["detail"] == "stopped after 2 of 15 samples"


def test_a_pipe_among_the_files_is_named_and_not_waited_for(make_config, gta2city, tmp_path):
    mask = next(gta2city.rglob("*_gtFine_labelIds.png"))
    mask.unlink()
    os.mkfifo(mask)
    config = make_config()
    with pytest.raises(UserError, match=mask.name):
        inspect_pair(config.data, config.cache, tmp_path / "out", 0, Reporter(enabled=False))
