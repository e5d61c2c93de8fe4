"""Units as jobs of a real SLURM."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest
from slurm_cluster import Cluster, needs_slurm

from recyclelora.config.launchers import DriverOptions, SlurmOptions
from recyclelora.sweep.attempts import Attempt
from recyclelora.sweep.execution import Job, Stage, Status, Work
from recyclelora.sweep.executors import SLURM, make_executor
from recyclelora.sweep.ledger import Ledger
from recyclelora.sweep.slurm.driver import submit_driver
from recyclelora.sweep.slurm.executor import SlurmExecutor
from recyclelora.system.errors import UserError
from sweep.slurm.tasks import Task

pytestmark = [pytest.mark.slurm, needs_slurm()]


class Sweep:
    """A ledger and an executor, with a driver's few duties done by hand."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.folder, self.ledger, self.count = folder, Ledger(folder), 0
        self.executor = self.new_executor(**options)

    def new_executor(self, **options: object) -> SlurmExecutor:
        plain = {"_target_": SLURM, "cpus_per_task": 1, "mem_gb": 0.3, "timeout_min": 10, "poll_s": 1.0, **options}
        executor = make_executor(plain, Task(), None, self.folder, 8, "tests")
        assert isinstance(executor, SlurmExecutor)
        return executor

    def work(self, *overrides: str) -> Work:
        trial = self.ledger.add(self.count, {}, list(overrides), [list(overrides)], {})
        self.count += 1
        trial.attempts.append(Attempt(0, 1, "", ""))
        trial.save_state()
        return Work(trial.number, trial.unit_folder(0), 1, list(overrides))

    def submit(self, *overrides: str) -> tuple[str, Path]:
        work = self.work(*overrides)
        (job,) = self.executor.submit([work])
        return job.name, work.folder

    def end(self, *jobs: str, seconds: float = 60) -> list[Status]:
        deadline = time.monotonic() + seconds
        while any(s.stage != Stage.GONE for s in self.executor.status(jobs).values()):
            assert time.monotonic() < deadline, (self.executor.status(jobs), self.logs())
            self.executor.wait(0.2)
        return [self.executor.status(jobs)[job] for job in jobs]

    def runs(self, job: str) -> bool:
        return self.executor.status([job])[job].stage == Stage.RUNNING

    def logs(self) -> str:
        files = [*self.folder.glob("ledger/*/*/log.txt"), *self.folder.glob("submitit/*/*log*")]
        return "\n".join(f"{path}:\n{path.read_text()}" for path in files)


def names(jobs: list[Job]) -> list[str]:
    return [job.name for job in jobs]


def outcome(folder: Path) -> dict:
    return json.loads((folder / "outcome.json").read_text())


def test_jobs_run_beside_each_other_and_say_how_they_ended(cluster: Cluster, tmp_path: Path):
    sweep = Sweep(tmp_path)
    jobs, folders = zip(
        *(sweep.submit(*o) for o in [("do=give", "value=3"), ("do=fail",), ("do=sleep", "seconds=1")]), strict=True
    )
    assert sweep.end(*jobs) == [Status(Stage.GONE)] * 3
    given, failed, slept = map(outcome, folders)
    assert (given["status"], given["values"]) == ("complete", [3.0]) and slept["status"] == "complete"
    assert (failed["status"], failed["reason"]) == ("failed", "ValueError: this trial is wrong")
    assert "giving 3" in (folders[0] / "log.txt").read_text()
    names = cluster.ask("squeue", "--states=all", "--noheader", "--format=%i %j").split()
    assert dict(zip(names[::2], names[1::2], strict=True))[jobs[1]] == "tests-0001"
    started = json.loads((folders[0] / "started.json").read_text())
    assert started["job"] == jobs[0]
    assert stat.S_IMODE((tmp_path / "submitit").stat().st_mode) == 0o700
    assert "s3cr3t" not in "".join(p.read_text() for p in tmp_path.glob("submitit/**/*.sh"))


def test_gpus_setup_lines_and_any_option_of_sbatch(cluster: Cluster, tmp_path: Path):
    sweep = Sweep(
        tmp_path, gres="gpu:1", setup=["export GREETING='good morning'"], additional_parameters={"export": "NONE"},
        comment="a comment", name="mine",
    )  # fmt: skip
    job, folder = sweep.submit("do=look")
    assert sweep.end(job) == [Status(Stage.GONE)]
    assert outcome(folder)["status"] == "complete", sweep.logs()
    seen = json.loads((folder / "seen.json").read_text())
    assert len(seen["CUDA_VISIBLE_DEVICES"].split(",")) == 1
    assert (seen["GREETING"], seen["SLURM_JOB_NAME"]) == ("good morning", "mine-0000")
    assert seen["PYTHONPATH"] == os.environ["PYTHONPATH"]
    about = cluster.job(job)
    assert about["Comment"] == "a" and about["TresPerNode"] == "gres:gpu:1"


def test_trials_share_an_allocation_and_its_gpus(cluster: Cluster, tmp_path: Path):
    sweep = Sweep(tmp_path, gres="gpu:2", trials_per_job=4)
    works = [sweep.work("do=look"), sweep.work("do=die"), sweep.work("do=look"), sweep.work("do=fail")]
    (job,) = names(sweep.executor.submit(works))
    (status,) = sweep.end(job)
    assert status.reason == "killed by SIGKILL (out of memory?)" and status.node_fault
    seen = [json.loads((work.folder / "seen.json").read_text()) for work in (works[0], works[2])]
    assert [s["CUDA_VISIBLE_DEVICES"] for s in seen] == ["0", "1"]
    assert [s["SLURM_NTASKS"] for s in seen] == ["1", "1"] and [s["SLURM_PROCID"] for s in seen] == ["0", "0"]
    assert [outcome(w.folder)["status"] for w in (works[0], works[2], works[3])] == ["complete", "complete", "failed"]
    assert cluster.job(job)["JobName"] == "tests-0000-0001-0002-0003"


@pytest.mark.parametrize(
    ("what", "reason", "node_fault"),
    [("die", "killed by SIGKILL (out of memory?)", True), ("crash", "failed: the job left with exit code 7", False)],
)
def test_a_job_that_dies_without_a_word(cluster: Cluster, tmp_path: Path, what: str, reason: str, node_fault: bool):
    sweep = Sweep(tmp_path)
    job, _ = sweep.submit(f"do={what}")
    assert sweep.end(job) == [Status(Stage.GONE, reason, node_fault)]


def test_scancel_ends_a_job_for_good(cluster: Cluster, tmp_path: Path):
    sweep = Sweep(tmp_path)
    running, folder = sweep.submit("do=step", "steps=1000")
    cluster.until(lambda: (folder / "starts.txt").exists())
    cluster.ask("scancel", running)
    assert sweep.end(running) == [Status(Stage.GONE, "cancelled (scancel)", node_fault=True, excused=True)]
    assert (folder / "saved.txt").exists() and not (folder / "outcome.json").exists()
    time.sleep(4)
    assert cluster.job(running)["JobState"] == "CANCELLED"


def test_another_executor_adopts_a_job_by_its_number(cluster: Cluster, tmp_path: Path):
    sweep = Sweep(tmp_path)
    job, folder = sweep.submit("do=sleep", "seconds=4")
    cluster.until(lambda: sweep.runs(job))
    sweep.executor = sweep.new_executor()
    assert sweep.runs(job)
    assert sweep.end(job) == [Status(Stage.GONE)] and outcome(folder)["values"] == [1.0]
    forgotten = sweep.executor.status(["99999"])["99999"]
    assert forgotten == Status(Stage.GONE, "SLURM does not know this job any more", node_fault=True)


def test_a_controller_that_does_not_answer_ends_nothing(cluster: Cluster, tmp_path: Path, monkeypatch):
    sweep = Sweep(tmp_path)
    job, _ = sweep.submit("do=sleep", "seconds=3")
    cluster.until(lambda: sweep.runs(job))
    broken = tmp_path / "bin" / "squeue"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
        sweep.executor._looked = -1e9
        assert sweep.runs(job)
    assert sweep.end(job) == [Status(Stage.GONE)]


def test_a_lost_node_gives_the_job_to_another_one(cluster: Cluster, tmp_path: Path):
    sweep = Sweep(tmp_path)
    job, folder = sweep.submit("do=once", "seconds=100")
    cluster.until(lambda: (folder / "started_before").exists())
    node = cluster.job(job)["BatchHost"]
    cluster.kill_node(node)
    cluster.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")
    assert sweep.executor.status([job])[job].stage != Stage.GONE
    try:
        assert sweep.end(job) == [Status(Stage.GONE)]
        assert outcome(folder)["values"] == [5.0] and cluster.job(job)["BatchHost"] != node
    finally:
        cluster.start_node(node)
        cluster.until(lambda: "idle" in cluster.ask("sinfo", "-h", "-n", node, "-o", "%t"))


def test_a_lost_node_without_requeue_is_the_nodes_fault(cluster: Cluster, tmp_path: Path):
    sweep = Sweep(tmp_path, requeue=False)
    job, folder = sweep.submit("do=once", "seconds=100")
    cluster.until(lambda: (folder / "started_before").exists())
    node = cluster.job(job)["BatchHost"]
    cluster.kill_node(node)
    cluster.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")
    try:
        assert sweep.end(job) == [Status(Stage.GONE, "the node failed", node_fault=True, excused=True)]
    finally:
        cluster.start_node(node)
        cluster.until(lambda: "idle" in cluster.ask("sinfo", "-h", "-n", node, "-o", "%t"))


def test_preempted_then_resumed(cluster: Cluster, tmp_path: Path):
    sweep = Sweep(tmp_path, partition="low", cpus_per_task=4, nodelist="n3", timeout_min=60)
    job, folder = sweep.submit("do=step", "steps=12")
    cluster.until(lambda: (folder / "starts.txt").exists())
    script = "#!/bin/bash\nsleep 2\n"
    (tmp_path / "important.sh").write_text(script)
    more = ["--partition=high", "--nodelist=n3", "--cpus-per-task=4", "--output=/dev/null"]
    cluster.ask("sbatch", *more, str(tmp_path / "important.sh"))
    assert sweep.end(job, seconds=100) == [Status(Stage.GONE)]
    assert outcome(folder)["values"] == [12.0], sweep.logs()
    assert (folder / "starts.txt").read_text().split() == [job, "0", job, "1"]
    assert 0 < int((folder / "saved.txt").read_text()) < 12


def test_one_of_an_array_is_preempted_and_resumes(cluster: Cluster, tmp_path: Path):
    sweep = Sweep(tmp_path, partition="low", cpus_per_task=2, nodelist="n3", timeout_min=60, array=True)
    works = [sweep.work("do=give", "value=3"), sweep.work("do=fail"), sweep.work("do=step", "steps=16")]
    jobs = names(sweep.executor.submit(works))
    assert [job.split("_")[1] for job in jobs] == ["0", "1", "2"]
    long = works[2].folder
    cluster.until(lambda: (long / "starts.txt").exists())
    (tmp_path / "important.sh").write_text("#!/bin/bash\nsleep 2\n")
    more = ["--partition=high", "--nodelist=n3", "--cpus-per-task=4", "--output=/dev/null"]
    cluster.ask("sbatch", *more, str(tmp_path / "important.sh"))
    assert sweep.end(*jobs, seconds=100) == [Status(Stage.GONE)] * 3
    ended = [outcome(work.folder) for work in works]
    assert [e["status"] for e in ended] == ["complete", "failed", "complete"] and ended[2]["values"] == [16.0]
    assert (long / "starts.txt").read_text().split()[1::2] == ["0", "1"], sweep.logs()
    assert json.loads((long / "started.json").read_text())["job"] == jobs[2]


@pytest.mark.timeout(600)
def test_a_time_limit_saves_requeues_and_resumes_but_not_for_ever(cluster: Cluster, tmp_path: Path):
    """SLURM's shortest limit is a minute, and it signals up to a minute early; both jobs pass through it at once."""
    limits = {"timeout_min": 1, "signal_delay_s": 50}
    sweep = Sweep(tmp_path, **limits)
    short, folder = sweep.submit("do=step", "steps=90")
    works = [sweep.work("do=step", "steps=90"), sweep.work("do=give", "value=1")]
    (both,) = names(sweep.new_executor(**limits, trials_per_job=2).submit(works))
    given_up = sweep.work("do=step", "steps=100000")
    (long,) = names(sweep.new_executor(**limits, max_num_timeout=1).submit([given_up]))
    array = [sweep.work("do=step", "steps=90") for _ in range(2)]
    tasks = names(sweep.new_executor(**limits, array=True).submit(array))
    assert sweep.end(short, long, both, *tasks, seconds=400) == [Status(Stage.GONE)] * 5
    assert [outcome(work.folder)["values"] for work in array] == [[90.0]] * 2
    for resumed, job in ((folder, short), (works[0].folder, both)):
        assert outcome(resumed)["values"] == [90.0], sweep.logs()
        assert (resumed / "starts.txt").read_text().split()[:4] == [job, "0", job, "1"]
    assert outcome(works[1].folder)["values"] == [1.0]
    ended = outcome(given_up.folder)
    assert ended["status"] == "failed"
    assert ended["reason"].startswith("ran into its time limit 2 times: raise hydra.launcher.timeout_min")


def test_without_srun_signals_reach_training_too(cluster: Cluster, tmp_path: Path):
    sweep = Sweep(tmp_path, use_srun=False)
    job, folder = sweep.submit("do=step", "steps=1000")
    cluster.until(lambda: (folder / "starts.txt").exists())
    cluster.ask("scancel", "--batch", "--signal=USR2", job)
    cluster.until(lambda: (folder / "saved.txt").exists())
    cluster.until(lambda: len((folder / "starts.txt").read_text().split()) == 4)
    assert cluster.job(job)["Restarts"] == "1"
    sweep.executor.cancel([job])
    sweep.end(job)


def test_refusals_are_one_line(cluster: Cluster, tmp_path: Path):
    sweep = Sweep(tmp_path, partition="nowhere")
    with pytest.raises(UserError, match=r"sbatch refuses the job: .*invalid partition specified: nowhere") as refused:
        sweep.submit("do=give", "value=1")
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match=r"sbatch refuses the job: .*nowhere"):
        submit_driver(["true"], tmp_path, sweep.executor.options, "tests")


def test_a_detached_driver_comes_back_when_its_time_is_over(cluster: Cluster, tmp_path: Path):
    options = SlurmOptions(driver=DriverOptions(timeout_min=5, mem_gb=0.2))
    code = "import os,time; print('run', os.environ.get('SLURM_RESTART_COUNT', 0), 'it''s', flush=True); time.sleep(3)"
    job = submit_driver(["python3", "-c", code], tmp_path, options, "tests")
    cluster.until(lambda: cluster.job(job)["JobState"] == "COMPLETED", 30)
    assert (tmp_path / "driver.log").read_text() == "run 0 its\n"
    assert cluster.job(job)["JobName"] == "tests-driver" and cluster.job(job)["Requeue"] == "1"
    job = submit_driver(["python3", "-c", code.replace("sleep(3)", "sleep(20)")], tmp_path, options, "tests")
    cluster.until(lambda: cluster.job(job)["JobState"] == "RUNNING", 30)
    time.sleep(1)
    cluster.ask("scancel", "--batch", "--signal=USR2", job)
    cluster.until(lambda: "run 1 its" in (tmp_path / "driver.log").read_text(), 60)
    cluster.ask("scancel", job)
