"""One file a command, ``recyclelora <command>``: its docstring is its help, ``main`` its door, a function its job."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from recyclelora.commands import early as early  # first of all: it acts
from recyclelora.system.imports import quick_imports
from recyclelora.system.stopping import ctrl_c_in_one_line, unread_in_one_line


def start(command: str, task: Callable[[Any, int | None], float | None], config_name: str | None = None) -> None:
    """Do what the command line asks, or show the help of ``task``'s module; nothing heavy is imported before that.

    Args:
        command: its name in messages
        task: what it does with its typed configuration, see :data:`recyclelora.commands.launch.Task`
        config_name: the file in ``conf/``; by default the command's own
    """
    with ctrl_c_in_one_line(command):
        if {"-h", "--help"} & {*sys.argv[1:]}:
            from recyclelora.commands.help import screen

            with unread_in_one_line(command):
                print(screen(task.__module__, config_name or command))
            return
        with quick_imports():
            from recyclelora.commands.launch import launched

        with launched(command, task, config_name=config_name) as job:
            job()
