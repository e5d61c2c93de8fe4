"""Soak: two sweeps on a real SLURM of three nodes for a long time, with a fault every few seconds.

    python benchmarks/reliability/soak.py --minutes 30 --seed 0

Faults, in random order: scancel of a running job, ``scontrol requeue``, SIGKILL of a job, loss and return of a node,
and SIGKILL of the second sweep's driver, which is started again by the same command. One trial in eleven is sabotaged.
At the end every trial must have ended the right way, none twice, none lost, nothing may run any more; the first driver,
which lives all the time, must not have grown in memory (beyond what its trials take) or in open files.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "tests/support")]

from harness import about_the_machine, workspace  # noqa: E402
from sabotage import REASONS  # noqa: E402
from slurm_cluster import NODES, Cluster, missing, running_cluster  # noqa: E402
from sweep_app import Sweep  # noqa: E402

from recyclelora.sweep.ledger import COMPLETE, FAILED, Ledger  # noqa: E402

MOST_TRIALS = 4000
SABOTAGE = {act: reason for act, reason in REASONS.values() if act in ("raise", "user", "memory", "nan", "none")}
ACTS = {number: list(SABOTAGE)[number // 11 % len(SABOTAGE)] for number in range(7, MOST_TRIALS, 11)}
SEARCH = [
    "x=interval(-5.0,5.0)", "hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=0", "steps=3", "pause=1.5",
    f"hydra.sweeper.n_trials={MOST_TRIALS}", "hydra.sweeper.max_retries=50",
    "sabotage='" + " ".join(f"{number}:{act}" for number, act in ACTS.items()) + "'",
    "hydra/launcher=recyclelora_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=0.3",
    "hydra.launcher.timeout_min=10", "hydra.launcher.poll_s=1",
]  # fmt: skip
EVERY = (3.0, 9.0)
"""Seconds between two faults."""
WARM_UP = 0.2
"""Share of the time after which memory counts."""


@dataclass
class Driver:
    """A sweep and the process that drives it."""

    sweep: Sweep
    process: subprocess.Popen[bytes]
    samples: list[tuple[int, float, int]] = field(default_factory=list)
    """trials so far, resident MB, open files"""

    @classmethod
    def of(cls, folder: Path) -> Driver:
        """Start one."""
        sweep = Sweep(folder, None, n_jobs=2)
        return cls(sweep, sweep.start(*SEARCH))

    @property
    def folder(self) -> Path:
        """Of the sweep."""
        return self.sweep.folder / "out"

    def again(self) -> None:
        """Kill it; the same command goes on."""
        self.process.kill()
        self.process.wait()
        self.process = self.sweep.start(*SEARCH)

    def sample(self) -> None:
        """Look at its memory and its open files."""
        own = Path(f"/proc/{self.process.pid}")
        words = dict(line.split(":", 1) for line in (own / "status").read_text().splitlines())
        trials = sum(1 for _ in (self.folder / "ledger").glob("[0-9]*"))
        self.samples.append((trials, int(words["VmRSS"].split()[0]) / 1024, sum(1 for _ in (own / "fd").iterdir())))

    def end(self) -> int:
        """Let it ask for no more trials; its exit code."""
        trials = len(Ledger(self.folder).trials())
        command = [sys.executable, "-m", "recyclelora.sweep", "extend", str(self.folder), str(trials)]
        while self.process.poll() is None and subprocess.run(command, capture_output=True).returncode:
            time.sleep(0.5)  # it is only just starting
        return self.process.wait(600)


def measure(minutes: float, seed: int) -> dict[str, object]:
    """Everything counted in so many minutes."""
    rng = random.Random(seed)
    with workspace() as folder:
        (folder / "slurm").mkdir()
        for cluster in running_cluster(folder / "slurm"):
            steady, killed = Driver.of(folder / "steady"), Driver.of(folder / "killed")
            faults = _disturb(cluster, steady, killed, rng, time.monotonic() + 60 * minutes)
            codes = [steady.end(), killed.end()]
            queue = cluster.ask("squeue", "--noheader").split()
            left = sum(len(cluster.processes(node)) for node in NODES)
            return {
                "minutes": minutes, "seed": seed, "faults": dict(sorted(faults.items())),
                "driver lives": {"exit_code": codes[0], **_counted(steady.sweep), **_grown(steady.samples)},
                "driver is killed": {"exit_code": codes[1], **_counted(killed.sweep)},
                "jobs_left": len(queue), "processes_left": left, **about_the_machine(),
            }  # fmt: skip
    raise AssertionError("no cluster")


def _disturb(cluster: Cluster, steady: Driver, killed: Driver, rng: random.Random, deadline: float) -> Counter[str]:
    """Do harm until the deadline; what was done, how often."""
    faults: Counter[str] = Counter()
    while time.monotonic() < deadline:
        time.sleep(rng.uniform(*EVERY))
        if (steady.folder / "ledger").exists():
            steady.sample()
        kind = rng.choice(["scancel", "requeue", "job killed", "node lost", "driver killed"])
        if kind == "driver killed":
            killed.again()
        elif kind == "node lost":
            _lose(cluster, rng.choice(NODES), rng)
        else:
            running = cluster.ask("squeue", "--noheader", "--states=RUNNING", "--format=%i").split()
            if not running:
                continue
            command = {
                "scancel": ("scancel",), "requeue": ("scontrol", "requeue"),
                "job killed": ("scancel", "--signal=KILL", "--full"),
            }[kind]  # fmt: skip
            # it may have ended in between
            subprocess.run([*command, rng.choice(running)], env=cluster.environment, capture_output=True, timeout=60)
        faults[kind] += 1
    return faults


def _lose(cluster: Cluster, node: str, rng: random.Random) -> None:
    cluster.kill_node(node)
    cluster.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")
    time.sleep(rng.uniform(1, 5))
    cluster.start_node(node)


def _counted(sweep: Sweep) -> dict[str, object]:
    """How the trials of a sweep ended."""
    trials = Ledger(sweep.folder / "out").trials()
    healthy = [trial for trial in trials if trial.number not in ACTS]
    bad = [trial for trial in trials if trial.number in ACTS]
    repeated = sweep.folder / "repeated"
    right = [t for t in healthy if t.state == COMPLETE and t.values == [-((t.params["x"] - 3) ** 2)]]
    named = [t for t in bad if t.state == FAILED and SABOTAGE[ACTS[t.number]] in str(t.reason)]
    wrong = [t for t in trials if t not in right and t not in named]
    return {
        "trials": len(trials), "healthy": len(healthy), "healthy_right": len(right),
        "sabotaged": len(bad), "reasons_right": len(named),
        "attempts": sum(len(trial.attempts) for trial in trials), "executions": sum(sweep.executions.values()),
        "begun_after_their_end": len(repeated.read_text().splitlines()) if repeated.exists() else 0,
        "study": dict(sweep.states()),
        "what": [f"{t.number}: {t.state} {t.values} {t.reason}" for t in wrong][:10],
    }  # fmt: skip


def _grown(samples: list[tuple[int, float, int]]) -> dict[str, object]:
    """Memory and open files of a driver, after the warm-up and at the end."""
    first, last = samples[int(WARM_UP * len(samples))], samples[-1]
    return {
        "memory_mb": [round(first[1], 1), round(last[1], 1)],
        "kb_a_trial": round(1024 * (last[1] - first[1]) / max(1, last[0] - first[0]), 1),
        "open_files": [first[2], last[2]],
        "most_open_files": max(sample[2] for sample in samples),
    }


def main() -> None:
    """Write soak.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=HERE / "soak.json")
    given = parser.parse_args()
    if missing():
        parser.error(f"needs Debian's slurmctld, slurmd, slurm-client and munge: no {', '.join(missing())}")
    result = measure(given.minutes, given.seed)
    given.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
