"""What lies where in the directory of a run. No other file knows these names."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from recyclelora.system.typed_json import Time, read_record

CONFIG = "config.yaml"
"""What was asked; a folder with it is a run's."""
RECORD = "run.json"
"""Where the run came from: :class:`RunRecord`."""
METRICS = "metrics.jsonl"
"""One JSON object a line: every point of every curve."""
LOG = "train.log"
ADAPTER, ADAPTER_CONFIG = "adapter.safetensors", "adapter_config.json"
"""All that a finished run adds to its pretrained backbone."""
BACKBONE = "backbone.safetensors"
"""The frozen weights of an imported run whose checkpoint brought its own."""
RESULT = "result.json"
"""Written last: a run with it is finished. :class:`ResultRecord`"""
ENDED = "ended.json"
"""Of a launch that ended without a result; gone as soon as the run goes on."""
CHECKPOINTS, FIGURES, EVALUATIONS = "checkpoints", "figures", "evaluations"
PREDICTIONS = "predictions"
"""One folder for each target without labels."""
PARTIAL = "partial"
"""Inside the evaluations: what is kept of one that may be stopped."""
ANALYSIS, EXPORTS = "analysis", "export"


class RunRecord(TypedDict):
    """What every reader needs of ``run.json``; there is more in it."""

    signature: str
    command: str
    protocol: NotRequired[str]
    started: NotRequired[Time]
    git: NotRequired[dict[str, Any] | None]
    resumed: NotRequired[list[dict[str, Any]]]
    host: NotRequired[dict[str, Any]]
    datasets: NotRequired[list[dict[str, Any]]]


class TrainedRecord(RunRecord):
    """``run.json`` of a run that can be used."""

    weights_sha256: str | None
    precision: str


class ResultRecord(TypedDict):
    """What every reader needs of ``result.json``; all of it is in ``result.schema.json``."""

    objective: float | None
    seconds: float
    steps: int
    params: dict[str, Any]
    peak_memory_mb: NotRequired[float | None]
    movement: NotRequired[float | None]
    objective_name: NotRequired[str]
    protocol: NotRequired[str]
    seed: NotRequired[int]
    classes: NotRequired[list[str]]
    selection: NotRequired[dict[str, dict[str, Any]]]
    iou_per_class: NotRequired[dict[str, list[float | None]]]


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's."""
    return (folder / CONFIG).is_file()


def not_a_run(folder: Path) -> str:
    """Why a folder is refused where a run's is wanted; a sweep's, or a name with a slip, says which runs are meant."""
    inside = [path.parent for depth in ("*", "*/*") for path in sorted(folder.glob(f"{depth}/{CONFIG}"))]
    beside = {path.parent.name: path.parent for path in folder.parent.glob(f"*/{CONFIG}")}
    meant = inside[:3] or [beside[name] for name in difflib.get_close_matches(folder.name, list(beside))]
    hint = f"; runs {'in' if inside else 'near'} it: {', '.join(map(str, meant))}" if meant else ""
    return f"{folder}: not a run directory (it has no {CONFIG}){hint}{', ...' if len(inside) > 3 else ''}"


def outputs_of(path: Path) -> Path | None:
    """The outputs folder in whose ``runs`` or ``sweeps`` a run or a sweep lies, also where it was moved."""
    return next((parent.parent for parent in path.parents if parent.name in ("runs", "sweeps")), None)


def is_finished(run_dir: Path) -> bool:
    """Whether a run has its result."""
    return (run_dir / RESULT).is_file()


@dataclass(frozen=True)
class RunDirectory:
    """Where everything of one run is written."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """One folder for each kept checkpoint."""
        return self.path / CHECKPOINTS

    @property
    def scores(self) -> Path:
        """The scores of all evaluations so far, as they come."""
        return self.checkpoints / "scores.json"

    @property
    def figures(self) -> Path:
        """PNG pictures."""
        return self.path / FIGURES

    @property
    def image_counts(self) -> Path:
        """``<step>/<set>.safetensors``: the confusion matrix of every single image of a set."""
        return self.path / EVALUATIONS / "images"

    @property
    def partial_counts(self) -> Path:
        """What is kept of an evaluation that may be stopped."""
        return self.path / EVALUATIONS / PARTIAL

    @property
    def unreadable(self) -> Path:
        """Files of the data that this run could not read, and how many bytes they had."""
        return self.path / "unreadable.json"

    def alike(self) -> list[RunDirectory]:
        """The directories that are there and have this one's name but for the signature in it."""
        signed = self.path if re.search(r"-[0-9a-f]{16}$", self.path.name) else self.path.parent
        pattern = re.sub(r"[0-9a-f]{16}$", 16 * "[0-9a-f]", signed.name)
        found = (folder / self.path.relative_to(signed) for folder in signed.parent.glob(pattern))
        return [RunDirectory(path) for path in sorted(found) if path.is_dir()]

    def result(self) -> dict[str, Any] | None:
        """The finished result, if there is one."""
        if not is_finished(self.path):
            return None
        result: Any = read_record(self.path / RESULT, ResultRecord)
        return dict(result)
