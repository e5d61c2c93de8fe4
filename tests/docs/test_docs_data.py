"""The worked example of docs/data.md, run as it is printed there."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import TINY, save_rgb
from fixture_data import blocks, picture, save_ids16, save_jpeg

import recyclelora.commands.evaluate
import recyclelora.commands.train
from recyclelora.config.compose import home
from recyclelora.data.config import COMMON_CORRUPTIONS
from recyclelora.data.datasets import READERS

TEXT = (home() / "docs" / "data.md").read_text()
EXAMPLE = TEXT[TEXT.index("## Your own images and masks") :]
STORED = [0, 300, 301, 420, 7]
PAINT = {0: (0, 0, 0), 300: (128, 64, 128), 301: (140, 70, 140), 420: (107, 142, 35), 7: (0, 0, 142)}


def make_yard(root: Path) -> None:
    rng = np.random.default_rng(0)
    for part in ("day/a", "day/b", "dusk/a", "night/a"):
        for index in range(2):
            ids = blocks(rng, STORED)
            save_jpeg(root / part / f"{index}_rgb.jpg", picture(rng, ids % 256))
            mask = root / "labels" / part / str(index)
            if part.startswith("night"):
                colours = np.array([PAINT[int(i)] for i in ids.ravel()], np.uint8).reshape(*ids.shape, 3)
                save_rgb(mask.with_name(f"{index}_colour.png"), colours)
            else:
                save_ids16(mask.with_name(f"{index}_ids.png"), ids)
    save_jpeg(root / "new/1.jpg", picture(rng, blocks(rng, [7])))


def merged(into: dict, other: dict) -> dict:
    for key, value in other.items():
        into[key] = merged(into[key], value) if isinstance(value, dict) and isinstance(into.get(key), dict) else value
    return into


def test_the_worked_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    mains = {"train.py": recyclelora.commands.train.main, "evaluate.py": recyclelora.commands.evaluate.main}

    def command(line: str, *more: str) -> None:
        monkeypatch.setattr(sys, "argv", [*shlex.split(line), *more])
        mains[sys.argv[0]]()

    make_yard(tmp_path / "yard")
    first, painted = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", EXAMPLE, re.S))
    config = merged(first, painted)
    config["folder"]["root"] = str(tmp_path / "yard")
    (tmp_path / "my_conf/data").mkdir(parents=True)
    (tmp_path / "my_conf/data/yard.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    train, evaluate = re.findall(r"^python (.*data=yard)$", EXAMPLE, re.M)
    quick = [*TINY, "trainer.max_steps=2", "trainer.num_figures=0", f"cache={tmp_path / 'cache'}"]
    command(train, *quick)
    (run,) = (tmp_path / "outputs/runs").iterdir()
    result = json.loads((run / "result.json").read_text())
    assert result["classes"] == ["ground", "plant", "machine"]
    assert {name for name, value in result["miou"]["targets"].items() if value is None} == {"new"}
    assert set(result["miou"]["targets"]) == {"night", "night_in_fog", "new"}
    assert (run / "predictions/new/ids/new/1.png").is_file()
    command(evaluate.replace("<run>", run.name), "num_workers=0")
    assert list((run / "evaluations").glob("yard-recyclelora-last-*.json"))


def test_every_dataset_has_terms_and_a_place_to_get_it():
    table = (home() / "docs/licences.md").read_text().split("| dataset | terms | where to get it |")[1]
    rows = [line.split(" | ") for line in table.split("\n\n")[0].splitlines()[2:]]
    assert all(len(row) == 3 and len(row[2]) > 5 for row in rows)
    named = re.sub(r"[^a-z0-9,]", "", ",".join(row[0] for row in rows).lower().replace("dark zurich", "darkzurich"))
    for reader in READERS.keys() - {"foggy_cityscapes", "rainy_cityscapes", "cityscapes_c"}:  # made of Cityscapes
        assert reader.replace("_", "") in named, reader


def test_every_dataset_pair_and_corruption_is_documented():
    for name in READERS:
        assert f"\n| `{name}` |" in TEXT
    for pair in (home() / "conf/data").glob("*.yaml"):
        assert f"\n| `{pair.stem}` |" in TEXT
    for protocol in (home() / "conf/data/protocol").glob("*.yaml"):
        assert f"\n| `{protocol.stem}`" in TEXT
    assert all(name in TEXT for name in COMMON_CORRUPTIONS)
