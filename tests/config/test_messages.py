"""A mistake ends ``train.py`` and the others in one line that says what to write instead; in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from recyclelora.commands.launch import launched
from recyclelora.config.messages import GROUPS


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        ("train", ["lr=1e-3"], "lr: no such key; did you mean optimizer.lr?"),
        ("train", ["main.rank=4"], "did you mean adapter.main.rank?"),
        ("train", ["batch_size=4"], "did you mean trainer.batch_size?"),
        ("train", ["optimizer.lrr=1"], "train: optimizer.lrr: no such key (did you mean lr?)"),
        ("train", ["adapter=lora", "adapter.rank=8"], "adapter.rank: no such key; did you mean adapter.main.rank or "),
        ("train", ["adapter=soma", "adapter.main.lr=1"], "did you mean adapter.main.lr_mult or adapter.main.lr_mult_b"),
        ("train", ["adapter=vera", "adapter.main.rank=8"], "adapter.main.rank: no such key; did you mean adapter.rank"),
        ("train", ["data.crop=[1,2]"], "data.crop: no such key; did you mean data.augment.crop?"),
        ("train", ["adapter/spilt=syn2real"], "adapter/spilt: no such group (did you mean adapter/split?)"),
        ("report", ["sweeps=x"], "report: sweeps: report does not choose it; it takes sweep=<sweep directory>"),
        ("train", ["foo.bar=1"], "train: foo.bar: no such key"),
        ("train", ["data.protocol.sizes.acdc=[540,960]"], "written with a plus: +data.protocol.sizes.acdc="),
        ("train", ["-m", "seed=0,1", "timeout_min=60"], "did you mean hydra.launcher.timeout_min?"),
        ("train", ["-m", "seed=0,1", "sampler=tpe"], "did you mean hydra/sweeper/sampler?"),
        ("train", ["-m", "seed=0,1", "hydra/launcher=slurm", "hydra.launcher.timeout_min=1-04:30:00"],
         "it is in minutes: hydra.launcher.timeout_min=1710"),
        ("train", ["trainer.max_steps=4e4"], "trainer.max_steps=4e4: must be a whole number"),
        ("train", ["adapter=null"], "a group takes the name of one of its options, as in adapter=lora, and not null"),
        ("train", ["adapter={rank: 4}"], "adapter: a group takes the name of one of its options, adapter=<name>"),
        ("train", ["decoder=[linear,dptt]"], "train: decoder=dptt: no such option"),
        ("train", ["adapter.main=5"], "adapter.main=5: has keys of its own: adapter.main.init, adapter.main.rank, "),
        ("train", ["adapter.blocks=[0, 1]"], "must be a text, quoted where it has commas: adapter.blocks=\"'0,1'\""),
        ("train", ["adapter.blocks=0,1"], "adapter.blocks=0,1: a list is adapter.blocks=[0,1], a text adapter.blocks="),
        ("train", ["data.augment.crop=64"], "train: data.augment.crop=64: must be a list: data.augment.crop=[64]"),
        ("train", ["adapter=lora", "adapter.sub.rank=2"], "adapter.sub.rank=2: adapter.sub is null here; leave it out"),
        ("train", ["seed=null"], "train: seed=null: must have a value"),
        ("train", ["optimizer.lr"], "optimizer.lr: write key=value"),
        ("report", ["labels=[ssf: SSF (ours)]"], "quote special characters twice: 'labels=[\"...\",...]'"),
        ("train", ["~adapter.sub"], "write adapter.sub=null"),
        ("train", ["hydra.sweeper=optuna"], "chosen with a slash: hydra/sweeper=optuna"),
        ("train", ["hydra/sweeper=optuna"], "hydra/sweeper=optuna needs a multirun"),
        ("train", ["-m", "hydra/sweeper=optuna", "dry_run=true"], "only the default sweeper has it"),
        ("train", ["-m", "hydra/sweeper=optuna", "sweeps=rank_split"], "sweeps/rank_split.yaml is for the default"),
        ("train", ["--configdir", "x"], "unrecognized arguments: --configdir"),
        ("train", ["-m", "--cfg", "job"], "Only one of --run, --multirun, --cfg"),
        ("train", ["-m", "adapter=glob([fl]*,exclude=*short)"], "adapter=glob([fl]*,exclude=*short): cannot be read"),
        ("evaluate", [], "run: must be given: python evaluate.py run=<run directory>"),
        ("export", [], "python export.py run=<run directory> format=timm"),
        ("predict", [], "input, run: must be given: python predict.py run=<run directory> input=<folder or images>"),
        ("predict", ["outputs/runs/x", "images"], "outputs/runs/x: write key=value, here run=<run directory> input="),
        ("predict", ["run=x", "input=a.png", "b.png"], "several images are one list: input=[a.png,b.png]"),
        ("report", ["outputs/sweeps/x"], "write key=value, here sweep=<sweep directory>"),
    ],
)  # fmt: skip
def test_hydras_words_become_those_of_the_user(
    command: str, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert words in refused(command, arguments, monkeypatch, capsys)


def refused(
    command: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """The one line with which a command ends."""
    monkeypatch.setattr(sys, "argv", [f"{command}.py", *arguments])
    with pytest.raises(SystemExit) as end, launched(command, lambda config, trial: None) as job:
        job()
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_the_groups_inside_others_are_those_of_conf():
    conf = Path(__file__).parents[2] / "conf"
    inner = {str(path.relative_to(conf)) for path in conf.glob("*/*") if path.is_dir()}
    assert {name for name in GROUPS if name.count("/") == 1} == inner


@pytest.mark.parametrize("group", ["experiment", "sweeps"])
def test_a_file_without_its_header_is_named(
    group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text("optimizer: {lr: 1e-3}\nhydra: {sweeper: {params: {seed: '0,1'}}}\n")
    line = refused("train", ["-m", "--config-dir", str(tmp_path), f"{group}=mine"], monkeypatch, capsys)
    assert f"{group}/mine.yaml: its first line must be '# @package _global_'" in line


def test_a_mode_in_an_experiment_says_where_it_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\nhydra: {mode: MULTIRUN}\n")
    line = refused("train", ["--config-dir", str(tmp_path), "experiment=mine"], monkeypatch, capsys)
    assert "hydra.mode: cannot be set in this file; write -m" in line
