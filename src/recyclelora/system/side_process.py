"""A process beside training that reads the files of a run; it ends when its standard input closes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


class SideProcess:
    """``python -m <arguments>``, which follows a directory.

    Args:
        arguments: module and what it gets
        log: gets what it prints
        environment: variables that it has besides this process's
    """

    def __init__(self, arguments: list[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.sent = False
        """whether it ended by itself with everything done"""
        with log.open("ab") as file:
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", *arguments],
                stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True,
                env=os.environ | (environment or {}),
            )  # fmt: skip

    def hang_up(self) -> None:
        """Tell it that nothing more comes; the kernel does so too when this process is killed."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def finish(self, timeout: float) -> bool:
        """Hang up and wait; False when it has not done everything within ``timeout`` seconds, and was killed then."""
        self.hang_up()
        try:
            self.sent = self.process.wait(timeout) == 0
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self.sent = False
        return self.sent
