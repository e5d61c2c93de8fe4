"""Trials as processes of this machine, which may be killed, with or without what they are forked from."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from sweeping import Sweeping
from waiting import wait_for


def children(pid: int) -> dict[int, str]:
    """Processes that a process has started, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("all_of_them", [False, True])
def test_the_end_of_the_process_that_trials_are_forked_from_fails_none(tmp_path: Path, all_of_them: bool):
    """Without retries for the trials' own failures; TMPDIR longer than a socket's path may be."""
    sweeping, long = Sweeping(tmp_path), tmp_path / ("long" * 30)
    long.mkdir()
    process = sweeping.start(
        "x=1,2", "hydra.sweeper.n_jobs=2", "hydra.sweeper.max_retries=0", "steps=6", "pause=0.5", TMPDIR=str(long)
    )
    begun = tmp_path / "executions"
    wait_for(lambda: begun.exists() and len(sweeping.executions) == 2)
    (server,) = [pid for pid, command in children(process.pid).items() if "forkserver" in command]
    trials = list(children(server))
    assert len(trials) == 2
    os.kill(server, signal.SIGKILL)
    for pid in trials if all_of_them else []:
        os.kill(pid, signal.SIGKILL)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, (out, err)
    assert sweeping.states == {"complete": 2} and len(sweeping.executions) == (4 if all_of_them else 2)
    assert "Traceback" not in err


@pytest.mark.slow
def test_reboots_spend_no_tries(tmp_path: Path):
    """Driver and trial die together, three times; the trial comes to no step in between."""
    sweeping, options = Sweeping(tmp_path), ("x=1", "hydra.sweeper.max_retries=1", "sabotage='0:wait'")
    for reboot in range(3):
        process = sweeping.start(*options)
        wait_for(lambda count=reboot: (tmp_path / "executions").exists() and len(sweeping.executions) == count + 1)
        (server,) = [pid for pid, command in children(process.pid).items() if "forkserver" in command]
        for pid in [process.pid, *children(server)]:
            os.kill(pid, signal.SIGKILL)
        process.communicate()
    (tmp_path / "go").touch()
    code, out, err = sweeping(*options)
    assert code == 0, (out, err)
    assert [a.reason for a in sweeping.trials[0].attempts] == ["ended while no driver was watching"] * 3 + [None]
