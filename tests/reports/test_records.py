from __future__ import annotations

import json
import re

import pytest

from recyclelora.reports.records import read_run, read_runs, read_sweep
from recyclelora.reports.writing import run_paths
from recyclelora.sweep.goals import is_miou, is_of_targets
from recyclelora.system.errors import UserError

from .sweeps import run_name, write_run, write_study, write_trial


def test_a_run_that_does_not_know_a_younger_option_has_its_default(tmp_path):
    """Seeds of one configuration stay together over versions; another value of the option is another configuration."""
    old = (
        "{seed: 0, optimizer: {lr: 0.1}, adapter: {kind: low_rank, main: {rank: 4}}, data: {sources: [{dataset: gta}]}}"
    )
    new = old.replace("lr: 0.1", "lr: 0.1, layer_decay: 1.0, backbone_delay: 0").replace("seed: 0", "seed: 1")
    configs = []
    for name, text in (("old", old), ("new", new), ("other", new.replace("1.0", "0.8"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text)
        configs.append(read_run(tmp_path / name).config)
    assert configs[0] == configs[1]
    assert {key for key in configs[2] if configs[2][key] != configs[1][key]} == {"optimizer.layer_decay"}


def test_a_ledger_with_every_state(tmp_path):
    sweep = write_study(tmp_path / "mine")
    write_run(sweep / run_name(0))
    write_run(sweep / run_name(1), finished=False)
    write_run(sweep / run_name(3), finished=False)
    write_trial(sweep, 0, {"optimizer.lr": 0.1}, values=[0.5], run_dirs=(run_name(0),))
    write_trial(sweep, 1, {"optimizer.lr": 0.2}, "running", run_dirs=())
    write_trial(sweep, 2, {"optimizer.lr": 0.3}, "failed", reason="ValueError: lr is too high")
    write_trial(sweep, 3, {"optimizer.lr": 0.4}, "pruned", reason="median", run_dirs=(run_name(3),))
    write_trial(sweep, 4, {"optimizer.lr": 0.5}, "waiting")
    study = read_sweep(sweep)
    assert [(t.number, t.state, len(t.runs)) for t in study.trials] == [
        (0, "complete", 1), (1, "running", 1), (2, "failed", 0), (3, "pruned", 1), (4, "waiting", 0),
    ]  # fmt: skip
    failed = study.trials[2]
    assert failed.reason == "ValueError: lr is too high" and failed.log == sweep / "ledger/0002/unit_0/log.txt"
    assert study.trials[0].values == [0.5] and study.trials[1].runs[0].step == 10
    assert (study.name, study.command) == ("mine", "train.py -m sweeps=mine hydra/launcher=slurm")


def test_the_reason_of_a_unit_is_enough(tmp_path):
    """A driver that was killed may have left a trial's state behind what its job wrote."""
    sweep = write_study(tmp_path / "mine")
    entry = write_trial(sweep, 0, {}, "failed")
    outcome = {"attempt": 1, "status": "failed", "reason": "RuntimeError: from the job", "run_dir": None}
    (entry / "unit_0/outcome.json").write_text(json.dumps(outcome))
    (entry / "state.json").unlink()
    (trial,) = read_sweep(sweep).trials
    assert trial.state == "waiting" and trial.reason == "RuntimeError: from the job"


def test_repeats_are_runs_of_one_trial(tmp_path):
    sweep = write_study(tmp_path / "mine")
    dirs = tuple(f"{run_name(0)}/seed_{seed}" for seed in (3, 4))
    for seed, run_dir in zip((3, 4), dirs, strict=True):
        write_run(sweep / run_dir, seed)
    write_trial(sweep, 0, {}, values=[0.5], run_dirs=dirs)
    (trial,) = read_sweep(sweep).trials
    assert [run.seed for run in trial.runs] == [3, 4] and trial.runs[0].key == trial.runs[1].key


def test_an_old_sweep_without_a_ledger(tmp_path):
    write_run(tmp_path / "s" / run_name(0), 0)
    write_run(tmp_path / "s" / run_name(1), 1, finished=False)
    write_run(tmp_path / "s" / f"{run_name(0)}.old-20260101-000000")  # what fresh=true left behind
    (tmp_path / "s/multirun.yaml").write_text("")
    study = read_sweep(tmp_path / "s")
    assert [(t.name, t.state) for t in study.trials] == [("0000", "complete"), ("0001", "unfinished")]
    assert study.directions == ["maximize"] and study.objectives == ["source_val"]
    assert study.command == "train.py -m adapter=a,b seed=0,1"
    assert study.trials[1].log and study.trials[1].log.name == "train.log"


def test_runs_beside_each_other(tmp_path):
    paths = [write_run(tmp_path / place / "run", 0) for place in ("a/runs", "b/runs")]
    study = read_runs(paths)
    assert study.folder == tmp_path and not study.is_sweep and study.command is None
    assert [t.kind for t in study.trials] == ["run", "run"]


def test_precision_and_weights_make_other_groups(tmp_path):
    one, two = (write_run(tmp_path / name) for name in "ab")
    about = json.loads((two / "run.json").read_text())
    (two / "run.json").write_text(json.dumps(about | {"precision": "bf16-mixed"}))
    keys = {run.key for run in read_runs([one, two]).runs}
    assert len(keys) == 2


def test_bad_paths_are_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "outputs/sweeps/right" / run_name(0))
    with pytest.raises(UserError, match=re.escape("sweep=wrong: no such folder; sweeps near it: outputs/sweeps/right")):
        read_sweep(tmp_path.relative_to(tmp_path) / "wrong")
    with pytest.raises(UserError, match=r"holds neither trial_\* folders nor a ledger; sweeps near it: .*/right"):
        read_sweep(tmp_path / "outputs/sweeps")
    with pytest.raises(UserError, match=re.escape("runs=outputs/runs/*: no run directory")):
        run_paths("outputs/runs/*")
    with pytest.raises(UserError, match=re.escape("it is a sweep's: sweep=outputs/sweeps/right")):
        run_paths("outputs/sweeps/right")
    (tmp_path / "outputs/sweeps/right" / run_name(0) / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"result.json: cannot be read"):
        read_sweep(tmp_path / "outputs/sweeps/right")


def test_objectives_by_their_place_in_the_result():
    names = (
        "source_val",
        "miou.source_val",
        "target_mean",
        "miou.mean",
        "miou.targets.night",
        "params.total",
        "seconds",
    )
    assert [name for name in names if is_miou(name)] == list(names[:5])
    assert [name for name in names if is_of_targets(name)] == list(names[2:5])


def test_patterns_and_lists_of_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two = (write_run(tmp_path / "runs" / name) for name in "ab")
    (tmp_path / "runs/c").mkdir()
    assert [p.name for p in run_paths("runs/*")] == ["a", "b"]
    assert run_paths([str(one), f"{tmp_path}/runs/*"]) == [one, two]


def test_a_study_with_a_field_of_another_type_is_told_in_one_line(tmp_path):
    sweep = write_study(tmp_path / "mine", directions=5)
    write_trial(sweep, 0, {})
    with pytest.raises(UserError, match=r"study\.json: directions is 5, not a list"):
        read_sweep(sweep)


@pytest.mark.parametrize("content", ["null", "[]", '"x"', "3"])
@pytest.mark.parametrize("name", ["study.json", "config.yaml", "run.json", "result.json"])
def test_a_record_that_holds_something_else_is_told_in_one_line(tmp_path, name: str, content: str):
    sweep = write_study(tmp_path / "mine")
    write_run(sweep / run_name(0))
    write_trial(sweep, 0, {}, values=[0.5], run_dirs=(run_name(0),))
    path = sweep / name if name == "study.json" else sweep / run_name(0) / name
    path.write_text(content)
    with pytest.raises(UserError, match=rf"{name}: its content is .*, not ") as refused:
        read_sweep(sweep)
    assert "\n" not in str(refused.value)
