"""A finished run's adapter as an MLflow model: loadable, registered, and without pickles."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from conftest import make_cityscapes, make_gta
from mlflow_server import serving
from postgresql import database, postgresql  # noqa: F401
from tracked import client_of

import recyclelora
from recyclelora.config.compose import ConfigError
from recyclelora.tracking.follow import sync
from recyclelora.tracking.mlflow.passes import register
from recyclelora.training.run import Run


@pytest.fixture(scope="module")
def trained(tiny_config, empty_store, tmp_path_factory):
    """A run that has really trained, sent with its model: (configuration, directory, MLflow run)."""
    folder = tmp_path_factory.mktemp("trained")
    make_gta(folder / "data")
    make_cityscapes(folder / "data")
    data = replace(tiny_config.data, root=str(folder / "data"))
    config = replace(tiny_config, data=data, output_dir=str(folder / "outputs"), cache=str(folder / "cache"))
    (folder / "outputs").mkdir()
    shutil.copy(empty_store, folder / "outputs/mlflow.db")
    Run.identify(config, None).execute()
    (path,) = (folder / "outputs/runs").iterdir()
    return config, path, client_of(config).get_run(sync(path))


def model_of(trained):
    config, _, run = trained
    (model,) = client_of(config).search_logged_models([run.info.experiment_id])
    return model


def test_a_finished_run_has_one_model_with_its_scores(trained):
    config, path, run = trained
    assert sync(path) == run.info.run_id
    model = model_of(trained)
    assert model.source_run_id == run.info.run_id and str(model.status) == "READY"
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert model.name == "recyclelora-vit_tiny_test-gta2city" and model.model_type == "segmentation"
    scores = {metric.key: metric.value for metric in model.metrics}
    assert scores["final_miou/cityscapes"] == run.data.metrics["final_miou/cityscapes"]
    history = client_of(config).get_metric_history(run.info.run_id, "final_miou/cityscapes")
    assert len(history) == 1


def test_the_model_is_safetensors_and_a_loader_by_name(trained):
    folder = Path(mlflow.artifacts.download_artifacts(model_of(trained).artifact_location))
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    data = {"adapter.safetensors", "adapter_config.json", "config.yaml", "run.json"}
    about = {"MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt"}
    assert files == about | {f"data/adapter/{name}" for name in data} or files == about | {f"data/{n}" for n in data}
    flavour = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["python_function"]
    assert flavour["loader_module"] == "recyclelora.tracking.pyfunc" and "python_model" not in flavour


def test_the_loaded_model_predicts_what_the_run_predicts(trained, monkeypatch):
    config, path, _ = trained
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{Path(config.output_dir).absolute()}/mlflow.db")
    mlflow.set_tracking_uri(None)
    loaded = mlflow.pyfunc.load_model(f"models:/{model_of(trained).model_id}")
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    expected = recyclelora.load(path).predict(image).ids
    np.testing.assert_array_equal(loaded.predict(image), expected)
    several = loaded.predict(np.stack([image, image[::-1]]))
    assert len(several) == 2 and several[0].shape == (96, 128) and several[0].dtype == np.uint8
    file = next((Path(config.data.root) / "gta/images").iterdir())
    (mask,) = loaded.predict([str(file)])
    assert mask.shape == (96, 192) and (mask == loaded.predict(str(file))).all()


def check_elsewhere(trained, uri, monkeypatch):
    """The run is sent to a store it was not trained with, registered there, and loaded from there."""
    path = trained[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert register(path, "streets") == "1"
    client = mlflow.MlflowClient(uri)
    (version,) = client.search_model_versions("name = 'streets'")
    assert client.get_run(version.run_id).data.metrics["final_miou/cityscapes"] >= 0
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        loaded = mlflow.pyfunc.load_model("models:/streets/1")
    finally:
        mlflow.set_tracking_uri(before)
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    np.testing.assert_array_equal(loaded.predict(image), recyclelora.load(path).predict(image).ids)


@pytest.mark.slow
def test_a_model_goes_through_a_server(trained, tmp_path, empty_store, monkeypatch):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    with serving(tmp_path) as port:
        check_elsewhere(trained, f"http://127.0.0.1:{port}", monkeypatch)


@pytest.mark.slow
def test_a_model_goes_into_postgresql(trained, database, monkeypatch):
    port, password = database
    monkeypatch.setenv("PGPASSWORD", password.read_text().strip())
    check_elsewhere(trained, f"postgresql+psycopg://mlflow@127.0.0.1:{port}/mlflow", monkeypatch)


def test_registering_twice_makes_one_version(trained):
    config, path, run = trained
    assert register(path, "streets") == register(path, "streets") == "1"
    (version,) = client_of(config).search_model_versions("name = 'streets'")
    assert version.run_id == run.info.run_id
    with pytest.raises(ConfigError, match=r"config\.yaml: no such file"):
        register(path / "figures", "streets")
