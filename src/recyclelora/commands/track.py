"""Send runs to a tracker once more, register an adapter in MLflow, look at runs in its pages.

    recyclelora track sync outputs/runs/<run> ...          # what is missing, of runs or of whole sweeps
    recyclelora track sync outputs/runs/<run> --tracker wandb
    recyclelora track register outputs/runs/<run> name=streets-segmenter
    recyclelora track ui outputs --port 5000

MLflow is the one that you have named with MLFLOW_TRACKING_URI or --to, else the database in outputs/.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from recyclelora.commands.clear_line import one_clear_line
from recyclelora.commands.help import folder_parser
from recyclelora.config.training import TRACKER_GROUP
from recyclelora.runs.directory import outputs_of
from recyclelora.system.extras import require
from recyclelora.system.next_steps import next_steps, typed_as
from recyclelora.system.plugins import plugin_names
from recyclelora.system.progress import shown
from recyclelora.tracking.follow import explained, follow, sync
from recyclelora.tracking.mlflow.deadline import leave
from recyclelora.tracking.process import KINDS


def main() -> None:
    """``recyclelora track sync|register|ui <folder>``."""
    parser = folder_parser("track", __doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    asked = {
        "sync": actions.add_parser("sync", help="send what a tracker does not have"),
        "follow": actions.add_parser("follow", help="send until standard input closes; runs start it themselves"),
        "register": actions.add_parser("register", help="make a run's adapter a version of a model in MLflow"),
        "ui": actions.add_parser("ui", help="MLflow's pages, on this machine only"),
    }
    for action in ("sync", "follow", "register"):
        asked[action].add_argument("folders", nargs="+" if action == "sync" else 1, type=Path, metavar="DIRECTORY")
        asked[action].add_argument("--to", metavar="ADDRESS", help="of MLflow, whatever the runs ask for")
    for action in ("sync", "follow"):
        asked[action].add_argument("--tracker", choices=(*KINDS, *plugin_names(TRACKER_GROUP)), default="mlflow")
    asked["register"].add_argument("name", metavar="name=MODEL", help="the name in the model registry")
    asked["ui"].add_argument("folders", nargs="?", default=Path("outputs"), type=Path, metavar="OUTPUTS")
    asked["ui"].add_argument("--port", default=5000, type=int)
    given = parser.parse_args()
    kind = getattr(given, "tracker", "mlflow")
    with one_clear_line("track"):
        if kind in KINDS:
            require(f"recyclelora track {given.action}", kind, kind)
        if given.action == "ui":
            from recyclelora.tracking.mlflow.ui import serve

            serve(given.folders, given.port)
        if given.action == "follow":
            leave(0 if follow(given.folders[0], kind) else 1)
        code = max([_tried(given, folder, kind) for folder in given.folders])
        outputs = outputs_of(given.folders[0].absolute())
        local = not (given.to or os.environ.get("MLFLOW_TRACKING_URI"))
        if code == 0 and given.action == "sync" and kind == "mlflow" and local and outputs is not None:
            print(next_steps(("look at it", typed_as("track", "ui", shown(outputs)))), flush=True)
        leave(code)


def _tried(given: argparse.Namespace, folder: Path, kind: str) -> int:
    """Send or register one folder; the exit code."""
    from recyclelora.tracking.mlflow.passes import register

    try:
        if given.action == "register":
            name = given.name.removeprefix("name=")
            version = register(folder, name, given.to)
            print(f"{folder}: version {version} of model {name}")
            print(next_steps(("load it in Python", f"mlflow.pyfunc.load_model('models:/{name}/{version}')")))
        else:
            sent = sync(folder, kind, given.to)
            print(f"{folder}: MLflow run {sent}" if kind == "mlflow" else f"{folder}: sent to {kind}")
    except Exception as error:  # a server may fail in any way; the other runs are still to be sent
        print(f"{given.action}: {folder}: {explained(error, kind)}", file=sys.stderr)
        return 1
    return 0
