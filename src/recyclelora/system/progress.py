"""What a person sees of a run: bars on a terminal, plain lines in a log, the same words in ``train.log``."""

from __future__ import annotations

import os
import sys
import time
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from recyclelora.system.errors import UserError
from recyclelora.system.storage import append_text

Update = Callable[..., None]
"""update(count, status="", total=None) of a bar: ``count`` more are done; ``total`` corrects what was announced."""

LINES_EVERY = 30.0
"""Seconds between two lines of a bar that is shown as plain text and has no status of its own."""

LOG_WIDTH = 160
"""Characters of a table's line where no terminal says how many there are."""


def screen() -> Console:
    """Standard output as it is: no markup, no line broken but those of tables."""
    known = "COLUMNS" in os.environ or any(s is not None and s.isatty() for s in (sys.stdin, sys.stdout, sys.stderr))
    # plain lines in a notebook: rich would make each a cell output of its own, and a kernel asks for colours and bars
    return Screen(
        width=None if known else LOG_WIDTH, highlight=False, soft_wrap=True, markup=False, force_jupyter=False,
        force_terminal=False if "ipykernel" in sys.modules else None,
    )  # fmt: skip


class Screen(Console):
    """A console on which no text of a file steers the terminal."""

    def render_str(self, text: str, **how: Any) -> Text:
        """Every string comes by here, in tables, too."""
        return super().render_str(visible(text), **how)


def visible(text: str) -> str:
    """A text whose control characters are written out: they move the cursor, hide words or change their order."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else c.encode("unicode_escape").decode()
        for c in text
    )


class Reporter:
    """Tells the user what happens; silent on all processes but the first."""

    def __init__(self, log_path: Path | None = None, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.log_path = log_path
        self.console = screen()
        self.interactive = self.console.is_terminal

    def note(self, text: str) -> None:
        """Print one line and keep it in the log."""
        if self.enabled:
            self.console.print(text)
            self._log(text)

    def warn(self, text: str) -> None:
        """Print a warning and keep it in the log."""
        self.note(f"warning: {text}")

    @contextmanager
    def telling_warnings(self) -> Iterator[None]:
        """Say every different ``UserWarning`` of what is done within, once and in a line."""
        with warnings.catch_warnings(record=True) as found:
            yield
        for text in dict.fromkeys(str(w.message) for w in found if issubclass(w.category, UserWarning)):
            self.warn(text)

    def table(self, table: Table) -> None:
        """Print a table and keep its plain text in the log."""
        if not self.enabled:
            return
        self.console.print(table)
        plain = Console(width=LOG_WIDTH, color_system=None, markup=False, force_jupyter=False)
        with plain.capture() as captured:
            plain.print(table)
        self._log("\n" + captured.get().rstrip())

    @contextmanager
    def bar(self, what: str, total: int, done: int = 0, *, terse: bool = False) -> Iterator[Update]:
        """Show the progress of ``total`` steps of which ``done`` are done; yields the function that moves it.

        A ``terse`` bar shown as plain text has lines only for its statuses.
        """
        if not self.enabled:
            yield lambda count, status="", total=None: None
        elif self.interactive:
            with self._rich_bar(what, total, done) as update:
                yield update
        else:
            yield self._lines(what, total, done, terse)

    @contextmanager
    def _rich_bar(self, what: str, total: int, done: int) -> Iterator[Update]:
        one_line = Column(no_wrap=True, overflow="ellipsis")
        columns = (
            TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(table_column=Column(no_wrap=True)),
            _Pace(), TextColumn("{task.fields[status]}", markup=False, table_column=one_line), TextColumn("ETA"),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
        )  # fmt: skip
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(what, total=total, completed=done, status="")

            def update(count: int, status: str = "", total: int | None = None) -> None:
                progress.update(task, advance=count, total=total)
                if status:
                    progress.update(task, status=status)
                    bar = progress.tasks[0]
                    self._log(f"{what} {bar.completed:.0f}/{bar.total:.0f} {status}")

            yield update

    def _lines(self, what: str, total: int, done: int, terse: bool) -> Update:
        """One line for each status; without any, one now and then."""
        began = last = time.monotonic()
        first = done

        def update(count: int, status: str = "", **corrected: int) -> None:
            nonlocal done, last, total
            done, total = done + count, corrected.get("total", total)
            now = time.monotonic()
            if status or (now - last > LINES_EVERY and not terse):
                last = now
                left = (now - began) / max(done - first, 1) * (total - done)
                eta = f"ETA {timedelta(seconds=round(left))}" if done < total else ""
                self.note("  ".join(word for word in (f"{what} {done}/{total}", status, eta) if word))

        return update

    def _log(self, text: str) -> None:
        """Keep a line; a log that cannot be written costs one warning, never the run."""
        if self.log_path is None:
            return
        try:
            append_text(self.log_path, f"{time.strftime('%H:%M:%S')} {text}\n")
        except UserError as error:
            self.log_path = None
            print(f"warning: {error}; nothing more is logged there", file=sys.stderr)


class _Pace(ProgressColumn):
    """How many a second, or how many seconds each, where no status tells it."""

    def render(self, task: Task) -> Text:
        """Of one bar."""
        speed = task.finished_speed or task.speed
        if not speed or task.fields["status"]:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each", style="progress.data.speed")


def shown(path: Path) -> Path:
    """A path relative to the working directory where it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
