"""Figure 9: one of two training processes is killed or stopped; the other must not wait for ever.

    python benchmarks/reliability/ranks.py --count 50

Two real processes train together over gloo. At a random moment one gets SIGKILL or SIGSTOP. The other has to end by
itself with one line, at the latest `trainer.stall_timeout` (here 8 s) and some seconds later; the same command, here
on both again, then goes on to the end. Beside it: how long the libraries' default lets the other wait for a stopped
one.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any

from harness import Child, command, composed, run_directory, spawn, train, warmed, workspace
from torch.distributed.constants import default_pg_timeout

TIMEOUT = 8
GRACE = 20
"""Seconds beyond the timeout after which a process counts as hanging, on a machine that is busy."""
OPTIONS = [
    "trainer.max_steps=12", "trainer.eval_every=6", "trainer.checkpoint_every=2", "trainer.devices=2",
    "trainer.accelerator=cpu", f"trainer.stall_timeout={TIMEOUT}",
]  # fmt: skip
FAULTS = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}


def measure(seed: int, count: int) -> dict[str, Any]:
    """Lose a process ``count`` times, in turn killed and stopped, in turn the first and the second."""
    rng = random.Random(seed)
    single = [option for option in OPTIONS if "devices" not in option]
    with workspace() as folder:
        cache = warmed(folder, *single)
        began = time.monotonic()
        codes = [child.wait() for child in _pair(folder / "whole", cache)]
        seconds = time.monotonic() - began
        assert codes == [0, 0], (folder / "whole/0.log").read_text() + (folder / "whole/1.log").read_text()
        found = {fault: {"times": 0, "hangs": 0, "longest_wait_s": 0.0, "tracebacks": 0} for fault in FAULTS}
        finished = resumed = index = 0
        while sum(one["times"] for one in found.values()) < count:
            index += 1
            fault, victim = list(FAULTS)[index % 2], index // 2 % 2
            waited, said = _lose(folder / str(index), cache, FAULTS[fault], victim, rng.uniform(0.2, seconds))
            if waited is None and said == "finished":
                finished += 1
                continue
            mine = found[fault]
            mine["times"] += 1
            mine["hangs"] += waited is None
            mine["longest_wait_s"] = max(mine["longest_wait_s"], round(waited or 0.0, 1))
            mine["tracebacks"] += "Traceback" in said
            if "Traceback" in said:
                print(said)
            if sum(one["times"] for one in found.values()) <= 4:
                codes = [child.wait() for child in _pair(folder / str(index), cache)]
                resumed += codes == [0, 0] and (run_directory(folder / str(index)) / "result.json").exists()
            shutil.rmtree(folder / str(index), ignore_errors=True)
    return {
        "timeout_s": TIMEOUT, **found, "finished_before": finished, "resumed_of_four": resumed,
        "stock": {"torch and lightning-fabric wait for a stopped process (s)": default_pg_timeout.total_seconds()},
    }  # fmt: skip


def _lose(folder: Path, cache: Path, fault: signal.Signals, victim: int, after: float) -> tuple[float | None, str]:
    """Seconds that the other process lived on, None where it had to be ended; and what it said."""
    pair = _pair(folder, cache)
    time.sleep(after)
    done = [_ended(child) for child in pair]
    if any(done):
        for child, over in zip(pair, done, strict=True):
            if not over:
                child.kill(signal.SIGKILL)
                child.wait()
        return None, "finished"
    pair[victim].kill(fault)
    began = time.monotonic()
    code = pair[1 - victim].wait(TIMEOUT + GRACE)
    waited = time.monotonic() - began
    pair[victim].kill(signal.SIGKILL)
    pair[victim].wait()
    said = pair[1 - victim].text()
    if code == 0:
        return None, "finished"
    return (None if code is None else waited), said


def _ended(child: Child) -> bool:
    """Whether it is over, without collecting its exit code."""
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _pair(folder: Path, cache: Path) -> list[Child]:
    """Two processes as a launcher starts them."""
    config = composed(folder, *OPTIONS, cache=cache)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [spawn(folder / f"{rank}.log", _rank, config, rank, port) for rank in range(2)]


def _rank(config: Any, rank: int, port: int) -> None:
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "faults", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0",
    }  # fmt: skip
    train(config)


if __name__ == "__main__":
    command(measure, "ranks", 50)
