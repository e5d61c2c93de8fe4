"""How many processors there are for this process, how its threads wait on them, and other processes on all of them."""

from __future__ import annotations

import math
import multiprocessing
import multiprocessing.process
import multiprocessing.util
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recyclelora.system.errors import UserError

LONGEST_TMPDIR = 70
"""Bytes: multiprocessing adds 32 to make the path of a socket."""

STOPPING = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT,
)  # fmt: skip
"""What asks a command to stop: terminals and schedulers send these to its whole process group."""


CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux shows what a container or job may use: cgroups(7)."""
OWN_CGROUPS = Path("/proc/self/cgroup")
"""Which of them are this process's."""
SPINS = "10000"
"""Looks that a thread takes before it sleeps: some ten microseconds."""


def available_cores() -> int:
    """Those it may use: a container or SLURM may grant fewer than the machine has, or a share of their time."""
    granted = _granted_cores()
    quota = _quota()
    return granted if quota is None else min(granted, max(1, math.ceil(quota)))


def _granted_cores() -> int:
    """Those it may run on; macOS does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota() -> float | None:
    """Processors' worth of time that this process's control groups grant; None where they grant all."""
    found = []
    for folder, first_version in _control_groups():
        with suppress(OSError, ValueError, ZeroDivisionError):  # no such file, "max"
            found.append(_share_of(folder, first_version=first_version))
    return min((share for share in found if share > 0), default=None)


def _control_groups() -> Iterator[tuple[Path, bool]]:
    """The groups that bound this process's time, and whether they are of cgroup's first version.

    Each group is bound by those it lies in; a container sees its own one as the root.
    """
    try:
        lines = OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if not controllers or "cpu" in controllers.split(","):
            root = CGROUPS / "cpu" if controllers else CGROUPS
            own = root / path.lstrip("/")
            yield from ((folder, bool(controllers)) for folder in (own, *own.parents) if folder.is_relative_to(root))


def _share_of(folder: Path, *, first_version: bool) -> float:
    """Processors' worth of time of one control group; not above 0 or no number: all of it."""
    if first_version:
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period"))
    else:
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
    return int(quota) / int(period)


def patient_threads() -> None:
    """Say, before torch is imported, that its threads soon sleep while they wait, and are no more than may run at once.

    By default the threads of GNU's OpenMP, which torch brings, wait for each other on their processors: where other
    processes want these, too, a training step takes several times longer; sleeping at once costs a quarter on idle
    ones (``benchmarks/shared_cpu.py``). What the user has set stays. How many threads there are never depends on the
    load, since the order of float32 sums depends on them.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS
    if (cores := available_cores()) < _granted_cores():  # torch knows affinities, no quotas
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))


def short_sockets(*, anew: bool = False) -> None:
    """Give multiprocessing, where ``TMPDIR`` is long, a folder with a short path for its sockets and nothing else.

    Linux limits their paths to 107 bytes; schedulers set longer folders. Processes started from here inherit it.

    Args:
        anew: a folder of this process's own, instead of one inherited

    Raises:
        UserError: there is no folder for them.
    """
    config = multiprocessing.process.current_process()._config  # type: ignore[attr-defined]
    if anew:
        config.pop("tempdir", None)
    place = tempfile.gettempdir()
    if "tempdir" in config or len(os.fsencode(place)) <= LONGEST_TMPDIR:
        return
    for other in ("/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108  # nosec B108
        with suppress(OSError):
            folder = tempfile.mkdtemp(prefix="pymp-", dir=other)
            config["tempdir"] = folder
            multiprocessing.util.Finalize(None, shutil.rmtree, args=(folder, True), exitpriority=-100)
            return
    raise UserError(f"TMPDIR={place}: too long for sockets; set it to a folder of at most {LONGEST_TMPDIR} characters")


@contextmanager
def signals_held() -> Iterator[None]:
    """Let signals that ask to stop wait; processes that are started meanwhile begin with them waiting, too."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_parent() -> None:
    """What a helper process begins with: only its parent ends it.

    A signal to the whole group would otherwise take the data away from a parent that is saving itself.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(parent: int) -> None:
    """End this process when its parent terminates it, or when it is terminated without one."""
    while True:
        if hasattr(signal, "sigwaitinfo"):
            sender = signal.sigwaitinfo({signal.SIGTERM}).si_pid
        else:  # macOS does not tell who sends
            signal.sigwait({signal.SIGTERM})
            sender = parent
        if sender == parent or os.getppid() != parent:
            os._exit(0)


@contextmanager
def process_pool(
    workers: int, initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = (),
    *, method: str = "spawn",
) -> Iterator[ProcessPoolExecutor]:  # fmt: skip
    """Processes that leave signals to this one; after an error or a stop in the block what has not begun is dropped.

    Fresh ones by default: forking a process that runs torch's threads can hang.
    """
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(workers, context, _started, (initializer, initargs)) as pool:
        try:
            with signals_held():
                for _ in range(workers):  # each starts a process
                    pool.submit(os.getpid)
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _started(initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    leave_signals_to_parent()
    if initializer is not None:
        initializer(*initargs)
