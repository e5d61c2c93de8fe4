"""``recyclelora.train``, ``sweep``, ``runs`` and ``compare``: what the commands do, for notebooks and scripts."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recyclelora.commands.api.results import Compared, Run, Runs, Sweep
from recyclelora.commands.clear_line import as_config_error
from recyclelora.config.compose import ConfigError, composed
from recyclelora.config.option_files import allow_reading
from recyclelora.config.run import Config
from recyclelora.reports.comparison import compare as compare_study
from recyclelora.reports.records import Study, read_runs, read_sweep
from recyclelora.reports.writing import run_paths
from recyclelora.runs.directory import is_run
from recyclelora.sweep.command import checked_arguments
from recyclelora.sweep.record import is_sweep
from recyclelora.system.errors import UserError
from recyclelora.system.imports import quick_imports

PLAIN = re.compile(r"[\w./:+-]+")
"""Strings that Hydra's grammar takes without quotes."""


def train(*overrides: str, **options: Any) -> Run:
    """Train, or resume, or look up the run that ``python train.py <overrides>`` is.

        run = recyclelora.train("experiment=demo", "adapter.main.rank=16", seed=1)

    Args:
        overrides: as on the command line
        options: the same for keys without a dot, with Python's values

    Raises:
        ConfigError: a value that the command would refuse.
        UserError: data, weights or a file are not as they should be.
        Interrupted: it was asked to stop; the same call goes on.
    """
    arguments = _arguments(overrides, options)
    config = configured(arguments)
    with quick_imports():
        from recyclelora.training.run import Run as Training  # imports torch: not before the configuration is sound
    with _as_command("train.py", arguments):
        run = Training.identify(config, None)
        run.execute()
    return Run(run.directory.path)


def sweep(*overrides: str, **options: Any) -> Sweep:
    """Run, or go on with, the sweep that ``python train.py -m <overrides>`` is, in a process of its own.

        sweep = recyclelora.sweep("experiment=demo", adapter=["frozen", "lora"], seed=[0, 1, 2])

    Args:
        overrides: as on the command line
        options: the same for keys without a dot; a list is swept over

    Raises:
        ConfigError: a value that the command would refuse.
        UserError: the command failed; what it said is printed above. Finished trials are kept.
    """
    arguments = checked_arguments("train", ["-m", *_arguments(overrides, options, swept=True)])
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    folder = Path(given.get("output_dir", "outputs")) / "sweeps" / given["study"]
    command = [sys.executable, "-m", "recyclelora", "train", *arguments]
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="", flush=True)  # what a notebook shows, where a child's own output would be lost
                last = line.strip() or last
        except KeyboardInterrupt:  # a notebook's interrupt reaches this process alone
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    if process.returncode:
        raise UserError(f"the sweep ended with exit code {process.returncode}: {last}")
    return Sweep(folder)


def runs(places: str | Path | Sequence[str | Path] = "outputs") -> Runs:
    """All run directories below a folder, or those that paths and patterns name.

    Raises:
        UserError: there is no run.
    """
    given = [places] if isinstance(places, str | Path) else list(places)
    found: list[Path] = []
    for place in map(Path, given):
        found += sorted(_below(place)) if place.is_dir() and not is_run(place) else run_paths(str(place))
    if not found:
        raise UserError(f"{', '.join(map(str, given))}: no run directory in it")
    return Runs([Run(path) for path in dict.fromkeys(found)])


def compare(
    what: Sweep | Runs | str | Path | Sequence[str | Path | Run], *, reference: str | None = None,
    selection: str = "last", resamples: int = 1000,
) -> Compared:  # fmt: skip
    """Compare groups of seeds, with the statistics of ``python report.py``.

    Args:
        what: a sweep, runs, or where they lie
        reference: name of the group that the others are compared with, or a part of it that no other has
        selection: ``last``, ``best_source`` or ``best_target``
        resamples: of the bootstrap over images; 0: none

    Raises:
        UserError: no runs, or no such reference.
    """
    return Compared(compare_study(_study(what), selection, reference, resamples))


def configured(arguments: Sequence[str]) -> Config:
    """The checked configuration of a training command.

    Raises:
        ConfigError: what the command would refuse.
    """
    checked = checked_arguments("train", list(arguments))
    allow_reading(checked)
    with as_config_error():
        config: Config = composed("train", checked)
    return config


def _study(what: Any) -> Study:
    if isinstance(what, Sweep):
        return read_sweep(what.path)
    if isinstance(what, str | Path) and is_sweep(Path(what)):
        return read_sweep(Path(what))
    if isinstance(what, str | Path):
        what = runs(what)
    return read_runs([one.path if isinstance(one, Run) else Path(one) for one in what])


def _below(folder: Path) -> Iterator[Path]:
    """Run directories at most four folders down; what lies inside one is its own."""
    waiting = [(folder, 0)]
    while waiting:
        place, depth = waiting.pop()
        for path in place.iterdir():
            if path.is_dir() and not path.is_symlink():
                if is_run(path):
                    yield path
                elif depth < 3 and path.name not in ("snapshot", "ledger"):
                    waiting.append((path, depth + 1))


def _arguments(overrides: Sequence[str], options: dict[str, Any], *, swept: bool = False) -> list[str]:
    """Overrides as on the command line.

    Raises:
        ConfigError: one of them is no ``key=value``.
    """
    for text in overrides:
        if "=" not in text and not text.startswith(("~", "-")):
            raise ConfigError(f"{text!r}: must be key=value, as on the command line")
    return [*overrides, *(f"{key}={_value(value, swept=swept)}" for key, value in options.items())]


def _value(value: Any, *, swept: bool = False) -> str:
    """A Python value as Hydra's grammar has it."""
    if isinstance(value, Path):
        value = str(value)
    if swept and isinstance(value, list | tuple):
        return ",".join(_value(one) for one in value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_value, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_value(key)}:{_value(one)}" for key, one in value.items()) + "}"
    if not isinstance(value, str) or PLAIN.fullmatch(value):
        return str(value)
    escaped = re.sub(r'(\\*)"', r"\1\1\"", value)  # backslashes count only before a quote
    return f'"{escaped}{value[len(value.rstrip(chr(92))) :]}"'


@contextmanager
def _as_command(script: str, arguments: Sequence[str]) -> Iterator[None]:
    """What records of a run call its command is the one that does the same."""
    before = sys.argv
    sys.argv = [script, *arguments]
    try:
        yield
    finally:
        sys.argv = before
