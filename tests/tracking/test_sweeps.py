"""One sweep directory becomes a parent run with the runs of its trials nested inside."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tracked import client_of, history, outcome, run_files, trial

from recyclelora.sweep.ledger import Ledger
from recyclelora.system.storage import locked
from recyclelora.tracking.follow import sync
from recyclelora.tracking.mlflow.sweeps import SweepSender
from recyclelora.tracking.mlflow.views import TAG, TRIALS


@pytest.fixture
def config(tracked_config):
    return replace(tracked_config, study="mine")


@pytest.fixture
def sweep(config) -> Path:
    """Three trials of four: one complete, one failed, one that a kill of everything left behind."""
    folder = Path(config.output_dir) / "sweeps" / "mine"
    study = {
        "command": "train.py -m adapter.main.rank=2,3", "directions": ["maximize"], "n_trials": 4,
        "objectives": ["source_val"], "created": "2026-01-02T04:00:00+00:00", "tuned_on_targets": False,
    }  # fmt: skip
    for number, finished in ((0, True), (1, False), (2, False)):
        run_files(folder / f"trial_{number:04d}-{number:016x}", replace(config, seed=number), finished=finished)
    (folder / "study.json").write_text(json.dumps(study))
    trial(folder, 0, "complete", 0.25)
    failed = trial(folder, 1, "failed", reason="step 2: the loss is nan")
    outcome(failed, "failed", folder / "trial_0001-0000000000000001", "step 2: the loss is nan")
    trial(folder, 2, "running")
    return folder


def runs_of(config) -> tuple[dict, dict]:
    """(parent, {trial number: run}) of the study."""
    client = client_of(config)
    found = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    (parent,) = (run for run in found if run.data.tags.get("role") == "sweep")
    children = {run.data.tags["trial"]: run for run in found if "trial" in run.data.tags}
    assert len(children) == len(found) - 1
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    return parent, children


def test_trials_are_nested_with_the_states_that_the_ledger_tells(config, sweep):
    sync(sweep)
    parent, trials = runs_of(config)
    assert parent.data.tags["mlflow.user"] == sweep.owner()
    states = {number: (run.info.status, run.data.tags["state"]) for number, run in trials.items()}
    assert states["0"] == ("FINISHED", "finished")
    assert states["1"] == ("FAILED", "failed: step 2: the loss is nan")
    assert states["2"][0] == "KILLED"
    assert trials["1"].data.tags["trial_state"] == "failed"
    assert trials["1"].info.run_name == "trial 1 main.rank=3 seed=1"
    assert history(client_of(config), trials["0"].info.run_id, "loss_ce") == [(1, 0.5), (2, 0.25)]
    assert parent.info.status == "KILLED"  # two of four trials are over
    assert parent.data.tags["trials"] == "1 complete, 1 failed, 1 running"


def test_the_parent_is_the_sweep_at_a_glance(config, sweep):
    run_files(sweep / "trial_0003-3333333333333333", replace(config, seed=3))
    trial(sweep, 2, "pruned", reason="pruned")
    trial(sweep, 3, "complete", 0.375)
    (sweep / "report").mkdir()
    (sweep / "report/report.html").write_text("<p>")
    parent_id = sync(sweep)
    assert sync(sweep) == parent_id
    parent, trials = runs_of(config)
    client = client_of(config)
    assert parent.info.run_name == "sweep mine" and parent.info.status == "FINISHED"
    assert history(client, parent_id, "best_source_val") == [(1, 0.25), (2, 0.25), (3, 0.25), (4, 0.375)]
    assert history(client, parent_id, "trials/failed") == [(1, 0), (2, 1), (3, 1), (4, 1)]
    assert parent.data.tags["best_trial"] == "3" and parent.data.tags["tuned_on_targets"] == "false"
    assert parent.info.end_time - parent.info.start_time == 3 * 60_000
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("`python train.py -m adapter.main.rank=2,3`")
    assert "| trial | source_val | adapter.main.rank |" in note and "| 3 | 0.3750 | 5 |" in note
    assert note.index("| 3 | 0.3750") < note.index("| 0 | 0.2500")
    assert "- trial 1 failed: step 2: the loss is nan" in note
    assert {f.path for f in client.list_artifacts(parent_id)} == {"report", "study.json"}
    assert [f.path for f in client.list_artifacts(parent_id, "report")] == ["report/report.html"]
    assert (trials["2"].info.status, trials["2"].data.tags["state"]) == ("KILLED", "pruned: pruned")


def test_what_a_study_chose_are_the_first_parameters_and_the_columns_of_its_table(config, sweep):
    """MLflow's page that compares runs begins with the first parameters that differ, by name."""
    sync(sweep)
    _, trials = runs_of(config)
    client, params = client_of(config), trials["0"].data.params
    assert min(params) == "Trial.main.rank" and params["Trial.main.rank"] == "2"
    tags = client.get_experiment(trials["0"].info.experiment_id).tags
    state = json.loads(tags[TAG + TRIALS])
    assert state["selectedColumns"][:3] == [
        "params.`Trial.main.rank`", "metrics.`objective`", "metrics.`final_miou/mean`"]  # fmt: skip
    assert tags["mlflow.note.content"].endswith("\n\n`python train.py -m adapter.main.rank=2,3`")


def test_a_trial_that_breaks_a_constraint_is_not_the_best(config, sweep):
    trial(sweep, 2, "complete", 0.5)
    (about,) = (t for t in Ledger(sweep).trials() if t.number == 2)
    about.constraints = [0.25]
    about.save_state()
    parent_id = sync(sweep)
    parent, _ = runs_of(config)
    assert parent.data.tags["best_trial"] == "0" and "| 2 | 0.5000" not in parent.data.tags["mlflow.note.content"]
    assert [value for _, value in history(client_of(config), parent_id, "best_source_val")] == [0.25] * 3


def test_a_note_of_the_users_own_is_left_alone(config, sweep):
    client = client_of(config)
    parent = sync(sweep)
    client.set_tag(parent, "mlflow.note.content", "the good one")
    trial(sweep, 2, "complete", 0.5)
    sync(sweep)
    assert client.get_run(parent).data.tags["mlflow.note.content"] == "the good one"


def test_passes_while_the_sweep_runs_send_what_is_new(config, sweep):
    sender = SweepSender(sweep)
    assert sender.send(last=False) == {}
    parent, trials = runs_of(config)
    assert parent.info.status == "RUNNING" and trials["2"].info.status == "RUNNING"
    seeds = sweep / "trial_0003-3333333333333333"
    for seed in (0, 1):
        run_files(seeds / f"seed_{seed}", replace(config, seed=seed), finished=False)
    trial(sweep, 3, "running")
    with locked(sweep / "trial_0002-0000000000000002"):
        sender.send(last=False)
        sender.send(last=True)
    client = client_of(config)
    found = client.search_runs([parent.info.experiment_id])
    assert len(found) == 1 + 3 + 2
    assert {r.info.status for r in found if r.data.tags.get("trial") == "3"} == {"KILLED"}
    assert {r.info.status for r in found if r.data.tags.get("trial") == "2"} == {"RUNNING"}


def test_one_broken_run_keeps_none_of_the_others_back(config, sweep):
    (sweep / "trial_0000-0000000000000000/run.json").write_text('{"command": "x", "signature": 3}\n')
    failures = SweepSender(sweep).send(last=True)
    assert [path.name for path in failures] == ["trial_0000-0000000000000000"]
    assert runs_of(config)[1]["1"].info.status == "FAILED"


@pytest.mark.slow
def test_many_processes_that_start_at_once_make_one_parent(config, sweep):
    """Trials of Hydra's own sweeper are each sent by themselves, and so may a user do."""
    for path in (sweep / "ledger").rglob("*.json"):
        path.unlink()
    (Path(config.output_dir) / "mlflow.db").unlink()
    command = [sys.executable, "-m", "recyclelora.tracking", "sync"]
    started = [subprocess.Popen([*command, str(path)]) for path in sorted(sweep.glob("trial_*"))]
    assert [process.wait(timeout=200) for process in started] == [0, 0, 0]
    client = client_of(config)
    found = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert len(found) == 4 and len({r.data.tags.get("mlflow.parentRunId") for r in found}) == 2


def test_no_curve_loses_a_value_when_the_clock_goes_back(config, sweep):
    """A trial that ends later, by a clock that was set back, comes later."""
    parent = sync(sweep)
    trial(sweep, 2, "complete", 0.5)
    (late,) = (t for t in Ledger(sweep).trials() if t.number == 2)
    late.finished = "2026-01-02T03:00:00+00:00"
    late.save_state()
    assert sync(sweep) == parent
    client = client_of(config)
    assert sorted(history(client, parent, "trial_source_val")) == [(1, 0.25), (3, 0.5)]
    assert sorted(history(client, parent, "trials/complete")) == [(1, 1), (2, 1), (3, 2)]


@pytest.mark.parametrize("text", ["null", "[]", '{"uri": 3}'])
def test_records_that_were_edited_cost_only_themselves(config, sweep, text, capsys):
    parent = sync(sweep)
    (sweep / "mlflow.json").write_text(text)
    assert sync(sweep) == parent  # found again by its tags
    (sweep / "study.json").write_text(text)
    (sweep / "ledger/0001/trial.json").write_text(text)
    (sweep / "ledger/0000/state.json").write_text(text)
    sync(sweep)
    said = capsys.readouterr().out
    assert all(f"{name}: " in said for name in ("study.json", "mlflow.json", "0001/trial.json", "0000/state.json"))
    assert len(runs_of(config)[1]) == 3 and parent
