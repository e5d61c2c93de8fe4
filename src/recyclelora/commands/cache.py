"""Show what earlier runs left for later ones (weights, scenes, decoded images), and make room.

    recyclelora cache list
    recyclelora cache clear factors                        # or several kinds, or all
    recyclelora cache prune 2GiB [streets]                 # the least recently used files go first

Whatever is removed is computed again when a run needs it, and runs in progress are not disturbed. `all` are the kinds
that this project writes: a folder of another name is removed only by that name.
"""

from __future__ import annotations

import sys
from pathlib import Path

from recyclelora.commands.help import folder_parser
from recyclelora.system.cache import clear, default_directory, inventory, prune, readable, size, table
from recyclelora.system.errors import UserError
from recyclelora.system.next_steps import next_steps, typed_as
from recyclelora.system.stopping import unread_in_one_line

AGAIN = "; what a run needs of it is computed again"


def main() -> None:
    """``recyclelora cache list|clear|prune``."""
    parser = folder_parser("cache", __doc__)
    parser.add_argument("--dir", type=Path, default=default_directory(), help="default: %(default)s")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="kinds, entries and sizes")
    clearing = actions.add_parser("clear", help="remove kinds")
    clearing.add_argument("kinds", nargs="+", metavar="KIND", help="a kind that `list` shows, or all")
    pruning = actions.add_parser("prune", help="remove the least recently used files")
    pruning.add_argument("size", help="bytes that may stay, such as 500MB or 2GiB")
    pruning.add_argument("kinds", nargs="*", metavar="KIND", default=["all"], help="only of these kinds")
    given = parser.parse_args()
    try:
        with unread_in_one_line("cache"):
            if given.action == "list":
                found = inventory(given.dir)
                print(table(given.dir, found))
                if found:
                    print(next_steps(("make room", typed_as("cache", "prune", "2GiB"))))
            elif given.action == "clear":
                print(f"{readable(clear(given.dir, given.kinds))} removed from {given.dir}{AGAIN}")
            else:
                print(f"{readable(prune(given.dir, size(given.size), given.kinds))} removed from {given.dir}{AGAIN}")
    except UserError as error:
        print(f"cache: {error}", file=sys.stderr)
        sys.exit(2)
