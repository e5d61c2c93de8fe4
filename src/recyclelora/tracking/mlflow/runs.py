"""One run directory -> one MLflow run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

from recyclelora.config.run import Config
from recyclelora.runs.directory import (
    ANALYSIS,
    CONFIG,
    ENDED,
    FIGURES,
    LOG,
    METRICS,
    RECORD,
    RESULT,
    ResultRecord,
    RunRecord,
)
from recyclelora.runs.metrics_log import FINAL
from recyclelora.runs.status import RunEnd
from recyclelora.system.errors import UserError
from recyclelora.system.storage import taking_turns
from recyclelora.system.typed_json import read_record
from recyclelora.tracking import run_facts
from recyclelora.tracking.feed import Feed
from recyclelora.tracking.mlflow.models import log_model
from recyclelora.tracking.mlflow.outbox import Point, State, last_steps, points_in, send_files, send_points
from recyclelora.tracking.mlflow.store import Store
from recyclelora.tracking.mlflow.system import SYSTEM
from recyclelora.tracking.mlflow.views import RUNS, runs_view, show

STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "pruned": "KILLED",
          "interrupted": "KILLED", "killed": "KILLED", "paused": "SCHEDULED"}  # fmt: skip
FILES = (CONFIG, RECORD, RESULT, LOG)
LIVE_FILES = (CONFIG, RECORD)
"""Sent while the run trains; the others change all the time or are written last."""
READ = (*FILES, METRICS, SYSTEM, "mlflow.json")
"""What is read of a run, and must lie in it."""
SUMMARY = f"{ANALYSIS}/summary.json"
PATTERNS = (f"{FIGURES}/**/*.png", f"{ANALYSIS}/*.png", f"{ANALYSIS}/*.csv", SUMMARY)


class SummaryRecord(TypedDict):
    """What is sent of ``analysis/summary.json``."""

    step: int
    metrics: dict[str, float]


@dataclass
class RunSender:
    """Sends one run; what it learns of MLflow it believes until a request fails."""

    run_dir: Path
    config: Config
    store: Store
    parent: str | None = None
    """the MLflow run of the sweep"""
    name: str | None = None
    """of a trial; else it follows from the configuration"""
    extra_tags: dict[str, str] = field(default_factory=dict)
    varied: dict[str, Any] = field(default_factory=dict)
    """what a sweep chose for it"""

    def __post_init__(self) -> None:
        for name in READ:
            path = self.run_dir / name
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise UserError(f"{path}: no plain file; links inside a run are not followed, so nothing of it is sent")
        self.state = State(self.run_dir, self.store.name)
        self.steps: dict[str, int] | None = None
        self.tags: dict[str, str] = {}
        self.status: str | None = None
        self.feeds = self._feeds()
        self.infinite: dict[str, list[str]] = {}
        self.own_tags: tuple[int, dict[str, str]] = (0, {})

    @property
    def client(self) -> Any:
        """MLflow's."""
        return self.store.client

    def send(self, end: RunEnd, *, model: bool = False) -> str:
        """Send what MLflow does not have yet; calling it twice sends nothing twice.

        Args:
            end: what has become of the run
            model: whether to send the adapter of a finished run

        Returns:
            the MLflow run id.
        """
        try:
            with taking_turns(self.run_dir / ".mlflow.lock"):
                return self._send(end, model=model)
        except Exception:
            self.steps, self.tags, self.status, self.feeds = None, {}, None, self._feeds()
            raise

    def left_out(self) -> list[str]:
        """Values that MLflow does not get, in words."""
        infinite = [words for found in self.infinite.values() for words in found]
        return infinite + [words for feed in self.feeds for words in feed.left_out]

    def _feeds(self) -> list[Feed]:
        """Both files of points, from their beginnings: MLflow is asked which of them it has."""
        return [Feed(self.run_dir), Feed(self.run_dir, file=SYSTEM)]

    def _send(self, end: RunEnd, *, model: bool) -> str:
        run_id = self._run()
        self._tags(end)
        self._status(end)
        self._headline()
        for feed in self.feeds:
            self._points(feed.file, points_in(feed.points()))
        if (self.run_dir / RESULT).exists():
            self._points(RESULT, self._result_points())
        self._tags(end)  # infinite points
        self._files(FILES if end.status != "running" else LIVE_FILES)
        if model and end.status == "finished":
            log_model(self.client, run_id, self.run_dir, self.config)
        return run_id

    def _run(self) -> str:
        """The MLflow run of this directory, found or created and described; ask what it has when that is not known."""
        from mlflow.exceptions import MlflowException

        if self.state.run_id is not None and self.steps is not None:
            return self.state.run_id
        run = None
        if self.state.run_id is not None:
            try:
                run = self.client.get_run(self.state.run_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                self.state.forget()  # the store was deleted and begins anew
        if run is None:
            self.state.run_id = self._create()
            self.state.write()
            run = self.client.get_run(self.state.run_id)
        if run.info.lifecycle_stage == "deleted":
            raise UserError(
                f"{self.run_dir}: MLflow run {self.state.run_id} was deleted; restore it, or remove mlflow.json"
            )
        if not self.state.described:
            self._describe(run.info.run_id)
        self.steps = last_steps(run)
        return str(run.info.run_id)

    @cached_property
    def about(self) -> RunRecord:
        """Where the run came from."""
        return read_record(self.run_dir / RECORD, RunRecord)

    @cached_property
    def experiment(self) -> str:
        """The id of its experiment."""
        named = self.config.tracking.experiment or self.config.study
        return self.store.experiment(named or self.config.data.name)

    def _create(self) -> str:
        config = self.config
        name = self.name or run_facts.run_name(config)
        tags = {"mlflow.runName": name, "mlflow.note.content": run_facts.note(config, self.about, name)}
        if self.parent is not None:
            tags["mlflow.parentRunId"] = self.parent
        began = self.about.get("started")
        identity = run_facts.identity(self.run_dir, began)
        return self.store.find_or_create(self.experiment, identity, tags, run_facts.started(began))

    def _describe(self, run_id: str) -> None:
        from mlflow.entities import Param

        flat = run_facts.flat_parameters(self.config)
        params = [Param(key, str(value)[: run_facts.LONGEST]) for key, value in flat.items()]
        for first in range(0, len(params), 100):
            self.client.log_batch(run_id, params=params[first : first + 100])
        if not self.store.log_inputs(run_id, run_facts.data_inputs(self.config, self.about)):
            print("left out: the data sets, which an MLflow server older than 2.4 does not keep", flush=True)
        if self.parent is None:
            scores = run_facts.final_scores(self.about)
            title = "Runs and their final mIoU, the best first."
            show(self.client, self.experiment, RUNS, runs_view(scores, scores[0]), scores[0], title)
        self.state.described = True
        self.state.write()

    def _headline(self) -> None:
        """The score that counts, before all other points: MLflow's page that compares runs shows the metric that came
        first. It is NaN until it is known."""
        if self.steps:
            return
        path, name = self.run_dir / RESULT, run_facts.headline(self.about)
        point = (name, math.nan, run_facts.started(self.about.get("started")), 0)
        if path.exists():
            result = read_record(path, ResultRecord)
            scores = result.get("selection", {}).get("last", {})
            value = scores.get("mean" if name == f"{FINAL}/mean" else "source_val")
            if value is not None:
                point = (name, float(value), int(1000 * path.stat().st_mtime), int(result["steps"]))
        self._points(RESULT, iter([point]))

    def _points(self, name: str, points: Iterator[Point]) -> None:
        """Send the new ones."""
        assert self.steps is not None and self.state.run_id is not None
        found = self.infinite.setdefault(name, [])
        found += [
            words for words in send_points(self.client, self.state.run_id, points, self.steps) if words not in found
        ]

    def _result_points(self) -> Iterator[Point]:
        """What runs of a study are sorted by: the objective, its cost, movement and numbers of parameters."""
        path = self.run_dir / RESULT
        result, stamp = read_record(path, ResultRecord), int(1000 * path.stat().st_mtime)
        figures = ("objective", "seconds", "gpu_seconds", "energy_wh", "peak_memory_mb", "movement")
        values: dict[str, Any] = {name: result.get(name) for name in figures}
        values |= {f"parameters/{name}": count for name, count in result["params"].items()}
        for name, value in values.items():
            if isinstance(value, int | float):
                yield name, float(value), stamp, int(result["steps"])

    def _tags(self, end: RunEnd) -> None:
        """Send the tags that are new or have changed since the run began, such as further SLURM jobs."""
        from mlflow.entities import RunTag

        path = self.run_dir / RECORD
        stamp = path.stat().st_mtime_ns
        if self.own_tags[0] != stamp:
            self.own_tags = (stamp, run_facts.tags(self.config, read_record(path, RunRecord), self.run_dir))
        tags = self.own_tags[1] | self.extra_tags
        tags |= {"state": f"{end.status}: {end.reason}" if end.reason else end.status}
        infinite = [words for found in self.infinite.values() for words in found]
        tags |= {"infinite": "; ".join(infinite)[: run_facts.LONGEST]} if infinite else {}
        new = {name: value for name, value in tags.items() if self.tags.get(name) != value}
        if new:
            params = [] if self.tags else self._varied()
            sent = [RunTag(name, value) for name, value in new.items()]
            self.client.log_batch(self.state.run_id, tags=sent, params=params)
            self.tags |= new

    def _varied(self) -> list[Any]:
        """What a sweep chose, as parameters; sending them again changes nothing."""
        from mlflow.entities import Param

        chosen = {run_facts.varied_name(name): str(value) for name, value in self.varied.items()}
        return [Param(name, value[: run_facts.LONGEST]) for name, value in chosen.items()]

    def _status(self, end: RunEnd) -> None:
        if self.state.run_id is not None and self.status != end.status:
            ended = None if end.status in ("running", "paused") else _last_change(self.run_dir)
            self.store.set_status(self.state.run_id, STATUS[end.status], ended)
            self.status = end.status

    def _files(self, names: tuple[str, ...]) -> None:
        found = [path for pattern in PATTERNS for path in sorted(self.run_dir.glob(pattern))]
        send_files(self.client, self.run_dir, [*(self.run_dir / name for name in names), *found], self.state,
                   self._written)  # fmt: skip

    def _written(self, path: Path) -> None:
        """The headlines of an analysis that is new or has changed become metrics ``analysis/...``."""
        if path == self.run_dir / SUMMARY:
            summary, stamp = read_record(path, SummaryRecord), int(1000 * path.stat().st_mtime)
            step = summary["step"]
            points = [(f"analysis/{name}", float(value), stamp, step) for name, value in summary["metrics"].items()]
            self._changed(points)

    def _changed(self, points: list[Point]) -> None:
        """Send points also where MLflow has another value of that step: it shows the later one."""
        assert self.state.run_id is not None
        before = {name: step - 1 for name, _, _, step in points}
        send_points(self.client, self.state.run_id, iter(points), before)


def _last_change(run_dir: Path) -> int:
    """When the run last wrote something, in milliseconds since 1970."""
    names = (RESULT, ENDED, METRICS, LOG, RECORD)
    return int(1000 * max((run_dir / name).stat().st_mtime for name in names if (run_dir / name).exists()))
