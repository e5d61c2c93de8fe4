"""One run directory becomes one MLflow run."""

from __future__ import annotations

import copy
import json
import math
import shutil
from pathlib import Path

import pytest
from tracked import client_of, finish, finished_run, history

from recyclelora.config.compose import ConfigError, validate
from recyclelora.runs.metrics_log import MetricsLog
from recyclelora.runs.status import RunEnd, noted_end, run_end
from recyclelora.system.errors import UserError
from recyclelora.system.storage import locked
from recyclelora.tracking.follow import sync
from recyclelora.tracking.mlflow.passes import run_sender
from recyclelora.tracking.mlflow.store import Store
from recyclelora.tracking.mlflow.views import RUNS, TAG, link
from recyclelora.tracking.run_facts import changes, flat_parameters, run_name


@pytest.fixture
def config(tracked_config):
    return tracked_config


@pytest.fixture(scope="module")
def run(tiny_config, empty_store, tmp_path_factory):
    """A sent run, to be looked at: (directory, client, MLflow run)."""
    config = copy.deepcopy(tiny_config)
    config.output_dir = str(tmp_path_factory.mktemp("outputs"))
    shutil.copy(empty_store, Path(config.output_dir) / "mlflow.db")
    path, client = finished_run(config), client_of(config)
    return path, client, client.get_run(sync(path))


def test_every_point_arrives_once(config):
    path, client = finished_run(config), client_of(config)
    run_id = sync(path)
    MetricsLog(path / "metrics.jsonl").append(3, {"loss_ce": 0.125})
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "ti')  # a line that is being written
    assert sync(path) == run_id
    assert history(client, run_id, "loss_ce") == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert history(client, run_id, "miou/day") == [(1, 0.25), (2, 0.125)]


def test_a_sender_that_died_between_sending_and_writing_doubles_nothing(config):
    path, client = finished_run(config), client_of(config)
    run_id = sync(path)
    (path / "mlflow.json").unlink()  # all that the sender knew
    assert sync(path) == run_id
    assert history(client, run_id, "loss_ce") == [(1, 0.5), (2, 0.25)]


def test_a_resumed_run_goes_on_in_the_same_mlflow_run_without_doubled_points(config):
    """It was stopped after step 3, of which the last checkpoint knows only two."""
    path, client = finished_run(config, finished=False, points=((1, 0.5), (2, 0.25), (3, 0.125))), client_of(config)
    run_id = sync(path)
    log = MetricsLog(path / "metrics.jsonl")
    log.rewind(2)
    for step, loss in ((3, 0.125), (4, 0.0625)):
        log.append(step, {"loss_ce": loss})
    finish(path)
    assert sync(path) == run_id
    assert history(client, run_id, "loss_ce") == [(1, 0.5), (2, 0.25), (3, 0.125), (4, 0.0625)]
    assert client.get_run(run_id).info.status == "FINISHED"


def test_fresh_directories_of_the_same_configuration_are_other_runs(config, tmp_path):
    path = finished_run(config)
    first = sync(path)
    path.rename(path.with_name("run0.old-1"))
    about = json.loads((finished_run(config) / "run.json").read_text()) | {"started": "2026-01-02T05:00:00+0000"}
    (path / "run.json").write_text(json.dumps(about))
    assert sync(path) != first


def test_parameters_tags_note_pictures_and_times(run):
    path, client, sent = run
    params, tags = sent.data.params, sent.data.tags
    assert params["adapter.main.rank"] == "4" and params["adapter.sub.init"] == "rrqr_major"
    assert params["data.num_classes"] == "19" and params["data.class_names"].startswith("road, sidewalk, building")
    assert not [key for key in params if key.startswith(("output_dir", "cache", "tracking"))]
    assert tags["signature"] == "0" * 16 and tags["mlflow.source.git.commit"] == "abc"
    assert tags["mlflow.user"] == path.owner()
    assert tags["slurm_job"] == "71" and tags["seed"] == "0" and tags["protocol"] == "whole"
    assert tags["tuned_on_targets"] == "false" and tags["state"] == "finished"
    assert "adapter.main.rank=4" in tags["changed"] and "adapter.alpha" not in tags["changed"]
    assert tags["mlflow.note.content"].startswith(f"**{sent.info.run_name}**\n\n`python train.py adapter=x`")
    assert "| adapter.main.rank | 4 | 32 |" in tags["mlflow.note.content"]
    assert sent.info.run_name == "recyclelora-4+2 vit_tiny_test gta2city seed 0"
    assert sent.info.status == "FINISHED" and sent.info.start_time == 1767323045000
    assert sent.info.end_time == pytest.approx(1000 * (path / "metrics.jsonl").stat().st_mtime, abs=2000)
    assert {f.path for f in client.list_artifacts(sent.info.run_id)} == {
        "config.yaml", "figures", "result.json", "run.json"}  # fmt: skip
    assert [f.path for f in client.list_artifacts(sent.info.run_id, "figures")] == ["figures/overview.png"]


def test_what_runs_are_sorted_by_are_metrics(run):
    metrics = run[2].data.metrics
    assert metrics["objective"] == 0.375 and metrics["seconds"] == 8 and metrics["peak_memory_mb"] == 512
    assert metrics["parameters/backbone_trainable"] == 10


def test_the_score_that_counts_comes_first_and_is_nan_until_it_is_known(config):
    """MLflow's page that compares runs begins with the metric that was there first."""
    path, client = finished_run(config, finished=False), client_of(config)
    run_id = sync(path)
    (first,) = [m.key for m in client.get_run(run_id).to_proto().data.metrics][:1]
    assert first == "final_miou/mean"
    ((step, value),) = history(client, run_id, first)
    assert step == 0 and math.isnan(value)
    finish(path)
    MetricsLog(path / "metrics.jsonl").append(2, {"final_miou/mean": 0.25, "final_miou/cityscapes": 0.25})
    sync(path)
    assert client.get_run(run_id).data.metrics["final_miou/mean"] == 0.25


def test_an_experiment_has_a_view_and_a_description_that_a_user_may_replace(config):
    client, run_id = client_of(config), sync(finished_run(config))
    experiment = client.get_run(run_id).info.experiment_id
    tags = client.get_experiment(experiment).tags
    assert tags["mlflow.experiment.primaryMetric.name"] == "final_miou/mean"
    assert f"[Table of all runs]({link(experiment, RUNS)})" in tags["mlflow.note.content"]
    columns = json.loads(tags[TAG + RUNS])["selectedColumns"]
    assert columns[:3] == [f"metrics.`final_miou/{name}`" for name in ("mean", "cityscapes", "source_val")]
    client.set_experiment_tag(experiment, "mlflow.note.content", "mine")
    sync(finished_run(config, "run1"))
    assert client.get_experiment(experiment).tags["mlflow.note.content"] == "mine"


def test_data_sets_are_inputs_with_a_context(run):
    inputs = run[2].inputs.dataset_inputs
    contexts = {(i.dataset.name, i.tags[0].value) for i in inputs}
    assert contexts == {("gta (train)", "train"), ("gta (held_out)", "validation"), ("cityscapes (val)", "target")}
    assert {i.tags[0].key for i in inputs} == {"mlflow.data.context"}
    assert len({i.dataset.digest for i in inputs}) == 3
    assert json.loads(inputs[0].dataset.profile)["images"] == 12


def test_what_differs_from_the_defaults(config):
    assert flat_parameters(config)["data.augment.crop"] == [64, 64]
    config.adapter.alpha, config.seed = 2.0, 3
    found = changes(config)
    assert found["adapter.main.rank"] == (4, 32) and found["adapter.alpha"] == (2.0, 1.0) and found["seed"] == (3, 0)
    assert "adapter.residual" not in found and not [name for name in found if name.startswith(("data.root", "cache"))]
    assert run_name(config).endswith("seed 3")


def test_nan_is_kept_and_infinity_is_named(config):
    path, client = finished_run(config, points=((1, 0.5), (2, math.nan), (3, math.inf))), client_of(config)
    run_id = sync(path)
    sync(path)
    (first, nan) = history(client, run_id, "loss_ce")
    assert first == (1, 0.5) and nan[0] == 2 and math.isnan(nan[1])
    assert client.get_run(run_id).data.tags["infinite"] == "loss_ce = inf at step 3; miou/day = inf at step 3"


def test_names_that_mlflow_refuses_are_written_otherwise(config):
    path = finished_run(config, points=())
    MetricsLog(path / "metrics.jsonl").append(1, {"miou/night+fog": 0.5})
    assert history(client_of(config), sync(path), "miou/night_fog") == [(1, 0.5)]


def test_an_analysis_is_sent_once_and_again_when_it_changes(config):
    path, client = finished_run(config), client_of(config)
    (path / "analysis").mkdir()
    (path / "analysis/rank.csv").write_text("layer\n")
    (path / "analysis/spectra.png").write_bytes(b"png")
    summary = {"step": 4, "metrics": {"rank_efficiency/main/trained": 0.75}}
    (path / "analysis/summary.json").write_text(json.dumps(summary))
    sync(path)
    run_id = sync(path)
    name = "analysis/rank_efficiency/main/trained"
    assert history(client, run_id, name) == [(4, 0.75)]
    files = {f.path for f in client.list_artifacts(run_id, "analysis")}
    assert files == {"analysis/rank.csv", "analysis/spectra.png", "analysis/summary.json"}
    summary["metrics"]["rank_efficiency/main/trained"] = 0.5
    (path / "analysis/summary.json").write_text(json.dumps(summary))
    sync(path)
    assert client.get_run(run_id).data.metrics[name] == 0.5


# --- what has become of a run -----------------------------------------------------------------------------------------


def test_the_state_is_that_of_the_directory(config):
    path, client = finished_run(config, finished=False), client_of(config)
    states = []

    def look() -> None:
        info = client.get_run(sync(path))
        states.append((info.info.status, info.data.tags["state"].split(":")[0]))

    look()
    with locked(path):
        look()
    for error in (UserError("step 2: the loss is nan"), KeyboardInterrupt()):
        with pytest.raises(type(error)), noted_end(path):
            raise error
        look()
    with noted_end(path):
        finish(path)
    look()
    assert states == [
        ("KILLED", "killed"), ("RUNNING", "running"), ("FAILED", "failed"), ("KILLED", "interrupted"),
        ("FINISHED", "finished"),
    ]  # fmt: skip
    assert run_end(path) == RunEnd("finished")


def test_the_reason_of_a_failure_is_on_its_page(config):
    path = finished_run(config, finished=False)
    with pytest.raises(ZeroDivisionError), noted_end(path):
        1 / 0  # noqa: B018
    tags = client_of(config).get_run(sync(path)).data.tags
    assert tags["state"] == "failed: ZeroDivisionError: division by zero"


# --- stores -----------------------------------------------------------------------------------------------------------


def test_another_store_gets_the_whole_run_and_a_lost_one_gets_it_again(config, tmp_path, monkeypatch, empty_store):
    path = finished_run(config)
    first = sync(path)
    shutil.copy(empty_store, tmp_path / "other.db")
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
        run_sender(path).send(run_end(path))
    second = json.loads((path / "mlflow.json").read_text())
    assert second["uri"].endswith("other.db") and second["run_id"] != first
    assert sync(path) == first
    shutil.copy(empty_store, Path(config.output_dir) / "mlflow.db")  # as if it had been deleted
    again = sync(path)
    assert again != first and history(client_of(config), again, "loss_ce") == [(1, 0.5), (2, 0.25)]


def test_a_run_deleted_in_mlflow_is_not_sent_again_behind_the_users_back(config):
    path = finished_run(config)
    client_of(config).delete_run(sync(path))
    with pytest.raises(UserError, match="was deleted; restore it, or remove"):
        sync(path)


def test_a_run_whose_creation_was_answered_too_late_exists_once(config):
    """Two creations reached the store; nobody has written to the second run."""
    path, client = finished_run(config), client_of(config)
    run_id = sync(path)
    tags = client.get_run(run_id).data.tags
    experiment = client.get_run(run_id).info.experiment_id
    client.create_run(experiment, start_time=0, tags={"directory": tags["directory"]})
    (path / "mlflow.json").unlink()
    assert sync(path) == run_id
    assert [r.info.run_id for r in client.search_runs([experiment])] == [run_id]


def test_passwords_are_refused_in_configurations_and_hidden_elsewhere(config, tmp_path):
    for uri in ("http://me:secret@host:5000", "https://secret@host", "https://host/?access_token=secret"):
        config.tracking.uri = uri
        with pytest.raises(ConfigError, match=r"tracking.uri='https?://.*\*\*\*.*MLFLOW_TRACKING_URI") as error:
            validate(config)
        assert "secret" not in str(error.value)
    for uri in ("https://user@host", "https://host/?access_token=secret"):  # stored by 0.1.0: such a run can be used
        config.tracking.uri = uri
        validate(config, stored=True)
    config.tracking.uri = "http://me:secret@host:5000"
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        validate(config, stored=True)
    assert Store("postgresql://me:s/ec@ret@host/db", tmp_path).name == "postgresql://me:***@host/db"


def test_the_experiment_shows_runs_and_is_named_after_the_data(run):
    _, client, sent = run
    experiment = client.get_experiment(sent.info.experiment_id)
    assert experiment.name == "gta2city" and experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_values_that_no_chart_can_show_are_announced_in_one_line(config, capsys):
    path = finished_run(config, points=((1, 0.5), (2, math.inf)))
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "time": 1.0, "loss_ce": "broken", "lr": 0.5}\n')
    run_id = sync(path)
    assert history(client_of(config), run_id, "lr") == [(3, 0.5)]
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out")]
    assert said == [
        "left out, as no chart can show it: loss_ce = inf at step 2; miou/day = inf at step 2; "
        "loss_ce at step 3 is no number"
    ]
