"""The feeding process, and the commands ``sync`` and ``register``."""

from __future__ import annotations

import os
import re
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

from recyclelora.config.compose import ConfigError, load_config
from recyclelora.runs.directory import CONFIG
from recyclelora.runs.end import KILLED, RunEnd, run_end
from recyclelora.system.errors import UserError
from recyclelora.system.redaction import redacted
from recyclelora.tracking import models
from recyclelora.tracking.runs import RunSender
from recyclelora.tracking.store import Store, outputs_of
from recyclelora.tracking.sweeps import SweepSender, is_sweep, sweep_of
from recyclelora.tracking.system import SystemSampler

POLL = 2.0
"""Seconds between two passes; doubled after each failed one, up to :data:`LONGEST_POLL`."""
LONGEST_POLL = 30.0
LONGEST_LINE, LONGEST_LOOK = 500, 10_000
"""Characters of an error that are shown, and looked at; servers send pages of a megabyte."""

Send = Callable[[bool], None]
"""send(last): one pass; ``last`` when nothing more comes."""


def follow(folder: Path) -> bool:
    """Send again and again until standard input closes, then once more; True when everything was sent."""
    os.nice(10)  # training goes first
    send = _sender(folder.absolute())
    wait, failures = 0.0, 0
    while not _closed_within(wait):
        failures = 0 if _tried(send, last=False) else failures + 1
        wait = pause(failures)
    return _tried(send, last=True)


def pause(failures: int) -> float:
    """Seconds until the next pass; ``failures`` in a row may be as many as a server's absence of weeks makes."""
    return min(POLL * float(2 ** min(failures, 8)), LONGEST_POLL)


def _closed_within(seconds: float) -> bool:
    """Whether standard input closes within this time."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and os.read(sys.stdin.fileno(), 1) == b""


def _tried(send: Send, *, last: bool) -> bool:
    try:
        send(last)
    except Exception as error:  # whatever a server or database does, training must not notice
        print(f"{time.strftime('%H:%M:%S')} not sent yet: {explained(error)}", flush=True)
        return False
    return True


def explained(error: Exception) -> str:
    """An error in one line without passwords."""
    text = "".join(c if c.isprintable() else " " for c in (str(error).strip().splitlines() or [""])[0])
    if isinstance(error, UserError | ConfigError):
        return redacted(text)
    if re.search(r"<(!doctype|html|head|body)\b", str(error)[:LONGEST_LOOK], re.IGNORECASE):
        text = "a web page came instead of MLflow's answer; is this its address, or a log-in page?"
    elif isinstance(error, LookupError | AttributeError | TypeError):  # MLflow's client met what it does not expect
        text = f"this is no answer of MLflow: {type(error).__name__}: {text}"
    else:
        text = f"{type(error).__name__}: {text}"
    return redacted(text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}...")


def _sender(folder: Path) -> Send:
    """What sends one pass of a sweep, or of a run with samples of how busy its machine is."""
    if folder.parent.name == "sweeps":
        sweep = SweepSender(folder)
        return lambda last: _send_sweep(sweep, last=last)
    sender: RunSender | None = None
    sampler: SystemSampler | None = None

    def send_run(last: bool) -> None:
        nonlocal sender, sampler
        sampler = sampler or SystemSampler(folder)
        sampler.sample_when_due()
        sender = sender or run_sender(folder)
        end = run_end(folder) if last else RunEnd("running")
        if end.status == "running" and last:  # killed a moment ago; the lock is about to fall
            end = KILLED
        sender.send(end, model=sender.config.tracking.model and sender.parent is None)

    return send_run


def _send_sweep(sweep: SweepSender, *, last: bool) -> None:
    failures = sweep.send(last=last)
    if failures:
        raise UserError("; ".join(f"{run.name}: {why.splitlines()[0]}" for run, why in failures.items()))


def run_sender(run_dir: Path, to: str | None = None) -> RunSender:
    """A sender for one run, nested in its sweep if it is a trial's; ``to`` is an address of MLflow, see Store.of."""
    config = load_config(run_dir / CONFIG)
    sweep = sweep_of(run_dir)
    store = Store.of(config, outputs_of(run_dir), to)
    return RunSender(run_dir, config, store, SweepSender(sweep, to).parent() if sweep else None)


def sync(folder: Path, to: str | None = None) -> str:
    """Send what MLflow does not have yet of a run or of a sweep.

    Returns:
        the MLflow run id; of a sweep the parent's.

    Raises:
        UserError: the folder is no run, or a run of it could not be sent.
    """
    folder = folder.absolute()
    if is_sweep(folder):
        sweep = SweepSender(folder, to)
        _send_sweep(sweep, last=True)
        return sweep.parent()
    sender = run_sender(folder, to)
    return sender.send(run_end(folder), model=sender.config.tracking.model and sender.parent is None)


def register(run_dir: Path, name: str, to: str | None = None) -> str:
    """Send a finished run and make its adapter a version of the registered model ``name``; returns the version."""
    sender = run_sender(run_dir.absolute(), to)
    run_id = sender.send(run_end(sender.run_dir), model=True)
    store = sender.store
    return models.register(store.client, run_id, sender.run_dir, sender.config, name, from_artifacts=store.is_database)
