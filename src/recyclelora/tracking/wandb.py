"""A Weights & Biases run; its own variables, such as ``WANDB_MODE=offline``, mean what they mean there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypedDict

from recyclelora.config.compose import load_config
from recyclelora.runs.directory import CONFIG, RECORD, RunRecord
from recyclelora.system.storage import folder_inside, read_json, write_json
from recyclelora.system.typed_json import read_record
from recyclelora.tracking.feed import Feed
from recyclelora.tracking.run_facts import flat_parameters, run_name

STATE = "wandb.json"


class WandbRecord(TypedDict):
    """``wandb.json``: what W&B has."""

    steps: dict[str, int]
    pictures: dict[str, int]
    rows: int


class WeightsAndBiases:
    """One W&B run for one run directory, however often it is resumed; it knows what earlier launches have sent.

    Steps are a column of their own, since W&B adds nothing to a step that was left; its own count goes over the rows of
    all launches.
    """

    def __init__(self, run_dir: Path) -> None:
        import wandb

        about = read_record(run_dir / RECORD, RunRecord)
        config = load_config(run_dir / CONFIG)
        self._state = run_dir / STATE
        stored: Any = read_record(self._state, WandbRecord) if self._state.exists() else {}
        self.feed = Feed(run_dir, stored.get("steps", {}), stored.get("pictures", {}))
        self._rows: int = stored.get("rows", 0)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or config.tracking.experiment or "recyclelora",
            id=os.environ.get("WANDB_RUN_ID") or about["signature"],
            name=run_name(config), group=config.study, config=flat_parameters(config), notes=about["command"],
            tags=[config.adapter.name, config.backbone.name, config.data.name],
            dir=str(folder_inside(run_dir, "wandb").parent), resume="allow",
            # git would obey the settings of a repository that somebody has put into a run
            settings=wandb.Settings(console="off", disable_code=True, disable_git=True),
        )  # fmt: skip
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def point(self, step: int, time: float, values: dict[str, float]) -> None:
        """Add a row."""
        self._log({"step": step, **values})

    def picture(self, name: str, step: int, path: Path) -> None:
        """Add a row with an image."""
        import wandb

        self._log({"step": step, name: wandb.Image(str(path))})

    def _log(self, row: dict[str, Any]) -> None:
        self._run.log(row, step=self._rows)
        self._rows += 1

    def flush(self) -> None:
        """Remember what was sent."""
        known = {"steps": self.feed.steps, "pictures": self.feed.pictures, "rows": self._rows}
        if not self._state.exists() or read_json(self._state) != known:
            write_json(self._state, known)

    def close(self, finished: bool) -> None:
        """End the run, for now: the same command goes on with it."""
        self._run.finish(exit_code=0 if finished else 1)
