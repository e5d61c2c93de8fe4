"""Whole sweeps on a real SLURM, as a user starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file
from slurm_cluster import Cluster, needs_slurm
from sweeping import Sweeping

from recyclelora.config.compose import home

pytestmark = [pytest.mark.slurm, needs_slurm()]

SLURM = [
    "hydra/launcher=recyclelora_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=0.3",
    "hydra.launcher.timeout_min=10", "hydra.launcher.poll_s=1",
]  # fmt: skip


ONE_BY_ONE_OR_ARRAY = pytest.mark.parametrize(
    "how", [SLURM, [*SLURM, "hydra.launcher.array=true"]], ids=["jobs", "array"]
)


@pytest.fixture
def sweeping(tmp_path: Path, cluster: Cluster) -> Sweeping:
    return Sweeping(tmp_path)


def started(sweeping: Sweeping) -> list[str]:
    path = sweeping.folder / "executions"
    return sweeping.executions if path.exists() else []


def jobs(cluster: Cluster) -> list[str]:
    """Numbers of running jobs."""
    return cluster.ask("squeue", "--noheader", "--states=RUNNING", "--format=%i").split()


def test_a_grid(sweeping: Sweeping):
    code, out, err = sweeping("x=1,2,3", "y=2", "hydra.sweeper.n_jobs=3", "sabotage='1:raise'", *SLURM)
    assert code == 3, (out, err)
    assert [t.state for t in sweeping.trials] == ["complete", "failed", "complete"]
    assert [t.values for t in sweeping.trials] == [[-4.0], None, [0.0]]
    assert sweeping.trials[1].reason == "ValueError: the data are gone"
    assert sweeping.trials[0].attempts[0].job.isdigit()


def test_a_search_with_trials_sharing_allocations(sweeping: Sweeping):
    search = ["hydra/sweeper/sampler=tpe", "hydra.sweeper.n_trials=6", "x=interval(0,6)", "hydra.sweeper.n_jobs=4"]
    code, out, err = sweeping(*search, *SLURM, "hydra.launcher.trials_per_job=2")
    assert code == 0, (out, err)
    assert sweeping.states == {"complete": 6} and len(sweeping.executions) == 6
    assert len({t.attempts[0].job for t in sweeping.trials}) == 3
    assert all(t.values == [-((t.params["x"] - 3) ** 2)] for t in sweeping.trials)


@ONE_BY_ONE_OR_ARRAY
def test_jobs_outlive_a_killed_driver_and_are_adopted(sweeping: Sweeping, cluster: Cluster, how: list[str]):
    command = ["x=1,2,3,4", "pause=6", "hydra.sweeper.n_jobs=2", *how]
    driver = sweeping.start(*command)
    cluster.until(lambda: len(jobs(cluster)) == 2 and len(started(sweeping)) == 2)
    driver.kill()
    driver.communicate()
    code, out, err = sweeping(*command)
    assert code == 0, (out, err)
    assert sweeping.states == {"complete": 4}
    assert sorted(sweeping.executions) == [f"{n:04d} unit_0 seed=0" for n in range(4)]
    assert all(len(t.attempts) == 1 for t in sweeping.trials)
    assert ["_" in t.attempts[0].job for t in sweeping.trials[:2]] == [how != SLURM] * 2


def test_a_stopped_driver_leaves_its_jobs_running(sweeping: Sweeping, cluster: Cluster):
    command = ["x=1,2", "pause=6", "hydra.sweeper.n_jobs=2", *SLURM]
    driver = sweeping.start(*command)
    cluster.until(lambda: len(started(sweeping)) == 2)
    driver.send_signal(signal.SIGINT)
    out, err = driver.communicate(timeout=20)
    assert driver.returncode == 130 and len(jobs(cluster)) == 2, (out, err)
    assert sweeping(*command)[0] == 0
    assert len(sweeping.executions) == 2 and sweeping.states == {"complete": 2}


@ONE_BY_ONE_OR_ARRAY
def test_a_cancelled_trial_and_one_on_a_lost_node_run_again(sweeping: Sweeping, cluster: Cluster, how: list[str]):
    driver = sweeping.start("x=1,2,3", "pause=8", "hydra.sweeper.n_jobs=3", *how, "hydra.launcher.cpus_per_task=3")
    cluster.until(lambda: len(jobs(cluster)) == 3 and len(started(sweeping)) == 3)
    running = [trial.attempts[0].job for trial in sweeping.trials]
    cluster.ask("scancel", running[0])
    node = cluster.job(running[2])["BatchHost"]
    cluster.kill_node(node)
    cluster.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")
    try:
        out, err = driver.communicate(timeout=100)
    finally:
        cluster.start_node(node)
        cluster.until(lambda: "idle" in cluster.ask("sinfo", "-h", "-n", node, "-o", "%t"))
    assert driver.returncode == 0, (out, err)
    assert [t.values for t in sweeping.trials] == [[-4.0], [-1.0], [0.0]]
    first, second, third = (t.attempts for t in sweeping.trials)
    assert [a.reason for a in first] == ["cancelled (scancel)", None] and first[0].node_fault
    assert len(second) == 1 and len(third) == 1  # SLURM itself has queued the job of the lost node again
    counts = [len([line for line in sweeping.executions if line.startswith(f"{n:04d}")]) for n in range(3)]
    assert counts == [2, 1, 2]


def test_a_controller_that_is_away_is_waited_for(sweeping: Sweeping, cluster: Cluster):
    """While jobs end, and while new ones are to be submitted."""
    driver = sweeping.start("x=1,2,3,4", "pause=4", "hydra.sweeper.n_jobs=2", *SLURM)
    cluster.until(lambda: len(started(sweeping)) == 2)
    cluster.stop_controller()
    try:
        cluster.until(lambda: len(list(sweeping.folder.glob("out/ledger/*/*/outcome.json"))) == 2)
        time.sleep(25)
        assert driver.poll() is None
    finally:
        cluster.start_controller()
    out, err = driver.communicate(timeout=110)
    assert driver.returncode == 0, (out, err)
    assert sweeping.states == {"complete": 4} and len(sweeping.executions) == 4
    assert out.count("is tried again until it is taken") == 1 and "jobs are taken again" in out


def test_a_node_on_which_nothing_begins_fails_no_trial(sweeping: Sweeping, cluster: Cluster):
    """Free again at once, it draws one job after the other."""
    hole = "hydra.launcher.setup=['test $SLURMD_NODENAME != n2 || exit 1']"
    code, out, err = sweeping("x=1,2,3,4,5,6", "hydra.sweeper.n_jobs=6", "hydra.sweeper.max_retries=0", *SLURM, hole)
    assert code == 0, (out, err)
    assert sweeping.states == {"complete": 6} and "n2 gets no more jobs" in out
    died = [a for t in sweeping.trials for a in t.attempts if not a.began]
    assert died and len(sweeping.executions) == 6


def test_a_job_that_a_prolog_kept_from_starting_is_released(sweeping: Sweeping, cluster: Cluster):
    """SLURM drains the node and holds the job."""
    cluster.break_prolog("n2")
    try:
        code, out, err = sweeping("x=1,2,3", "hydra.sweeper.n_jobs=3", *SLURM, "hydra.launcher.cpus_per_task=4")
    finally:
        cluster.mend_prolog("n2")
    assert code == 0, (out, err)
    assert sweeping.states == {"complete": 3} and len(sweeping.executions) == 3
    assert out.count("is drained: released for another one") == 1
    assert all(len(trial.attempts) == 1 for trial in sweeping.trials)


WAITING = {
    # options; what the test does to the job once it runs; reason; advice; what lets the job start
    "held": (
        ["+hydra.launcher.additional_parameters.hold=true"], None, "JobHeldUser",
        "'scontrol release {job}' lets it start", ["release", "{job}"],
    ),
    "held after it was queued again": (
        ["pause=4"], ["requeuehold", "{job}"], "job requeued in held state",
        "'scontrol release {job}' lets it start", ["release", "{job}"],
    ),
    "longer than the partition allows": (
        ["hydra.launcher.partition=short", "hydra.launcher.timeout_min=60", "hydra.launcher.signal_delay_s=5"], None,
        "PartitionTimeLimit", "the partition allows less than hydra.launcher.timeout_min=60",
        ["update", "jobid={job}", "timelimit=2"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("why", WAITING)
def test_a_job_that_waits_for_a_person_says_so(sweeping: Sweeping, cluster: Cluster, why: str):
    options, done_to_it, reason, advice, help_it = WAITING[why]
    driver = sweeping.start("x=1", *SLURM, *options)

    def scontrol(*words: str) -> None:
        cluster.ask("scontrol", *(word.format(job=sweeping.trials[0].attempts[0].job) for word in words))

    if done_to_it:
        cluster.until(lambda: started(sweeping))
        scontrol(*done_to_it)
    waits = sweeping.folder / "out/ledger/0000/unit_0/waits.json"
    cluster.until(lambda: waits.exists() and reason in waits.read_text())
    status = [sys.executable, "-m", "recyclelora.sweep", "status", str(sweeping.folder / "out")]
    seen = subprocess.run(status, capture_output=True, text=True, env={**os.environ, "COLUMNS": "250"}).stdout
    job = sweeping.trials[0].attempts[0].job
    scontrol(*help_it)
    out, err = driver.communicate(timeout=100)
    assert driver.returncode == 0, (out, err)
    for said in (seen, out):
        assert reason in said and advice.format(job=job) in said, (seen, out)


@ONE_BY_ONE_OR_ARRAY
def test_a_trial_that_is_cancelled_in_the_queue_never_starts(sweeping: Sweeping, cluster: Cluster, how: list[str]):
    full = [*how, "hydra.launcher.cpus_per_task=4"]  # a whole node
    driver = sweeping.start("x=1,2,3,4", "pause=25", "hydra.sweeper.n_jobs=4", *full)
    cluster.until(lambda: len(started(sweeping)) == 3 and len(sweeping.trials) == 4)
    subprocess.run([sys.executable, "-m", "recyclelora.sweep", "cancel", str(sweeping.folder / "out"), "3"], check=True)
    out, err = driver.communicate(timeout=150)
    assert driver.returncode == 3, (out, err)
    assert [(t.state, t.reason) for t in sweeping.trials] == [*[("complete", None)] * 3, ("failed", "cancelled")]
    assert len(sweeping.executions) == 3


def test_a_detached_driver_runs_the_sweep_as_a_job(sweeping: Sweeping, cluster: Cluster):
    own = ["hydra.launcher.driver.timeout_min=5", "hydra.launcher.driver.mem_gb=0.5"]
    code, out, err = sweeping("x=1,2", "hydra.sweeper.n_jobs=2", "hydra.sweeper.detach=true", *SLURM, *own)
    assert code == 0, (out, err)
    assert "scancel" in out and "driver.log" in out
    cluster.until(lambda: (sweeping.folder / "out/summary.json").exists(), 60)
    assert sweeping.states == {"complete": 2}
    assert "2 complete" in (sweeping.folder / "out/driver.log").read_text()


def test_an_array_is_as_large_as_the_cluster_allows(sweeping: Sweeping, cluster: Cluster):
    code, out, err = sweeping("x=1,2,3,4,5,6", "hydra.sweeper.n_jobs=6", *SLURM, "hydra.launcher.array=true")
    assert code == 0, (out, err)
    assert sweeping.states == {"complete": 6} and len(sweeping.executions) == 6
    arrays = [trial.attempts[0].job.split("_") for trial in sweeping.trials]
    assert [task for _, task in arrays] == ["0", "1", "2"] * 2 and len({array for array, _ in arrays}) == 2


def test_a_job_that_does_not_start_goes_to_another_partition(sweeping: Sweeping, cluster: Cluster):
    cluster.ask("scontrol", "update", "partitionname=low", "state=down")
    elsewhere = ["hydra.launcher.partition=low", "hydra.launcher.fallback=[{partition: high, mem_gb: 0.2}]"]
    needs = "hydra.launcher.resources=[{when: 'x=2', gres: 'gpu:1'}]"
    try:
        code, out, err = sweeping("x=1,2", "hydra.sweeper.n_jobs=2", *SLURM, *elsewhere, needs)
    finally:
        cluster.ask("scontrol", "update", "partitionname=low", "state=up")
    assert code == 0, (out, err)
    first, second = ([cluster.job(a.job) for a in trial.attempts] for trial in sweeping.trials)
    assert [job["Partition"] for job in first] == [job["Partition"] for job in second] == ["low", "high"]
    assert "TresPerNode" not in first[1] and second[1]["TresPerNode"] == "gres:gpu:1"
    assert "next of hydra.launcher.fallback" in out and len(sweeping.executions) == 2


@ONE_BY_ONE_OR_ARRAY
def test_trials_that_pause_give_back_their_jobs_and_go_on_in_others(
    sweeping: Sweeping, cluster: Cluster, how: list[str]
):
    """Nine trials of nine steps, of which every third goes on after 1 and 3 steps; the driver dies on the way."""
    command = [
        "x=1,2,3,4,5,6,7,8,9", "steps=9", "resumes=true", "pause=0.2", "hydra.sweeper.n_jobs=3",
        "hydra/sweeper/pruner=asha", "hydra.sweeper.pruner.max_resource=9", *how,
    ]  # fmt: skip
    driver = sweeping.start(*command)
    cluster.until(lambda: started(sweeping) and sweeping.states.get("paused", 0) >= 2, 120)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    code, out, err = sweeping(*command)
    assert code == 0, (out, err)
    states = sweeping.states
    assert states.keys() == {"complete", "paused"} and states["complete"] < 4, states
    best = max((t for t in sweeping.trials if t.values), key=lambda t: t.values)
    assert str(best.params["x"]) == "3" and best.values == [0.0] and best.rungs.keys() == {"1", "3"}
    assert len({attempt.job for attempt in best.attempts}) == len(best.attempts) >= 2
    for trial in sweeping.trials:  # no step twice: each attempt begins where the one before it paused
        reports = (trial.unit_folder(0) / "reports.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in reports]
        assert steps == sorted(steps) and len(steps) - len(set(steps)) <= len(trial.attempts) - 1


def test_hydras_own_launcher_sends_job_arrays(sweeping: Sweeping, cluster: Cluster):
    stock = ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=5", "hydra.launcher.mem_gb=1"]
    code, out, err = sweeping("x=1,2,3,4", "hydra.sweeper.n_jobs=2", *stock)
    assert code == 0, (out, err)
    assert [t.values for t in sweeping.trials] == [[-4.0], [-1.0], [0.0], [-1.0]]
    tasks = cluster.ask("squeue", "--noheader", "--states=all", "--array", "--format=%F %K").split()
    arrays = [first for first, task in zip(tasks[::2], tasks[1::2], strict=True) if task in ("0", "1")]
    assert {arrays.count(first) for first in arrays} == {2} and len(set(arrays)) >= 2


# --- real training ----------------------------------------------------------------------------------------------------


def train(folder: Path, *overrides: str) -> tuple[int, str, str]:
    places = [f"cache={folder / 'cache'}", f"data.root={folder / 'data'}"]  # outputs where they are by default
    command = [sys.executable, str(home() / "train.py"), "-m", *places, *TINY, "trainer.accelerator=cpu", *overrides]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)
    return done.returncode, done.stdout, done.stderr


def job_of(unit: Path) -> str:
    return json.loads((unit / "started.json").read_text())["job"]


TRAINING = [
    "hydra/launcher=slurm",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=2",
    "hydra.launcher.poll_s=1",
]
LONG = ["trainer.max_steps=800", "trainer.eval_every=800", "trainer.checkpoint_every=800", "trainer.log_every=20"]
"""Long enough, ten seconds, for what is done to the job to find it at work."""


@pytest.mark.timeout(900)
def test_training_that_meets_its_time_limit_ends_like_an_undisturbed_one(tmp_path: Path, gta2city, cluster: Cluster):
    limit = [*TRAINING, "hydra.launcher.gres=gpu:1", "hydra.launcher.timeout_min=5"]
    with ThreadPoolExecutor() as pool:
        done = pool.submit(train, tmp_path, *LONG, *limit, "study=cut")
        unit = tmp_path / "outputs/sweeps/cut/ledger/0000/unit_0"
        cluster.until(lambda: (unit / "progress.json").exists(), 120)
        cluster.ask("scancel", "--signal=USR2", job_of(unit))  # what SLURM does before a time limit
        code, out, err = done.result()
    assert code == 0, (out, err)
    assert "resuming after step" in (unit / "log.txt").read_text()
    assert len(json.loads((unit.parent / "state.json").read_text())["attempts"]) == 1
    code, out, err = train(tmp_path, *LONG, "study=whole")
    assert code == 0, (out, err)
    sweeps = tmp_path / "outputs/sweeps"
    cut, whole = (next(sweeps.glob(f"{name}/trial_0000-*/adapter.safetensors")) for name in ("cut", "whole"))
    assert cut.read_bytes() == whole.read_bytes()


@pytest.mark.timeout(900)
def test_two_nodes_train_what_one_process_trains(tmp_path: Path, gta2city, cluster: Cluster):
    """Same global batch, same samples, same loss: equal up to the order of float32 sums."""
    nodes = [*TRAINING, "hydra.launcher.gres=null", "hydra.launcher.timeout_min=5", "hydra.launcher.nodes=2"]
    here = ["hydra.launcher.setup=['export MASTER_ADDR=127.0.0.1']", "trainer.num_nodes=2"]
    same = ["trainer.batch_size=4", "optimizer.lr=1e-2"]
    weights, scores = [], []
    for study, more in (("two", [*nodes, *here]), ("one", [])):
        code, out, err = train(tmp_path, *same, *more, f"study={study}")
        logs = [p.read_text() for p in (tmp_path / "outputs/sweeps").glob(f"{study}/ledger/*/*/log.txt")]
        assert code == 0, (out, err, logs)
        (run,) = (tmp_path / "outputs/sweeps" / study).glob("trial_0000-*")
        weights.append(load_file(run / "adapter.safetensors"))
        scores.append(json.loads((run / "result.json").read_text())["miou"]["mean"])
    for name, value in weights[1].items():
        torch.testing.assert_close(weights[0][name], value, atol=2e-5, rtol=1e-3, msg=name)
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    number = json.loads((tmp_path / "outputs/sweeps/two/ledger/0000/state.json").read_text())["attempts"][0]["job"]
    assert cluster.job(number)["NumNodes"] == "2" and os.environ["SLURM_CONF"] == str(cluster.configuration)


@pytest.mark.timeout(900)
def test_training_with_data_workers_is_preempted_cancelled_and_drained(tmp_path: Path, gta2city, cluster: Cluster):
    """Signals go to every process of a job, also to the data workers; training saves itself and ends as undisturbed."""
    steps = [*LONG, "trainer.num_workers=2"]
    node = ["hydra.launcher.partition=low", "hydra.launcher.nodelist=n3", "hydra.launcher.gres=null"]
    unit = tmp_path / "outputs/sweeps/cut/ledger/0000/unit_0"

    def at_work(after: int = 0) -> bool:
        path = unit / "progress.json"
        return path.exists() and json.loads(path.read_text())["step"] > after

    with ThreadPoolExecutor() as pool:
        done = pool.submit(train, tmp_path, *steps, *TRAINING, *node, "hydra.launcher.timeout_min=30", "study=cut")
        cluster.until(at_work, 120)
        important = ["--partition=high", "--nodelist=n3", "--cpus-per-task=4", "--output=/dev/null"]
        script = tmp_path / "important.sh"
        script.write_text("#!/bin/bash\nsleep 2\n")
        cluster.ask("sbatch", *important, str(script))
        cluster.until(lambda: "resuming after step" in (unit / "log.txt").read_text(), 200)
        step = json.loads((unit / "progress.json").read_text())["step"]
        cluster.until(lambda: at_work(step), 120)
        cluster.ask("scancel", job_of(unit))
        cluster.until(lambda: (unit / "log.txt").read_text().count("resuming after step") == 2, 200)
        step = json.loads((unit / "progress.json").read_text())["step"]
        cluster.until(lambda: at_work(step), 120)
        cluster.ask("scontrol", "update", "nodename=n3", "state=drain", "reason=work")  # lets what runs end
        try:
            code, out, err = done.result()
        finally:
            cluster.ask("scontrol", "update", "nodename=n3", "state=resume")
    assert code == 0, (out, err)
    attempts = json.loads((unit.parent / "state.json").read_text())["attempts"]
    assert [a["reason"] for a in attempts] == ["cancelled (scancel)", None]  # preempted, the job was queued again
    code, out, err = train(tmp_path, *steps, "study=whole")
    assert code == 0, (out, err)
    sweeps = tmp_path / "outputs/sweeps"
    cut, whole = (next(sweeps.glob(f"{name}/trial_0000-*/adapter.safetensors")) for name in ("cut", "whole"))
    assert cut.read_bytes() == whole.read_bytes()
