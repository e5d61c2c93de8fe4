"""Ctrl-C while a command imports what it needs, seconds on a slow disk: one line, as later. Importing this acts."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType


def watch() -> None:
    """Tell a Ctrl-C that nobody catches without the traceback of whatever was being imported.

    Only in a process that is a command, not in a program of the user's that calls this package.
    """
    script = Path(sys.argv[0]).stem
    command = script.removeprefix("recyclelora-").replace("-", "_")
    if not script.startswith("recyclelora") and not Path(__file__).with_name(f"{command}.py").exists():
        return
    others = sys.excepthook

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if _of_ctrl_c(error):
            print(f"{script}: stopped by Ctrl-C", file=sys.stderr)
        else:
            others(kind, error, trace)

    sys.excepthook = tell


def _of_ctrl_c(error: BaseException | None) -> bool:
    """Whether an exception is a Ctrl-C, or what some import has made of one."""
    return error is not None and (isinstance(error, KeyboardInterrupt) or _of_ctrl_c(error.__cause__))


watch()
