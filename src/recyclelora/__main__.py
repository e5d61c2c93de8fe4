"""``recyclelora <command> ...``, also ``python -m recyclelora``: finds the command, and imports nothing else."""

from __future__ import annotations

import importlib
import sys

from recyclelora.commands.help import COMMANDS, overview
from recyclelora.system.checks import nearest


def main() -> None:
    """Hand the command line over to a command, as if its script in the repository had been called."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(overview())
        return
    if name not in COMMANDS:
        remark = nearest(name, tuple(COMMANDS))
        print(f"recyclelora: no command {name!r}{remark}; recyclelora --help lists them", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"{COMMANDS[name]}.py", *sys.argv[2:]]
    importlib.import_module(f"recyclelora.commands.{COMMANDS[name]}").main()


if __name__ == "__main__":
    main()
