"""Units on this machine: each in a process of its own, forked from a server that has the slow imports behind it.

A trial that crashes, exits or is killed takes nothing else with it, and none sees what another has left in memory.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import cloudpickle
from hydra.core.utils import JobReturn

from recyclelora.sweep.execution import FROM_OUTSIDE, Job, Stage, Status, Work
from recyclelora.sweep.task import JOB, HydraTask, log_to, run_unit
from recyclelora.system.cores import STOPPING, available_cores, patient_threads, short_sockets, signals_held

UNTOLD = 255
"""Exit code that multiprocessing reports where the server that would tell it is gone."""
PATIENCE = 20.0
"""Seconds between asking a process to save itself and killing it."""


@dataclass
class _Process:
    """A unit that runs as a child of this process."""

    process: ForkServerProcess
    folder: Path
    slot: int
    answer: Connection | None
    began: float = field(default_factory=time.monotonic)
    asked: float | None = None
    """when it was told to end"""
    timed_out: bool = False
    server: str = ""
    """the process that it was forked from, which tells its end"""
    untold: float | None = None
    """when it was first found that the server may be gone"""


class LocalExecutor:
    """Up to ``slots`` processes at a time.

    Args:
        task: what the units run
        objectives: see :func:`recyclelora.sweep.task.run_unit`
        slots: how many at a time
        gpus: ids of the GPUs, shared out among the slots; none: nothing is set
        gpus_per_trial: how many GPUs a unit sees
        timeout_min: a unit that takes longer is ended
        preload: modules that the server imports before it forks
        collect: keep Hydra's JobReturn of every unit in ``returns``, by the unit's folder
    """

    units_at_once = 1

    def __init__(
        self, task: HydraTask, objectives: Sequence[str] | None, slots: int, *, gpus: Sequence[str] = (),
        gpus_per_trial: int = 1, timeout_min: float | None = None, preload: Sequence[str] = (), collect: bool = False,
    ) -> None:  # fmt: skip
        self.capacity = slots
        self._share = gpus_per_trial * len(set(gpus)) / len(gpus) if gpus else 1.0
        self.returns: dict[Path, JobReturn] = {}
        self._payload = cloudpickle.dumps((task, objectives))
        self._collect = collect
        self._gpus, self._gpus_per_trial = list(gpus), gpus_per_trial
        self._timeout = None if timeout_min is None else 60 * timeout_min
        self._running: dict[str, _Process] = {}
        self._ended: dict[str, Status] = {}
        # processors shared out: several trials with a thread on each would be many times slower
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // slots)))
        patient_threads()  # the server imports torch
        short_sockets()
        self._context = multiprocessing.get_context("forkserver")
        # the command itself and Hydra's plugins as well: a child without them would import them before its unit
        plugins = [name for name in sys.modules if name.startswith(("hydra_plugins.", "hydra._internal.core_plugins."))]
        self._context.set_forkserver_preload(["__main__", *preload, *plugins])

    def submit(self, work: Sequence[Work]) -> list[Job]:
        """Start a process for one unit."""
        taken = {p.slot for p in self._running.values()}
        slot = next(i for i in range(self.capacity) if i not in taken)
        answer, question = self._context.Pipe(duplex=False) if self._collect else (None, None)
        process = self._context.Process(target=_child, args=(self._payload, work[0], self._visible(slot), question))
        with signals_held():  # a terminal that closes must not end the server
            process.start()
        if question is not None:
            question.close()
        job = _name(process.pid or 0)
        self._running[job] = _Process(process, work[0].folder, slot, answer, server=_parent(process.pid or 0))
        return [Job(job, gpus=self._share)]

    def _visible(self, slot: int) -> str | None:
        """``CUDA_VISIBLE_DEVICES`` of a slot."""
        if not self._gpus:
            return None
        first = slot * self._gpus_per_trial
        return ",".join(self._gpus[(first + i) % len(self._gpus)] for i in range(self._gpus_per_trial))

    def status(self, jobs: Collection[str]) -> dict[str, Status]:
        """Look at processes of this driver, and by their locks at those of an earlier one."""
        self._reap()
        return {job: self._status(job) for job in jobs}

    def _status(self, job: str) -> Status:
        if job in self._ended:
            return self._ended[job]
        if job in self._running:
            return Status(Stage.RUNNING)
        host = job.split(":")[0]
        if host != os.uname().nodename:
            reason = f"was started on {host}, this is {os.uname().nodename}"
            return Status(Stage.GONE, reason, node_fault=True, excused=True)
        if _lives(job):
            return Status(Stage.RUNNING)
        # most often the machine's end, and its driver's, too
        return Status(Stage.GONE, "ended while no driver was watching", node_fault=True, excused=True)

    def _reap(self) -> None:
        now = time.monotonic()
        for job, child in list(self._running.items()):
            if child.answer is not None and child.answer.poll():
                self._receive(child.folder, child.answer)
                child.answer = None
            end = self._end(job, child, now)
            if end is not None:
                self._ended[job] = end
                del self._running[job]
            elif child.asked is not None and now - child.asked > PATIENCE:
                _send(job, signal.SIGKILL)
            elif self._timeout is not None and child.asked is None and now - child.began > self._timeout:
                child.timed_out, child.asked = True, now
                _send(job, signal.SIGTERM)

    def _end(self, job: str, child: _Process, now: float) -> Status | None:
        """How a process has ended; None while it runs."""
        code = child.process.exitcode
        if code == UNTOLD and child.server:
            child.untold = child.untold or now
            if not _lives(child.server):  # it was killed, and tells nothing: the process itself is looked at
                if _lives(job):
                    return None
                if child.timed_out:
                    return _explain(UNTOLD, True, self._timeout)
                reason = "its end is unknown: the process that trials are forked from was killed"
                return Status(Stage.GONE, reason, node_fault=True, excused=True)
            if now - child.untold < 1.0:  # a server that is being killed lets go of its pipes first
                return None
        if code is None:
            return None
        child.process.join()
        return _explain(code, child.timed_out, self._timeout)

    def _receive(self, folder: Path, answer: Connection) -> None:
        """Take what a child sends back; one that died, or did not get to its task's end, sends nothing."""
        with contextlib.suppress(EOFError):
            data = answer.recv_bytes()
            if data:
                self.returns[folder] = cloudpickle.loads(data)

    def wait(self, seconds: float) -> None:
        """Return when a process ends, or after ``seconds``."""
        running = [child for child in self._running.values() if child.process.exitcode is None]
        signs = [c.process.sentinel for c in running] + [c.answer for c in running if c.answer is not None]
        if signs:
            wait(signs, timeout=seconds)
        else:
            time.sleep(min(seconds, 0.2))

    def cancel(self, jobs: Collection[str]) -> None:
        """Ask processes to save themselves and end."""
        for job in jobs:
            if job in self._running:
                self._running[job].asked = self._running[job].asked or time.monotonic()
                _send(job, signal.SIGTERM)
            elif self._status(job).stage == Stage.RUNNING:
                _send(job, signal.SIGTERM)

    def close(self) -> None:
        """Processes that still run live on; the next driver adopts them."""


def _explain(code: int, timed_out: bool, timeout: float | None) -> Status:
    """What an exit code says about a process that has written no outcome."""
    if timed_out and timeout is not None:
        return Status(Stage.GONE, f"took longer than hydra.launcher.timeout_min={timeout / 60:g}")
    if code >= 0:
        return Status(Stage.GONE, f"the trial's process left with exit code {code}")
    number = signal.Signals(-code)
    reason = f"killed by {number.name}" + (" (out of memory?)" if number == signal.SIGKILL else "")
    return Status(Stage.GONE, reason, node_fault=number in FROM_OUTSIDE)


def _name(pid: int) -> str:
    """Host, process id and the process's start, which no later process shares; an empty start where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        start = "" if fields[0] == "Z" else fields[19]
    except OSError:
        start = ""
    return f"{os.uname().nodename}:{pid}:{start}"


def _lives(job: str) -> bool:
    """Whether the process of a name is there, and is no later one of the same id."""
    return not job.endswith(":") and job == _name(_pid(job))


def _send(job: str, number: int) -> None:
    """Signal a process, if it is still there."""
    if _lives(job):
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(_pid(job), number)


def _parent(pid: int) -> str:
    """The name of the process that started another; empty where that is gone."""
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return ""
    return _name(parent)


def _pid(job: str) -> int:
    return int(job.split(":")[1])


def _child(payload: bytes, work: Work, visible: str | None, question: Connection | None) -> None:
    """What the forked process does."""
    os.setsid()  # Ctrl-C is the driver's to hear
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    short_sockets(anew=True)  # the driver removes its own folder for them, and may end before this process
    log_to(work.folder)
    os.environ[JOB] = _name(os.getpid())
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    task, objectives = cloudpickle.loads(payload)
    if question is None:
        run_unit(task, work, objectives)
    else:
        returned: list[JobReturn] = []
        run_unit(task, work, objectives, returned.append)
        question.send_bytes(cloudpickle.dumps(returned[0]) if returned else b"")
