"""Send runs to MLflow once more, register an adapter there, look at runs in its pages.

    recyclelora track sync outputs/runs/<run> ...          # what is missing, of runs or of whole sweeps
    recyclelora track register outputs/runs/<run> name=streets-segmenter
    recyclelora track ui outputs --port 5000

MLflow is the one that you have named with MLFLOW_TRACKING_URI or --to, else the database in outputs/.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from recyclelora.commands.clear_line import show_what_can_be_shown
from recyclelora.tracking.follow import explained, follow, register, sync
from recyclelora.tracking.ui import serve


def main() -> None:
    """``recyclelora track sync|register|ui <folder>``."""
    parser = argparse.ArgumentParser(
        prog="recyclelora track", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    for action in ("sync", "follow"):
        command = actions.add_parser(action)
        command.add_argument("folders", nargs="+" if action == "sync" else 1, type=Path, metavar="DIRECTORY")
        command.add_argument("--to", metavar="ADDRESS", help="of MLflow, whatever the runs ask for")
    command = actions.add_parser("register")
    command.add_argument("--to", metavar="ADDRESS", help="of MLflow, whatever the run asks for")
    command.add_argument("folders", nargs=1, type=Path, metavar="RUN_DIRECTORY")
    command.add_argument("name", metavar="name=MODEL", help="the name in the model registry")
    command = actions.add_parser("ui")
    command.add_argument("folders", nargs="?", default=Path("outputs"), type=Path, metavar="OUTPUTS")
    command.add_argument("--port", default=5000, type=int)
    arguments = parser.parse_args()
    show_what_can_be_shown()
    if arguments.action == "ui":
        serve(arguments.folders, arguments.port)
    if arguments.action == "follow":
        sys.exit(0 if follow(arguments.folders[0]) else 1)
    failed = False
    for folder in arguments.folders:
        try:
            if arguments.action == "sync":
                print(f"{folder}: MLflow run {sync(folder, arguments.to)}")
            else:
                name = arguments.name.removeprefix("name=")
                print(f"{folder}: version {register(folder, name, arguments.to)} of model {name}")
        except Exception as error:  # a server may fail in any way; the other runs are still to be sent
            failed = True
            print(f"{arguments.action}: {folder}: {explained(error)}", file=sys.stderr)
    sys.exit(1 if failed else 0)
