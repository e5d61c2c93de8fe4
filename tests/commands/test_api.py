"""The Python API: a call is the same run, sweep or comparison as the command of its name."""

from __future__ import annotations

import io
import json
import shlex
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import TINY, make_cityscapes, make_gta, picture
from PIL import Image

import recyclelora
from recyclelora.commands.api.calls import _arguments, configured
from recyclelora.commands.train import main
from recyclelora.config.compose import ConfigError
from recyclelora.config.run import Config
from recyclelora.reports import numbers
from recyclelora.reports.comparison import compare
from recyclelora.reports.records import read_runs
from recyclelora.system.errors import UserError


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data, and two finished runs that were made by calls."""
    folder = tmp_path_factory.mktemp("api")
    make_gta(folder / "data")
    make_cityscapes(folder / "data")
    for seed in (0, 1):
        recyclelora.train(*overrides(folder), seed=seed)
    return folder


def overrides(folder) -> list[str]:
    fast = [o for o in TINY if not o.startswith("trainer.max_steps")]
    return [f"output_dir={folder}/outputs", f"cache={folder}/cache", f"data.root={folder}/data", *fast,
            "trainer.max_steps=2"]  # fmt: skip


def test_a_call_and_a_command_are_the_same_run(place, monkeypatch, capsys):
    run = recyclelora.train(*overrides(place), seed=1)
    before = (run.path / "result.json").read_bytes()
    monkeypatch.setattr(sys, "argv", ["train.py", *overrides(place), "seed=1"])
    main()
    assert "already finished" in capsys.readouterr().out
    assert (run.path / "result.json").read_bytes() == before
    assert len(list((place / "outputs/runs").iterdir())) == 2
    command = json.loads((run.path / "run.json").read_text())["command"]
    assert shlex.split(command) == ["train.py", *overrides(place), "seed=1"]


def test_frames_hold_what_the_files_say(place):
    found = recyclelora.runs(place / "outputs")
    frame, classes = found.frame(), found.frame("class")
    assert len(found) == len(frame) == 2 and sorted(frame["seed"]) == [0, 1]
    for run, (_, row) in zip(found, frame.iterrows(), strict=True):
        result = json.loads((run.path / "result.json").read_text())
        assert row["cityscapes"] == result["miou"]["targets"]["cityscapes"] and row["path"] == str(run.path)
        mine = classes[(classes["run"] == run.name) & (classes["set"] == "cityscapes")]
        expected = [np.nan if v is None else v for v in result["iou_per_class"]["cityscapes"]]
        np.testing.assert_array_equal(mine["iou"].astype(float), expected)
    assert len(classes) == 2 * 2 * 19
    assert list(found[0].curves().index) == sorted(set(found[0].curves().index)) and "loss" in " ".join(
        found[0].curves().columns
    )


def test_a_comparison_is_that_of_the_report(place):
    found = recyclelora.runs(place / "outputs")
    mine = recyclelora.compare(found, resamples=10)
    theirs = compare(read_runs([run.path for run in found]), "last", None, 10)
    expected = pd.read_csv(io.StringIO(numbers.groups_csv(theirs)))
    pd.testing.assert_frame_equal(mine.frame(), expected)
    assert mine.winner == theirs.winner
    with pytest.raises(UserError, match="reference=nothing"):
        recyclelora.compare(place / "outputs/runs", reference="nothing")


def test_a_model_takes_files_pillow_and_arrays(place, tmp_path):
    model = recyclelora.runs(place / "outputs")[0].model(accelerator="cpu")
    image = picture(np.random.default_rng(0), np.full((64, 96), 7))
    Image.fromarray(image).save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(image[::-1, ::-1]).save(tmp_path / "b.png", exif=exif)
    answers = [model.predict(given) for given in (image, tmp_path / "a.png", Image.open(tmp_path / "b.png"))]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer.ids, answers[0].ids)
    assert answers[0].overlay().shape == image.shape
    assert sum(answers[0].shares().values()) == pytest.approx(1)
    assert all(type(share) is float for share in answers[0].shares().values())
    assert "<img" in answers[0]._repr_html_()


def test_everything_has_a_page_for_notebooks(place):
    found = recyclelora.runs(place / "outputs")
    assert "cityscapes" in found[0]._repr_html_() and "<table" in found._repr_html_()
    assert "nothing to compare" in recyclelora.compare(found, resamples=0)._repr_html_()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["adapter.main.rnak=3"], "did you mean rank"),
        (["adapter=lroa"], "lora"),
        (["sweeps=rank_split"], "needs a multirun"),
        (["nonsense"], "must be key=value"),
        (["trainer.max_steps=0"], "max_steps"),
    ],
)
def test_mistakes_are_refused_as_the_command_refuses_them(given, words):
    with pytest.raises(ConfigError, match=words):
        configured(_arguments(given, {}))


def test_pythons_values_become_overrides():
    given = {
        "seed": 3,
        "study": None,
        "fresh": True,
        "init_from": 'a b/c=d,"e\\',
        "metrics": ["boundary", "calibration"],
    }
    config = configured(_arguments(["experiment=demo", "adapter.main.rank=8"], {**given, "fresh": False}))
    assert isinstance(config, Config)
    assert (config.seed, config.init_from, config.metrics) == (3, 'a b/c=d,"e\\', ["boundary", "calibration"])
    swept = _arguments([], {"adapter": ["frozen", "lora"], "seed": (0, 1)}, swept=True)
    assert swept == ["adapter=frozen,lora", "seed=0,1"]


def test_rooms_with_the_name_of_a_call_stay_packages():
    import recyclelora.runs.directory as directory

    assert recyclelora.runs.directory is directory and callable(recyclelora.runs) and callable(recyclelora.sweep)


@pytest.mark.slow
def test_a_sweep_is_that_of_the_command(place):
    given = [o for o in overrides(place) if "adapter." not in o]
    sweep = recyclelora.sweep(*given, adapter=["frozen", "full"], seed=[0])
    assert (sweep.trials()["state"] == "complete").all() and len(sweep.runs) == 2
    again = recyclelora.sweep(*given, adapter=["frozen", "full"], seed=[0])
    assert again.path == sweep.path
    assert set(recyclelora.compare(sweep, reference="frozen", resamples=0).frame()["group"]) == {
        "adapter=frozen", "adapter=full",
    }  # fmt: skip
