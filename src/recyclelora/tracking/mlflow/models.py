"""The adapter of a finished run as an MLflow model: safetensors and JSON, loaded by this project's own code."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from pathlib import Path
from typing import Any

from recyclelora.config.run import Config
from recyclelora.runs.directory import ADAPTER, ADAPTER_CONFIG, CONFIG, METRICS, RECORD
from recyclelora.runs.metrics_log import FINAL
from recyclelora.system.errors import UserError
from recyclelora.system.storage import is_own_file
from recyclelora.system.typed_json import read_object
from recyclelora.tracking.mlflow.deadline import deadline
from recyclelora.tracking.mlflow.outbox import points_of

LOADER = "recyclelora.tracking.pyfunc"
CONTENT = (ADAPTER, ADAPTER_CONFIG, CONFIG, RECORD)
"""What ``recyclelora.load`` needs; the backbone's weights stay a reference by hash."""
REQUIREMENTS = ("torch", "torchvision", "timm", "transformers", "safetensors", "hydra-core", "omegaconf", "mlflow")
PENDING, READY = "PENDING", "READY"


def log_model(client: Any, run_id: str, run_dir: Path, config: Config) -> str | None:
    """Give a finished run its model, unless it has one; one whose upload was cut off is completed.

    Returns:
        the id of the model; None for a run without an adapter file.
    """
    from mlflow.exceptions import MlflowException

    if not (run_dir / CONTENT[0]).is_file():
        return None
    run = client.get_run(run_id)
    try:
        model = _existing(client, run)
    except MlflowException as error:
        if error.error_code not in ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED"):
            raise
        raise UserError(
            "this MLflow server is older than 3 and keeps no models: leave them out with tracking.model=false"
        ) from error
    if model is not None and str(model.status) == READY:
        return str(model.model_id)
    about = read_object(run_dir / ADAPTER_CONFIG)
    if model is None:
        tags = {"signature": about["signature"], "weights_sha256": str(about["weights_sha256"])}
        params = {"adapter": config.adapter.name, "backbone": config.backbone.name, "decoder": config.decoder.name}
        name = f"{config.adapter.name}-{config.backbone.name}-{config.data.name}"
        model = client.create_logged_model(
            run.info.experiment_id, name, run_id, tags, params, model_type="segmentation"
        )
    with tempfile.TemporaryDirectory() as folder:
        saved = _saved(Path(folder), run_dir, model, run_id)
        with deadline(sum(path.stat().st_size for path in saved.rglob("*"))):
            client.log_model_artifacts(model.model_id, str(saved))
    _link(client, run, model.model_id, about["step"], run_dir)
    client.finalize_logged_model(model.model_id, READY)
    return str(model.model_id)


def _existing(client: Any, run: Any) -> Any:
    wanted = f"source_run_id = '{run.info.run_id}'"
    found = client.search_logged_models([run.info.experiment_id], wanted)
    return min(found, key=lambda model: (str(model.status) != READY, model.creation_timestamp), default=None)


def _saved(folder: Path, run_dir: Path, model: Any, run_id: str) -> Path:
    """The model's folder as MLflow lays it out: ``MLmodel`` names the loader, ``data/`` is a small run directory."""
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    data = folder / "adapter"
    data.mkdir()
    for name in CONTENT:
        if not is_own_file(run_dir, run_dir / name):
            raise UserError(f"{run_dir / name}: no plain file; links inside a run are not followed")
        shutil.copyfile(run_dir / name, data / name)
    installed = {found.name for found in importlib.metadata.distributions()}
    needs = [f"{name}=={importlib.metadata.version(name)}" for name in REQUIREMENTS if name in installed]
    about = Model(run_id=run_id, model_id=model.model_id, artifact_path=model.artifact_location)
    save_model(
        str(folder / "model"), loader_module=LOADER, data_path=str(data), mlflow_model=about, pip_requirements=needs
    )
    return folder / "model"


def _link(client: Any, run: Any, model_id: str, step: int, run_dir: Path) -> None:
    """Show the model on the run's page, and the final scores on the model's."""
    from mlflow.entities import LoggedModelOutput, Metric

    client.log_outputs(run.info.run_id, [LoggedModelOutput(model_id, step)])
    final = [point for point in points_of(run_dir / METRICS) if point[0].startswith(FINAL)]
    metrics = [Metric(*point, model_id=model_id, run_id=run.info.run_id) for point in final]
    if metrics:
        client.log_batch(run.info.run_id, metrics=metrics)


def register(client: Any, run_id: str, run_dir: Path, config: Config, name: str, *, from_artifacts: bool) -> str:
    """Make the run's model a version of the registered model ``name``; a second call finds the same version.

    Args:
        client: of MLflow
        run_id: of the run
        run_dir: its directory
        config: its configuration
        name: of the registered model; made where there is none
        from_artifacts: name the version's source by its place, not by its id

    Returns:
        the version.

    Raises:
        UserError: the run has no adapter to register.
    """
    from mlflow.exceptions import MlflowException

    model_id = log_model(client, run_id, run_dir, config)
    if model_id is None:
        raise UserError(f"{run_dir}: no {CONTENT[0]} to register; is the run finished?")
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name = '{name}'")
    for version in versions:
        if version.run_id == run_id:
            return str(version.version)
    # a store opened as a database looks ids up in the process's default store
    source = client.get_logged_model(model_id).artifact_location if from_artifacts else f"models:/{model_id}"
    created = client.create_model_version(name, source, run_id=run_id, model_id=model_id)
    return str(created.version)
