"""What MLflow does not have yet of a run's points and files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from recyclelora.runs.metrics_log import read_points
from recyclelora.system.errors import UserError
from recyclelora.system.storage import is_own_file, write_json
from recyclelora.system.typed_json import read_record
from recyclelora.tracking.mlflow.deadline import deadline
from recyclelora.tracking.run_facts import allowed

STATE = "mlflow.json"
BATCH = 1000
"""Points in one request; MLflow takes no more."""

Point = tuple[str, float, int, int]
"""name, value, milliseconds since 1970, step"""


class StateRecord(TypedDict):
    """``mlflow.json``."""

    uri: str
    run_id: str | None
    described: bool
    files: dict[str, int]
    order: NotRequired[list[str]]


class State:
    """``mlflow.json``: which MLflow run a directory has become, and the files it has.

    Points are not in it: MLflow itself is asked for the last step of every curve, so that a sender that was killed
    after sending and before writing doubles nothing.
    """

    def __init__(self, folder: Path, store: str) -> None:
        self.path = folder / STATE
        stored = self._stored()
        if stored is not None and stored["uri"] != store:  # it was never sent to this store
            stored = None
        self.run_id = stored["run_id"] if stored else None
        self.described = stored["described"] if stored else False
        self.files = stored["files"] if stored else {}
        self.order = stored.get("order", []) if stored else []
        """of a sweep: trials that are over, as they were counted"""
        self.store = store

    def _stored(self) -> StateRecord | None:
        try:
            return read_record(self.path, StateRecord) if self.path.exists() else None
        except UserError as error:  # the run is found again by its tags, as where the file is gone
            print(f"{error}; MLflow is asked instead", flush=True)
            return None

    def forget(self) -> None:
        """The store does not know the run any more."""
        self.run_id, self.described, self.files, self.order = None, False, {}, []

    def write(self) -> None:
        """Keep it."""
        fields = {"uri": self.store, "run_id": self.run_id, "described": self.described, "files": self.files}
        write_json(self.path, fields | ({"order": self.order} if self.order else {}))


def last_steps(run: Any) -> dict[str, int]:
    """The last step that MLflow has of every curve of a run."""
    return {metric.key: int(metric.step) for metric in run.to_proto().data.metrics}


def points_of(path: Path) -> Iterator[Point]:
    """The values of all points of a ``.jsonl`` file."""
    return points_in((int(point.pop("step")), float(point.pop("time")), point) for point in read_points(path))


def points_in(points: Iterable[tuple[int, float, dict[str, float]]]) -> Iterator[Point]:
    """Values under names that MLflow takes."""
    for step, time, values in points:
        for name, value in values.items():
            yield allowed(name), float(value), int(1000 * time), step


def send_points(client: Any, run_id: str, points: Iterator[Point], steps: dict[str, int]) -> list[str]:
    """Send the points later than the last of each curve in ``steps``, in batches, and note each batch there.

    Batches keep the order of the points, and MLflow takes a batch whole or not at all; a batch that it has already,
    because its answer was lost, changes nothing, since name, value, time and step are the same.

    Returns:
        infinite points in words; MLflow would store them as 1.8e308, which flattens every chart.
    """
    from mlflow.entities import Metric

    infinite, waiting = [], []
    latest = dict(steps)
    for name, value, stamp, step in points:
        if math.isinf(value):
            infinite.append(f"{name} = {value} at step {step}")
        elif step > latest.get(name, -1):
            latest[name] = step
            waiting.append(Metric(name, value, stamp, step))
    for first in range(0, len(waiting), BATCH):
        batch = waiting[first : first + BATCH]
        client.log_batch(run_id, metrics=batch)
        steps |= {metric.key: metric.step for metric in batch}
    return infinite


def send_files(client: Any, folder: Path, paths: list[Path], state: State, written: Callable[[Path], None]) -> None:
    """Send files that are new or changed, to artifact folders named as those they lie in; ``written`` hears of each.

    Links are no files of the folder: in somebody else's they may lead anywhere.
    """
    for path in paths:
        if not is_own_file(folder, path):
            continue
        stamp = path.stat().st_mtime_ns
        name = path.relative_to(folder).as_posix()
        if state.files.get(name) != stamp:
            with deadline(path.stat().st_size):
                client.log_artifact(state.run_id, str(path), name.rpartition("/")[0] or None)
            written(path)
            state.files[name] = stamp
            state.write()
