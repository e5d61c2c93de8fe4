"""Arrays, resources by condition and what is asked for instead, with programs that print what real clusters print."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm, fake, listed
from omegaconf import OmegaConf

from recyclelora.sweep.execution import Job, NotNow, Stage, Status, Work
from recyclelora.sweep.executors import SLURM, make_executor
from recyclelora.sweep.slurm.executor import SlurmExecutor
from recyclelora.system.errors import UserError
from sweep.slurm.tasks import Task

__all__ = ["fake"]

LIMITED = (
    'n=$(grep -o "array=0-[0-9]*" ${{@: -1}} | grep -o "[0-9]*$"); n=${{n:-0}}; '
    'if (( n >= {most} )); then echo "sbatch: error: {words}" >&2; exit 1; fi; echo 7'
)
"""An sbatch that takes arrays of fewer jobs."""


class Composing(Task):
    """A task whose configuration is made of its overrides alone."""

    config = OmegaConf.create({"backbone": {"name": "small"}})

    def composed(self, overrides: list[str]) -> object:
        name = dict(text.split("=") for text in overrides).get("backbone", "small")
        return OmegaConf.create({"backbone": {"name": name}})


def executor_of(folder: Path, n_jobs: int = 8, **keys: object) -> SlurmExecutor:
    made = make_executor({"_target_": SLURM, "poll_s": 0.01, **keys}, Composing(), None, folder, n_jobs, "study")
    assert isinstance(made, SlurmExecutor)
    return made


def works(folder: Path, count: int, *overrides: str) -> list[Work]:
    return [Work(n, folder / f"ledger/{n:04d}/unit_0", 1, list(overrides)) for n in range(count)]


def status(executor: SlurmExecutor, job: str) -> Status:
    executor._looked = -1e9
    return executor.status([job])[job]


def test_trials_that_start_together_are_one_array(fake: FakeSlurm, tmp_path: Path):
    executor = executor_of(tmp_path, array=True, trials_per_job=2, gres="gpu:a100:4")
    jobs = executor.submit(works(tmp_path, 5))
    assert jobs == [Job("101_0", 2, 2.0), Job("101_1", 2, 2.0), Job("101_2", 1, 2.0)]
    assert len(fake.calls("sbatch")) == 1 and "#SBATCH --array=0-2%3" in fake.script
    assert "#SBATCH --job-name=study-0000..0004" in fake.script and "%A_%a/%A_%a_0_log.out" in fake.script
    assert [folder.parent.name for folder, _ in executor.files.units("101_1")] == ["0002", "0003"]
    assert (executor.files.of("101_2") / "101_2_submitted.pkl").exists()
    assert executor.submit(works(tmp_path, 1)) == [Job("102", 1, 2.0)]  # one alone is no array
    fake.queue(listed("101_0", "RUNNING"), listed("101_1", "PENDING", "JobArrayTaskLimit"))
    assert status(executor, "101_0").stage == Stage.RUNNING
    assert status(executor, "101_1") == Status(Stage.QUEUED, "JobArrayTaskLimit")
    assert "--array" in fake.calls("squeue")[0]


@pytest.mark.parametrize(
    "words",
    ["AssocMaxSubmitJobLimit", "QOSMaxSubmitJobPerUserLimit", "Invalid job array specification",
     "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"],
)  # fmt: skip
def test_an_array_that_is_too_large_is_taken_in_part(fake: FakeSlurm, tmp_path: Path, words: str):
    executor = executor_of(tmp_path, array=True)
    fake.does("sbatch", LIMITED.format(most=3, words=words))
    assert [job.name for job in executor.submit(works(tmp_path, 8))] == ["7_0", "7_1"]
    assert not list(executor.files.private.glob("*.pkl"))


def test_a_limit_without_any_room_is_waited_for(fake: FakeSlurm, tmp_path: Path):
    executor = executor_of(tmp_path, array=True)
    fake.says("sbatch", "", "sbatch: error: AssocMaxSubmitJobLimit", 1)
    fake.queue(listed("9", "RUNNING"))
    with pytest.raises(NotNow, match="AssocMaxSubmitJobLimit"):
        executor.submit(works(tmp_path, 8))
    assert len(fake.calls("sbatch")) == 4  # 8, 4, 2 and 1


def test_what_is_wrong_with_an_array_is_not_asked_for_in_smaller_ones(fake: FakeSlurm, tmp_path: Path):
    fake.says("sbatch", "", "sbatch: error: invalid partition specified: gpuu", 1)
    with pytest.raises(UserError, match="invalid partition"):
        executor_of(tmp_path, array=True).submit(works(tmp_path, 8))
    assert len(fake.calls("sbatch")) == 1


def test_trials_that_need_other_resources_are_other_jobs(fake: FakeSlurm, tmp_path: Path):
    executor = executor_of(
        tmp_path, array=True, gres="gpu:1",
        resources=[{"when": "backbone=large|giant", "gres": "gpu:h100:2", "mem_gb": 120}],
    )  # fmt: skip
    small, large = works(tmp_path, 2, "backbone=small"), works(tmp_path, 3, "backbone=giant")
    assert executor.submit([*small, *large]) == [Job("101_0", gpus=1), Job("101_1", gpus=1)]
    assert "#SBATCH --gres=gpu:1" in fake.script
    assert executor.submit(large) == [Job(f"102_{i}", gpus=2) for i in range(3)]
    assert "#SBATCH --gres=gpu:h100:2" in fake.script and "#SBATCH --mem=122880MB" in fake.script
    with pytest.raises(UserError, match=r"hydra.launcher.resources: when: bakbone=x: there is no bakbone"):
        executor_of(tmp_path, resources=[{"when": "bakbone=x", "mem_gb": 1}])


@pytest.mark.parametrize("words", ["invalid partition specified: new", "QOSMaxSubmitJobPerUserLimit"])
def test_what_is_refused_is_asked_for_otherwise(fake: FakeSlurm, tmp_path: Path, words: str):
    executor = executor_of(tmp_path, partition="new", fallback=[{"partition": "old", "gres": "gpu:v100:1"}])
    fake.does("sbatch", f"grep -q partition=old ${{@: -1}} || {{ echo 'sbatch: error: {words}' >&2; exit 1; }}; echo 9")
    assert executor.submit(works(tmp_path, 1)) == [Job("9")]
    assert "#SBATCH --gres=gpu:v100:1" in fake.script
    fake.says("sbatch", "", f"sbatch: error: {words}", 1)
    with pytest.raises((UserError, NotNow), match=words):
        executor.submit(works(tmp_path, 1))


def test_a_controller_that_is_away_is_asked_once(fake: FakeSlurm, tmp_path: Path):
    fake.says("sbatch", "", "sbatch: error: Unable to contact slurm controller (connect failure)", 1)
    with pytest.raises(NotNow):
        executor_of(tmp_path, array=True, fallback=[{"partition": "old"}]).submit(works(tmp_path, 8))
    assert len(fake.calls("sbatch")) == 1


@pytest.mark.parametrize(("reason", "minutes"), [("PartitionDown", 30), ("Priority", 1e-9)])
def test_what_does_not_start_is_asked_for_otherwise(fake: FakeSlurm, tmp_path: Path, reason: str, minutes: float):
    executor = executor_of(tmp_path, partition="new", fallback=[{"partition": "old"}], fallback_min=minutes)
    (work,) = works(tmp_path, 1)
    (job,) = executor.submit([work])
    fake.queue(listed(job.name, "PENDING", reason))
    assert status(executor, job.name).stage == Stage.QUEUED
    time.sleep(0.001)
    status(executor, job.name)
    assert fake.calls("scancel")[-1] == "--state=PENDING 101"
    fake.queue(listed(job.name, "CANCELLED"))
    gone = status(executor, job.name)
    assert (gone.stage, gone.excused) == (Stage.GONE, True) and "next of hydra.launcher.fallback" in str(gone.reason)
    (second,) = executor.submit([work])
    assert "#SBATCH --partition=old" in fake.script
    fake.queue(listed(second.name, "PENDING", reason))
    for _ in range(3):
        assert status(executor, second.name).stage == Stage.QUEUED  # the last choice waits as long as it takes
    assert all("102" not in call for call in fake.calls("scancel"))


def test_a_job_that_starts_meanwhile_stays(fake: FakeSlurm, tmp_path: Path):
    executor = executor_of(tmp_path, fallback=[{"partition": "old"}])
    (job,) = executor.submit(works(tmp_path, 1))
    fake.queue(listed(job.name, "PENDING", "PartitionDown"))
    status(executor, job.name)
    fake.queue(listed(job.name, "RUNNING"))
    assert status(executor, job.name) == Status(Stage.RUNNING)
