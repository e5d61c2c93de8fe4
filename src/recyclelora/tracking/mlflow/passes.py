"""One pass of a run or a sweep to MLflow, and the commands ``sync`` and ``register``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from recyclelora.config.compose import load_config
from recyclelora.runs.directory import CONFIG, outputs_of
from recyclelora.runs.status import KILLED, RunEnd, run_end
from recyclelora.sweep.record import is_sweep
from recyclelora.system.errors import UserError
from recyclelora.tracking.mlflow import models
from recyclelora.tracking.mlflow.runs import RunSender
from recyclelora.tracking.mlflow.store import Store
from recyclelora.tracking.mlflow.sweeps import SweepSender, sweep_of
from recyclelora.tracking.mlflow.system import SystemSampler
from recyclelora.tracking.trackers import announce


def passes(folder: Path) -> Callable[[bool], None]:
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
        if last:
            announce(sender.left_out())

    return send_run


def _send_sweep(sweep: SweepSender, *, last: bool) -> None:
    failures = sweep.send(last=last)
    if last:
        announce([value for sender in sweep.runs.values() for value in sender.left_out()])
    if failures:
        raise UserError("; ".join(f"{run.name}: {why.splitlines()[0]}" for run, why in failures.items()))


def run_sender(run_dir: Path, to: str | None = None) -> RunSender:
    """A sender for one run, nested in its sweep if it is a trial's; ``to`` is an address of MLflow, see Store.of."""
    config = load_config(run_dir / CONFIG)
    sweep = sweep_of(run_dir)
    store = Store.of(config, outputs_of(run_dir) or run_dir.parent, to)
    return RunSender(run_dir, config, store, SweepSender(sweep, to).parent.run_id() if sweep else None)


def send_all(folder: Path, to: str | None = None) -> str:
    """What ``sync`` does: see :func:`recyclelora.tracking.follow.sync`."""
    if is_sweep(folder):
        sweep = SweepSender(folder, to)
        _send_sweep(sweep, last=True)
        return sweep.parent.run_id()
    sender = run_sender(folder, to)
    run_id = sender.send(run_end(folder), model=sender.config.tracking.model and sender.parent is None)
    announce(sender.left_out())
    return run_id


def register(run_dir: Path, name: str, to: str | None = None) -> str:
    """Send a finished run and make its adapter a version of the registered model ``name``; returns the version."""
    sender = run_sender(run_dir.absolute(), to)
    run_id = sender.send(run_end(sender.run_dir), model=True)
    store = sender.store
    return models.register(store.client, run_id, sender.run_dir, sender.config, name, from_artifacts=store.is_database)
