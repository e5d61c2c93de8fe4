from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, stop_after
from PIL import Image

from recyclelora.drawing import sheets
from recyclelora.system.errors import Interrupted
from recyclelora.training.run import Run

DRAWN = [*(o for o in TINY if "num_figures" not in o), "trainer.num_figures=1", "trainer.eval_every=2"]
PLOTS = {"curves.png", "domain_gap.png", "iou_bars.png", "iou_per_class.png", "confusion.png"}
LAST = {"overview.png", "predictions_source_val.png", "predictions_cityscapes.png"}
STEPS = {f"predictions_step_{step:06d}.png" for step in (0, 2, 4)}


def figures_of(config) -> dict[str, Path]:
    (folder,) = (Path(config.output_dir) / "runs").glob("*/figures")
    return {path.name: path for path in folder.iterdir()}


def execute(config) -> dict[str, Path]:
    Run.identify(config, None).execute()
    return figures_of(config)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The pictures of one run, and its configuration."""
    from conftest import compose_config, make_cityscapes, make_gta

    folder = tmp_path_factory.mktemp("drawn")
    make_gta(folder / "data")
    make_cityscapes(folder / "data")
    config = compose_config(folder, *DRAWN)
    return config, execute(config)


def test_what_is_drawn_and_that_steps_sort_by_name(drawn):
    _, found = drawn
    assert set(found) == PLOTS | LAST | STEPS | {"augmented_crops.png"}
    for path in found.values():
        assert np.asarray(Image.open(path)).std() > 1, path


def test_without_targets_nothing_is_called_a_gap(tmp_path, drawn):
    from conftest import compose_config

    data = drawn[0].data.root
    found = execute(compose_config(tmp_path, *DRAWN, "data.targets=[]", f"data.root={data}"))
    assert "domain_gap.png" not in found and "validation.png" in found


def test_the_same_images_are_shown_at_every_step(drawn):
    """The columns of image and ground truth are equal, those of predictions are not all."""
    _, found = drawn
    pictures = [np.asarray(Image.open(found[name]))[60:-60] for name in sorted(STEPS)]
    width = 300 + 4
    below_the_names = slice(30, 150)
    for picture in pictures[1:]:
        for start in (0, width):
            columns = slice(start + 200, start + 300)
            np.testing.assert_array_equal(picture[below_the_names, columns], pictures[0][below_the_names, columns])
    assert any((picture != pictures[0]).any() for picture in pictures[1:])


def test_pictures_change_nothing_of_what_is_trained(drawn, tmp_path):
    from conftest import compose_config

    config, found = drawn
    data = Path(config.data.root)
    blind = compose_config(tmp_path, *DRAWN, "trainer.num_figures=0", f"data.root={data}")
    Run.identify(blind, None).execute()
    (path,) = (Path(blind.output_dir) / "runs").iterdir()
    assert not (path / "figures").exists()
    with_pictures = found["curves.png"].parents[1]
    assert path.name == with_pictures.name  # the same run
    assert (path / "adapter.safetensors").read_bytes() == (with_pictures / "adapter.safetensors").read_bytes()


@pytest.mark.slow
def test_a_resumed_run_has_the_pictures_of_an_undisturbed_one(drawn, tmp_path, monkeypatch):
    from conftest import compose_config

    config, whole = drawn
    parted = compose_config(tmp_path, *DRAWN, f"data.root={config.data.root}")
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Interrupted):
            Run.identify(parted, None).execute()
    before = figures_of(parted)
    assert set(before) == PLOTS | {"augmented_crops.png", *sorted(STEPS)[:2]}
    stale = before["curves.png"].with_name("predictions_step_000004.png")
    stale.write_bytes(b"of a launch that was killed after its evaluation and before its checkpoint")
    start = before["predictions_step_000000.png"].stat().st_mtime_ns
    resumed = execute(parted)
    assert set(resumed) == set(whole)
    assert resumed["predictions_step_000000.png"].stat().st_mtime_ns == start
    for name in STEPS | LAST | {"augmented_crops.png", "iou_bars.png", "confusion.png"}:
        assert resumed[name].read_bytes() == whole[name].read_bytes(), name


def test_a_killed_step_is_drawn_no_more_when_the_run_goes_on_before_it(drawn, tmp_path):
    from recyclelora.runs.directory import RunDirectory
    from recyclelora.training.pictures import Pictures

    config, _ = drawn
    (tmp_path / "figures").mkdir()
    for step in (0, 2, 4):
        (tmp_path / f"figures/predictions_step_{step:06d}.png").write_bytes(b"")
    (tmp_path / "figures/predictions_night.png").write_bytes(b"")
    Pictures(config, RunDirectory(tmp_path), {}, None, None).rewind(2)
    left = {path.name for path in (tmp_path / "figures").iterdir()}
    assert left == {"predictions_step_000000.png", "predictions_step_000002.png", "predictions_night.png"}


@pytest.mark.parametrize(("evaluations", "pictures"), [(3, 3), (20, 20), (21, 11), (200, 20)])
def test_runs_with_many_evaluations_get_a_bounded_number(make_config, monkeypatch, evaluations, pictures):
    from recyclelora.training.pictures import Pictures

    shown = []
    monkeypatch.setattr(Pictures, "_predictions", lambda self, step, scores: shown.append(step))
    monkeypatch.setattr(Pictures, "_plots", lambda *about: None)
    config = make_config(*DRAWN, f"trainer.max_steps={10 * evaluations}", "trainer.eval_every=10")
    drawing = Pictures(config, None, {}, None, None)
    for step in range(10, 10 * evaluations + 1, 10):
        drawing.evaluation(type("Scored", (), {"step": step}), {})
    assert len(shown) == pictures and shown[-1] == 10 * evaluations


def test_crops_are_those_that_the_model_sees_first(drawn, monkeypatch, tmp_path):
    from conftest import compose_config

    config, found = drawn
    seen = []
    sheet = sheets.crop_sheet

    def watched(crops, *about, **more):
        seen.extend(crops)
        return sheet(crops, *about, **more)

    monkeypatch.setattr("recyclelora.training.pictures.sheets.crop_sheet", watched)
    monkeypatch.setattr("recyclelora.training.pictures.Pictures._plots", lambda *about: None)
    batches = []
    from recyclelora.training import loop

    backward = loop._backward
    monkeypatch.setattr(loop, "_backward", lambda f, m, images, labels, *rest: batches.append((images, labels)) or
                        backward(f, m, images, labels, *rest))  # fmt: skip
    again = execute(compose_config(tmp_path, *DRAWN, f"data.root={config.data.root}"))
    assert again["augmented_crops.png"].read_bytes() == found["augmented_crops.png"].read_bytes()
    images = np.concatenate([images.numpy().transpose(0, 2, 3, 1) for images, _ in batches])
    labels = np.concatenate([labels.numpy() for _, labels in batches])
    for index in range(8):
        np.testing.assert_array_equal(seen[index][0], images[index])
        np.testing.assert_array_equal(seen[index][1], labels[index])


def test_a_picture_is_replaced_in_one_go(tmp_path):
    """Readers such as a tracker never find half a PNG."""
    from recyclelora.runs.directory import RunDirectory
    from recyclelora.training.pictures import Pictures

    drawing = Pictures(None, RunDirectory(tmp_path), {}, None, None)
    drawing._write("a", sheets.png(np.zeros((4, 4, 3), np.uint8)))
    first = (tmp_path / "figures/a.png").stat().st_ino
    drawing._write("a", sheets.png(np.ones((4, 4, 3), np.uint8)))
    assert (tmp_path / "figures/a.png").stat().st_ino != first
    assert np.asarray(Image.open(io.BytesIO((tmp_path / "figures/a.png").read_bytes()))).max() == 1
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["a.png"]
