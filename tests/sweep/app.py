"""A small Hydra application under our sweeper: a paraboloid, with trials that misbehave on request.

    python app.py -m x=1,2,3 'sabotage="1:raise 2:kill"'

Every execution of a unit leaves a line in ``executions`` beside the sweep's folder, and one in ``repeated`` if the unit
was complete before.
"""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from recyclelora.commands.clear_line import one_clear_line
from recyclelora.runs.unit import Unit, read_reports
from recyclelora.system.errors import Interrupted, Paused, Pruned, UserError


def misbehave(how: str, attempt: int) -> float | None:
    """One of the ways in which a trial goes wrong."""
    if how == "raise":
        raise ValueError("the data are gone")
    if how == "user":
        raise UserError("data.root=/nowhere: no such folder")
    if how == "memory":
        raise MemoryError("out of memory: tried to allocate 80 GiB")
    if how == "nan":
        return math.nan
    if how == "none":
        return None
    if how == "exit":
        os._exit(7)
    if how == "leave":
        sys.exit(5)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "kill_once" and attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "hang":
        time.sleep(600)
    return 0.0


class Stop:
    """SIGTERM as a flag, as the training loop has it."""

    received = 0

    def __init__(self) -> None:
        signal.signal(signal.SIGTERM, self.note)

    def note(self, number: int, _: object) -> None:
        self.received = number


def task(cfg: DictConfig) -> float | list[float] | None:
    """-(x - 3)^2 - (y - 2)^2, reported over ``steps`` steps."""
    unit = Unit.current()
    number = int(unit.trial.name.split("_")[-1]) if unit else HydraConfig.get().job.num
    out = Path(HydraConfig.get().sweep.dir)
    name = f"{unit.trial.name} {unit.folder.name}" if unit else f"{number:04d} {cfg.x}"
    with (out.parent / "executions").open("a") as file:
        file.write(f"{name} seed={cfg.seed}\n")
    if unit is not None and (end := unit.folder / "outcome.json").exists() and '"complete"' in end.read_text():
        with (out.parent / "repeated").open("a") as file:
            file.write(f"{name}\n")
    stop = Stop()
    how = dict(act.split(":") for act in cfg.sabotage.split()).get(str(number))
    while how == "wait" and not (out.parent / "go").exists():
        time.sleep(0.05)
    if how not in (None, "wait"):
        attempts = sum(
            line.startswith(f"{number:04d} ") for line in (out.parent / "executions").read_text().splitlines()
        )
        value = misbehave(how, attempts)
        if value != 0.0:
            return value
    value = -((cfg.x - 3) ** 2) - (cfg.y - 2) ** 2 + 0.001 * cfg.seed
    value += cfg.noise * random.Random(f"{cfg.x} {cfg.y} {cfg.seed}").gauss(0, 1)
    done = max((step for step, _ in read_reports(unit.folder)), default=0) if unit is not None else 0
    for step in range(done, cfg.steps + 1) if cfg.resumes and done else range(1, cfg.steps + 1):
        time.sleep(cfg.pause if cfg.unequal is None else cfg.unequal[int(cfg.x)])
        if unit is not None:
            unit.report(step, value * step / cfg.steps)
            unit.progress(step, cfg.steps, -value)
            if unit.stop_reason() == "pruned":
                raise Pruned(f"pruned after step {step}")
            if unit.pauses_at == step:
                time.sleep(cfg.word)
                if unit.pauses_at == step:
                    raise Paused(step, value * step / cfg.steps)
        if stop.received:
            raise Interrupted("stopped by signal 15", 143)
    return [value, float(cfg.y)] if cfg.two else value


if __name__ == "__main__":
    with one_clear_line("app"):
        os.environ["HYDRA_FULL_ERROR"] = "1"
        hydra.main(config_path="app_conf", config_name="config")(task)()
