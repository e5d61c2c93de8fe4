"""The table of a study's trials as a view that MLflow's pages open: what varies, the scores, best first."""

from __future__ import annotations

import json
from collections.abc import Iterable

MODEL_TRAINING = "workflowType=machine_learning"
"""MLflow 3 opens with its pages for language models, in a browser where *Model training* was never chosen."""
VIEW = "trials"
TAG = f"mlflow.sharedViewState.{VIEW}"
"""Tag of the experiment in which MLflow 3 keeps the state of a shared view of its list of runs."""


def link(experiment: str) -> str:
    """Where MLflow's pages show the view, behind the server's address."""
    return f"#/experiments/{experiment}/runs?{MODEL_TRAINING}&viewStateShareKey={VIEW}"


def view(params: Iterable[str], targets: Iterable[str], *, ascending: bool) -> str:
    """The view's state.

    Args:
        params: names of what the study varies
        targets: names of the final scores
        ascending: whether a small objective is a good one
    """
    columns = [f"params.`{name}`" for name in params]
    columns += [f"metrics.`{name}`" for name in ("objective", *targets)]
    state = {
        "selectedColumns": [*columns, "tags.`state`", "attributes.`Duration`"],
        "searchFilter": "tags.trial != ''",
        "orderByKey": "metrics.`objective`",
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
