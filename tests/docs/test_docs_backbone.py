"""The worked example of docs/your_backbone.md, run as it is printed there."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from conftest import TINY

import recyclelora.commands.train
from recyclelora.config.compose import home

TEXT = (home() / "docs/your_backbone.md").read_text()


def test_the_worked_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (option,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
    (tmp_path / "my_conf/backbone").mkdir(parents=True)
    (tmp_path / "my_conf/backbone/mine.yaml").write_text(option)
    (script,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    exec(script, {})
    (line,) = re.findall(r"^python (train.py --config-dir .*)$", TEXT, re.M)
    quick = [text for text in TINY if not text.startswith(("backbone=", "adapter"))]
    options = [
        "trainer.max_steps=1", f"cache={tmp_path / 'cache'}", "data.sources.0.subset=2", "data.source_val.subset=1",
        "data.targets=[{dataset: streets, split: night, name: night, subset: 1}]",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [*shlex.split(line), *quick, *options])
    recyclelora.commands.train.main()
    (run,) = (tmp_path / "outputs/runs").iterdir()
    assert run.name.startswith("recyclelora-mine-streets-")
    about = json.loads((run / "run.json").read_text())
    assert about["weights_sha256"] is not None
    assert json.loads((run / "result.json").read_text())["params"]["backbone_trainable"] == _factors()


def _factors() -> int:
    """Of ranks 32 + 4 on qkv, proj, fc1 and fc2 of six blocks of width 192."""
    layers = ((192, 576), (192, 192), (192, 768), (768, 192))
    return 6 * 36 * sum(fan_in + fan_out for fan_in, fan_out in layers)
