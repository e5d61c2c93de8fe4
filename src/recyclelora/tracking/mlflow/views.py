"""What MLflow's pages open with: a table of what differs and the scores, best first, and the metric that counts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

MODEL_TRAINING = "workflowType=machine_learning"
"""MLflow 3 opens with its pages for language models, in a browser where *Model training* was never chosen."""
TRIALS, RUNS = "trials", "runs"
"""Names of the views: of a study, and of an experiment without one."""
TAG = "mlflow.sharedViewState."
"""Begins the tag of the experiment in which MLflow 3 keeps the state of a shared view of its list of runs."""
PRIMARY = "mlflow.experiment.primaryMetric.name"
"""Tag of the experiment: the metric that its charts begin with."""
NOTE = "mlflow.note.content"


def link(experiment: str, name: str | None) -> str:
    """Where MLflow's pages show a view, or without a name the plain list of runs, behind the server's address."""
    shown = "" if name is None else f"&viewStateShareKey={name}"
    return f"#/experiments/{experiment}/runs?{MODEL_TRAINING}{shown}"


def view_of(tags: Mapping[str, str]) -> str | None:
    """The view that an experiment with these tags has."""
    return next((name for name in (TRIALS, RUNS) if f"{TAG}{name}" in tags), None)


def view(columns: Iterable[str], order: str, *, ascending: bool = False, only: str = "") -> str:
    """A view's state.

    Args:
        columns: as MLflow names them, such as params.`seed`; it shows metrics before parameters before tags
        order: the metric that the rows are sorted by
        ascending: whether its small values come first
        only: MLflow's filter of runs
    """
    state = {
        "selectedColumns": [*columns, "attributes.`Duration`"],
        "searchFilter": only,
        "orderByKey": f"metrics.`{order}`",
        "orderByAsc": ascending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "columnOrder": [],
        "columnWidths": {},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "FIRST_10_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
    }
    return json.dumps(state)


def trials_view(varied: Iterable[str], scores: Iterable[str], *, ascending: bool) -> str:
    """Of a study.

    Args:
        varied: names of the parameters that say what it varies
        scores: names of the final scores
        ascending: whether a small objective is a good one
    """
    columns = [f"params.`{name}`" for name in varied]
    columns += [f"metrics.`{name}`" for name in ("objective", *scores)]
    return view([*columns, "tags.`state`"], "objective", ascending=ascending, only="tags.trial != ''")


def runs_view(scores: Iterable[str], first: str) -> str:
    """Of an experiment without a study: ``first`` is the score that it is sorted by."""
    columns = [f"metrics.`{name}`" for name in scores]
    return view([*columns, "params.`adapter.name`", "params.`seed`", "tags.`changed`", "tags.`state`"], first)


def show(client: Any, experiment: str, name: str, state: str, first: str, title: str) -> None:
    """Give an experiment a view, the metric that counts and, where the user wrote none, a description with a link.

    Args:
        client: MLflow's
        experiment: its id
        name: `TRIALS` or `RUNS`
        state: the view's
        first: the metric that counts
        title: what the description says below it
    """
    text = f"[Table of all {name}]({link(experiment, name)})\n\n{title}"
    known = client.get_experiment(experiment).tags
    ours = known.get(NOTE, "") == "" or f"]({link(experiment, name)})" in known[NOTE]
    wanted = {f"{TAG}{name}": state, PRIMARY: first} | ({NOTE: text} if ours else {})
    for key, value in wanted.items():
        if known.get(key) != value:
            client.set_experiment_tag(experiment, key, value)
