"""Look at a sweep from any shell, cancel it or some of its trials, or let its driver run more trials.

    recyclelora sweep status outputs/sweeps/<study>
    recyclelora sweep cancel outputs/sweeps/<study> 7      # without a number: the whole sweep
    recyclelora sweep extend outputs/sweeps/<study> 60     # its driver, or the next one, goes on to 60 trials

`recyclelora train -m ...` begins a sweep, and goes on with it.
"""

from __future__ import annotations

from pathlib import Path

from recyclelora.commands.clear_line import one_clear_line
from recyclelora.commands.help import folder_parser
from recyclelora.system.errors import UserError
from recyclelora.system.extras import require


def main() -> None:
    """``recyclelora sweep status|cancel|extend <sweep dir>``."""
    parser = folder_parser("sweep", __doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    asked = {
        "status": actions.add_parser("status", help="how it stands"),
        "cancel": actions.add_parser("cancel", help="stop trials, by number; without numbers the whole sweep"),
        "extend": actions.add_parser("extend", help="tell its driver another number of trials"),
    }
    for action in asked.values():
        action.add_argument("sweep", type=Path)
    asked["cancel"].add_argument("trials", type=int, nargs="*")
    asked["extend"].add_argument("n_trials", type=int)
    given = parser.parse_args()
    with one_clear_line("sweep"):
        require("recyclelora sweep", "sweep", "optuna")
        from recyclelora.sweep.control import cancel, extend, status

        if not (given.sweep / "study.json").exists():
            raise UserError(f"{given.sweep}: no sweep (no study.json)")
        if given.action == "status":
            status(given.sweep)
        elif given.action == "cancel":
            cancel(given.sweep, given.trials)
        else:
            extend(given.sweep, given.n_trials)
