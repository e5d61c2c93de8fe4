"""What to type next, as a line for people: the end of a command says which command may follow."""

from __future__ import annotations

import shlex
from pathlib import Path


def typed_as(command: str, *arguments: object) -> str:
    """A command as the user types it here: ``python train.py ...`` in a checkout, ``recyclelora train ...`` elsewhere.

    Args:
        command: as ``recyclelora <command>`` knows it
        arguments: ``key=value`` or words, quoted where a shell needs it
    """
    script = f"{ {'import': 'import_checkpoint'}.get(command, command).replace('-', '_') }.py"
    start = f"python {script}" if Path(script).is_file() else f"recyclelora {command}"
    return " ".join([start, *(shlex.quote(str(argument)) for argument in arguments)])


def next_steps(*steps: tuple[str, str]) -> str:
    """Lines of what a command is for and the command itself, under one head."""
    width = max(len(what) for what, _ in steps)
    return "\n".join(["next:", *(f"  {what:<{width}}  {line}" for what, line in steps)])
