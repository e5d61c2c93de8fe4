"""What to type next, as a line for people: the end of a command says which command may follow."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from recyclelora.system.progress import shown

AFTER_A_RUN = {
    "predict": ("segment photos", ("input=<photos>",)),
    "evaluate": ("score elsewhere", ("data=<pair>",)),
    "export": ("take it along", ("format=onnx",)),
    "analyze": ("see what changed", ()),
}
"""What a command does with a finished run, and what it needs beside it."""


def typed_as(command: str, *arguments: object) -> str:
    """A command as the user types it here: ``python train.py ...`` in a checkout, ``recyclelora train ...`` elsewhere.

    Args:
        command: as ``recyclelora <command>`` knows it
        arguments: ``key=value`` or words, quoted where a shell needs it
    """
    script = f"{ {'import': 'import_checkpoint'}.get(command, command).replace('-', '_') }.py"
    start = f"python {script}" if Path(script).is_file() else f"recyclelora {command}"
    return " ".join([start, *(_quoted(str(argument)) for argument in arguments)])


def as_typed_here(recorded: str) -> str:
    """A command as runs and sweeps record it, ``train.py seed=1``, as the user types it here."""
    script, space, rest = recorded.partition(" ")
    return f"{typed_as('train')}{space}{rest}" if script == "train.py" else recorded


def _quoted(text: str) -> str:
    """For a shell; a place to be filled in, such as ``<photos>``, stays as it is."""
    return text if re.fullmatch(r"[\w=./-]*<[\w ]+>[\w/.]*", text) else shlex.quote(text)


def given(*groups: str) -> list[str]:
    """What this command line says about groups of options such as ``data``, and where option files are."""
    found, arguments = [], iter(sys.argv[1:])
    for argument in arguments:
        if argument in ("--config-dir", "-cd"):
            found += [argument, next(arguments, "")]
        elif argument.startswith("--config-dir=") or re.match(rf"[+~]*({'|'.join(groups)})[./=]", argument):
            found.append(argument)
    return found


def next_steps(*steps: tuple[str, str]) -> str:
    """Lines of what a command is for and the command itself, under one head."""
    width = max(len(what) for what, _ in steps)
    return "\n".join(["next:", *(f"  {what:<{width}}  {line}" for what, line in steps)])


def with_run(run: Path, *commands: str, size: int | None = None) -> list[tuple[str, str]]:
    """Steps that take a run.

    Args:
        run: its directory
        commands: of `AFTER_A_RUN`
        size: short edge in pixels at which the run's model wants photographs; None: their own
    """
    steps = []
    for command in commands:
        what, needs = AFTER_A_RUN[command]
        shape = [f"size={size}"] if command == "predict" and size is not None else []
        steps.append((what, typed_as(command, f"run={shown(run)}", *needs, *shape)))
    return steps
